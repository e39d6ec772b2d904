"""The few names of contract.toml that the keeper and a starting program need, without the cost of reading the file.

Reading it costs a TOML parser in a process that should be small and start at once. tests/unit/test_state_names.py
holds every value here against the contract.
"""

FD = "MPSR_FD"
ROLE = "MPSR_ROLE"
KEEPER = "MPSR_KEEPER"
TOKEN = "MPSR_TOKEN"
STDIO = "MPSR_STDIO"
SPILL = "MPSR_SPILL"

PROTOCOL_VERSION = 1
MAX_FDS = 253

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_REFUSED = 3
