"""The table of a deposit as a descriptor: a memfd that nobody can change once it is made.

So a table may be as long as it needs to be, where a packet may not, and a standby can be given it: it opens nothing that
another process works on. The keeper imports this: standard library only.
"""

import fcntl
import os

from resilience.model.errors import StateError

MAX_BYTES = 1 << 24
"""65,536 arrays with long names take about half of it."""
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


def make(text: bytes) -> int:
    """A descriptor with that text, sealed. Raises StateError."""
    if len(text) > MAX_BYTES:
        raise StateError("kept state", "its table of arrays is too long", f"{len(text)} bytes")
    fd = os.memfd_create("mpsr-table", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with open(os.dup(fd), "wb", buffering=0) as file:
        file.write(text)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    return fd


def sealed(fd: int) -> bool:
    """Whether the descriptor is such a table."""
    try:
        return fcntl.fcntl(fd, fcntl.F_GET_SEALS) & _SEALS == _SEALS and os.fstat(fd).st_size <= MAX_BYTES
    except OSError:
        return False


def read(fd: int) -> bytes:
    """The text. Raises StateError for what is no such table."""
    if not sealed(fd):
        raise StateError("kept state", "has no table of arrays")
    return os.pread(fd, MAX_BYTES, 0)
