"""Overwriting host memory that was kept, through its descriptors. The keeper imports this: standard library only.

Only for memory that no other process uses any more: who maps it sees zeros, and a mapping of what is sealed meets its end.
"""

import contextlib
import os
from collections.abc import Iterable

NAME = "mpsr-host"
"""Of the memfds of host memory; what has another name is the driver's."""
_ZEROS = bytes(1 << 20)


def of_host(fd: int) -> bool:
    """The descriptor is one of host memory."""
    try:
        return os.readlink(f"/proc/self/fd/{fd}").split()[0] == f"/memfd:{NAME}"
    except OSError:
        return False


def overwrite(fds: Iterable[int]) -> None:
    """Zeros over each page that was used. What is sealed (a constant array) cannot be written: it is cut to nothing, and
    Linux clears a page before it gives it to anybody. One that cannot be had does not keep the others."""
    for fd in fds:
        with contextlib.suppress(OSError):
            try:
                _overwrite(fd)
            except PermissionError:
                os.ftruncate(fd, 0)


def _overwrite(fd: int) -> None:
    """Pages that were never used stay so: to write them would need memory that there may not be."""
    end, size = 0, os.fstat(fd).st_size
    while end < size:
        try:
            begin = os.lseek(fd, end, os.SEEK_DATA)
        except OSError:  # ENXIO: nothing more
            return
        end = os.lseek(fd, begin, os.SEEK_HOLE)
        for at in range(begin, end, len(_ZEROS)):
            os.pwrite(fd, _ZEROS[: end - at], at)
