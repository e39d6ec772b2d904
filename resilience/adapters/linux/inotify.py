"""Linux inotify by ctypes, and files that are followed as they grow: what kmsg.py and server_logs.py stand on.

Following is by name: a file that appears later, is truncated or replaced is read from its beginning. Files belong to
users: they are opened without following a link and without blocking, and anything but a regular file is ignored. Of a
file that has grown by more than anybody writes only the end is read (a user can make it a terabyte of nothing with one
call), so that no file holds up the reader of the others.
"""

import ctypes
import os
import stat
import struct
from contextlib import suppress

from resilience.model.errors import ResilienceError

GROWTH = 0x2 | 0x80 | 0x100 | 0x400 | 0x800
"""IN_MODIFY | IN_MOVED_TO | IN_CREATE | IN_DELETE_SELF | IN_MOVE_SELF (inotify(7))."""
NAMES = 0x40 | 0x80 | 0x100 | 0x200
"""IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_DELETE: not a word of what is written to what is there."""
REMOVALS = 0x40 | 0x200 | 0x400 | 0x800
"""IN_MOVED_FROM | IN_DELETE | IN_DELETE_SELF | IN_MOVE_SELF."""
WRITES = 0x2
"""IN_MODIFY."""
IGNORED = 0x8000
"""IN_IGNORED: the watched directory is gone."""
_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC
_EVENT = struct.Struct("iIII")
_CHUNK = 1 << 16
_LINE = 1 << 16
"""Longest line that is put together; a longer one is cut here."""
_MOST = 1 << 18
"""Bytes of one file that are read at a time: 2000 lines and more, and some 30 ms of work. A fault writes about 200."""
_KEPT = 1 << 18
"""Bytes before the end of what has been read that a file in a room keeps at least."""
_PUNCH = 0x1 | 0x2
"""FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE."""
_LIBC = ctypes.CDLL(None, use_errno=True)

_ANY = 1 << 30


class Inotify:
    """A watch descriptor per directory."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd = int(self._libc.inotify_init1(_FLAGS))
        if self.fd < 0:
            raise ResilienceError("inotify", "cannot be started", os.strerror(ctypes.get_errno()))

    def add(self, directory: str, mask: int = GROWTH) -> int | None:
        """The watch's number; None when the directory is not there."""
        number = int(self._libc.inotify_add_watch(self.fd, os.fsencode(directory), mask))
        return number if number >= 0 else None

    def remove(self, number: int) -> None:
        self._libc.inotify_rm_watch(self.fd, number)

    def read(self) -> set[tuple[int, bool]]:
        """Watches on which something happened, and whether they are gone."""
        seen: set[tuple[int, bool]] = set()
        while True:
            try:
                data = os.read(self.fd, _CHUNK)
            except BlockingIOError:
                return seen
            offset = 0
            while offset < len(data):
                number, mask, _, length = _EVENT.unpack_from(data, offset)
                offset += _EVENT.size + length
                seen.add((number, bool(mask & IGNORED)))

    def close(self) -> None:
        os.close(self.fd)


class Tail:
    """One growing file; of what has come since the last time the last `most` bytes are read, and of these the last lines."""

    def __init__(self, path: str, *, most: int = _MOST, lines: int = _ANY, room: str = "") -> None:
        """`room`: where that is a mount, what has been read goes from it but for the end: its writer may write for ever."""
        self.path = path
        self._room = room
        self._given_back = 0
        self._most = most
        self._lines = lines
        self._fd = -1
        self._file = (0, 0)
        self._offset = 0
        self._rest = b""

    def skip(self, keep: int, *, most: int = _ANY) -> list[str]:
        """Go to the end; returns the complete lines among the last `keep` bytes, the last `most` of them."""
        if not self._open():
            return []
        self._offset = max(0, os.fstat(self._fd).st_size - keep)
        cut = self._offset > 0
        lines = self._grown(most)
        return lines[1:] if cut else lines

    def read(self) -> list[str]:
        """Lines that came since the last time."""
        lines: list[str] = []
        if self._fd >= 0:
            lines = self._grown(self._lines)
            if self._replaced():
                lines += self._grown(self._lines)  # what was written between those two looks
                self.close()
        if self._fd < 0 and self._open():
            lines += self._grown(self._lines)
        if self._room and self._offset - self._given_back > 2 * _KEPT:
            self._give_back(self._offset - _KEPT)
        return lines

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._offset, self._rest = -1, 0, b""

    def _open(self) -> bool:
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | _FLAGS)
        except OSError:
            return False
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            os.close(fd)
            return False
        self._fd, self._file, self._offset, self._rest = fd, (status.st_dev, status.st_ino), 0, b""
        self._given_back = 0
        return True

    def _give_back(self, end: int) -> None:
        """The file keeps its length, and has a hole before `end`."""
        self._given_back = end
        if os.path.ismount(self._room):
            with suppress(OSError):
                fd = os.open(f"/proc/self/fd/{self._fd}", os.O_RDWR | _FLAGS)
                _LIBC.fallocate64(fd, _PUNCH, ctypes.c_int64(0), ctypes.c_int64(end))
                os.close(fd)

    def _replaced(self) -> bool:
        try:
            status = os.lstat(self.path)
        except OSError:
            return True
        return (status.st_dev, status.st_ino) != self._file  # each tmpfs counts its files anew

    def _grown(self, most: int) -> list[str]:
        """What has come up to now; of what comes meanwhile another event tells."""
        end = os.fstat(self._fd).st_size
        if end < self._offset:
            self._offset, self._rest = 0, b""
        cut = end - self._offset > self._most
        if cut:
            self._offset, self._rest = end - self._most, b""
        lines: list[str] = []
        while self._offset < end and (chunk := os.pread(self._fd, min(_CHUNK, end - self._offset), self._offset)):
            self._offset += len(chunk)
            *whole, self._rest = (self._rest + chunk).rsplit(b"\n", most + 1)
            self._rest = self._rest[:_LINE]
            if len(whole) > most:
                lines, whole = [], whole[1:]  # what was before them is not taken apart
            lines += [line.decode("utf-8", "replace") for line in whole]
        return lines[1:][-most:] if cut else lines[-most:]
