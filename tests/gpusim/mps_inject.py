"""What the simulated MPS processes read of `$SIMGPU_DIR/inject`: numbers of the profile, overridden while a test runs.

Rules are lines: `set <key> <number>`, the last one of a key counts. `fail …` lines are the C library's. inject.py
writes them.

Read anew at each use: a fault, a rebuild and an attach are rare, and a test wants its rule in force at once.
"""

from __future__ import annotations

import os

from . import mps_host


def number(key: str, default: int) -> int:
    """The injected number, else the profile's, else `default`."""
    host = mps_host.read()
    if host is None:
        return default
    value = host.number(key, default)
    try:
        with open(os.path.join(host.path, "inject"), encoding="utf-8") as file:
            lines = [line.split() for line in file]
    except OSError:
        return value
    for words in lines:
        if len(words) == 3 and words[0] == "set" and words[1] == key:
            value = int(words[2])
    return value
