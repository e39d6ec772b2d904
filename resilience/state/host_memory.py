"""Host memory of kept arrays: a memfd a span, so that it outlives the process as device memory does.

A memfd's pages are there when they are first used, so a span grows by the file's length alone, within addresses that were
taken for as much as the machine has. Relies on Linux's mmap over a range that is this process's own (MAP_FIXED).

A standby has stand-ins here too: one memfd of 2 MiB, mapped again and again. At the promotion the memory itself is
mapped over them, so numpy arrays, and whatever points into them, stay where they are.
"""

import contextlib
import ctypes
import fcntl
import mmap
import os
import zlib
from collections.abc import Sequence

from resilience.model.errors import StateError
from resilience.state import layout, wiping

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.mmap.restype = ctypes.c_void_p
_LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_LIBC.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_FIXED, _NORESERVE, _REMOVE = 0x10, 0x4000, 9
"""MAP_FIXED, MAP_NORESERVE, MADV_REMOVE of mman.h: Python's mmap has none of them, or not for a bare address."""
_F_SEAL_FUTURE_WRITE = 0x10
"""fcntl.h; Python has the name from 3.13 on."""
_FAILED = ctypes.c_void_p(-1).value
_READ_WRITE, _NO_ACCESS = mmap.PROT_READ | mmap.PROT_WRITE, 0
_GRANULE = 1 << 21
_MOST_STAND_INS = 1 << 14
"""Mappings of a span: Linux gives a process 65,530. A larger span has a larger granule."""


def _map(fd: int, size: int, *, at: int = 0, rights: int = _READ_WRITE) -> int:
    """The address; `at`: in place of what is there. Raises OSError."""
    flags = _NORESERVE | (mmap.MAP_SHARED if fd >= 0 else mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) | (_FIXED if at else 0)
    address = _LIBC.mmap(at, size, rights, flags, fd, 0)
    if address == _FAILED:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(address)


def _rounded(size: int) -> int:
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE


def _memfd(size: int) -> int:
    fd = os.memfd_create(wiping.NAME, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    return fd


class HostSpan:
    """`address` is fixed. Everything is done at once."""

    def __init__(self, address: int, fds: list[int], parts: list[int]) -> None:
        self.address = address
        self.fds = fds
        self.parts = parts

    @property
    def row(self) -> layout.Span:
        return layout.Span(address=self.address, parts=tuple(self.parts))

    def reach(self, size: int, *, ahead: bool) -> None:
        """Have zero-filled memory up to `size` bytes. Raises StateError."""
        if size <= self.parts[0]:
            return
        try:
            os.ftruncate(self.fds[0], _rounded(size))
        except OSError as error:
            hint = "a limit on the size of files (ulimit -f) counts here"
            raise StateError("host memory", f"{size} bytes cannot be had", error.strerror, hint=hint) from None
        self.parts[0] = _rounded(size)

    def take_in(self, parts: Sequence[int], fds: Sequence[int]) -> None:
        """The memory that another process made, behind these addresses."""
        at = self.address
        for size, fd in zip(parts, fds, strict=True):
            constant = fcntl.fcntl(_whole(fd, size), fcntl.F_GET_SEALS) & _F_SEAL_FUTURE_WRITE
            _map(fd, size, at=at, rights=mmap.PROT_READ if constant else _READ_WRITE)
            at += size
        self.parts, self.fds = list(parts), list(fds)

    def clear(self, size: int) -> None:
        """Stand-ins need not go before the memory comes."""

    def copy(self, source: "HostSpan", size: int) -> None:
        ctypes.memmove(self.address, source.address, size)

    def sum(self, at: int, size: int) -> int:
        return zlib.crc32((ctypes.c_char * size).from_address(self.address + at))

    def protect(self) -> None:
        """Nobody can write it any more, nor map it for writing: a write ends its process (SIGSEGV)."""
        at = self.address
        for size, fd in zip(self.parts, self.fds, strict=True):
            with contextlib.suppress(OSError):  # another process has done so, or Linux is older than 5.1
                fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _F_SEAL_FUTURE_WRITE)
            _map(fd, size, at=at, rights=mmap.PROT_READ)
            at += size

    def zero(self, at: int, size: int) -> None:
        """Whole pages go back to the machine; they are of zeros when they are used again."""
        begin, end = self.address + at, self.address + at + size
        first, last = _rounded(begin), end // mmap.PAGESIZE * mmap.PAGESIZE
        if first < last and _LIBC.madvise(first, last - first, _REMOVE) == 0:
            ctypes.memset(begin, 0, first - begin)
            ctypes.memset(last, 0, end - last)
        else:
            ctypes.memset(begin, 0, size)

    def wipe(self) -> None:
        """Overwrite all of it."""
        wiping.overwrite(self.fds)

    def write(self, at: int, content: bytearray) -> None:
        ctypes.memmove(self.address + at, (ctypes.c_char * len(content)).from_buffer(content), len(content))

    def read(self, at: int, size: int) -> bytearray:
        content = bytearray(size)
        ctypes.memmove((ctypes.c_char * size).from_buffer(content), self.address + at, size)
        return content


def _whole(fd: int, size: int) -> int:
    """The descriptor, when it has all that it is said to: to use what is missing would end the process."""
    if os.fstat(fd).st_size < size:
        raise StateError(
            "kept state", f"a descriptor of host memory is shorter than {size} bytes", os.fstat(fd).st_size
        )
    return fd


class HostMemory:
    """Makes spans."""

    def new(self) -> HostSpan:
        """Addresses for as much as the machine has, or as a limit on them (ulimit -v) leaves. Raises StateError."""
        fd, size = _memfd(0), _rounded(os.sysconf("SC_PHYS_PAGES") * mmap.PAGESIZE)
        while size >= _GRANULE:
            try:
                return HostSpan(_map(fd, size), [fd], [0])
            except OSError:
                size = _rounded(size // 2)
        os.close(fd)
        raise StateError("host memory", "no addresses are left", hint="see ulimit -v")

    def take_in(self, row: layout.Span, fds: Sequence[int]) -> HostSpan:
        """The memory of another process, at addresses of this one's own."""
        span = HostSpan(_map(-1, row.size, rights=_NO_ACCESS), [], [])
        span.take_in(row.parts, fds)
        return span

    def stand_in(self, row: layout.Span, *, used: bool) -> HostSpan:
        """Addresses; `used`: with stand-ins behind them, else with nothing."""
        span = HostSpan(_map(-1, row.size, rights=_NO_ACCESS), [], [])
        if used:
            size = _GRANULE
            while row.size // size > _MOST_STAND_INS:
                size *= 2
            fd = _memfd(size)
            for at in range(0, row.size, size):
                _map(fd, min(size, row.size - at), at=span.address + at)
            os.close(fd)
        return span

    def give_way(self) -> None:
        """Every stand-in went with its own mapping."""

    def warm(self, spans: Sequence[HostSpan], *, sums: bool) -> None:
        """Host memory needs none."""

    def wait(self) -> None:
        """Copies are done when they return."""
