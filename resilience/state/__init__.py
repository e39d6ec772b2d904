"""Kept state: the keeper, its wire protocol, commit records, CUDA memory, the session API and the spiller."""
