"""Hypothesis times each example and fails one that took long; a busy machine makes any of them do so. No test here is about time."""

from hypothesis import settings

settings.register_profile("any-machine", deadline=None)
settings.load_profile("any-machine")
