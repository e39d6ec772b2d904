"""The journal: JSON lines, appended whole, readable by root's group. It never raises.

A line that could not be written (full disk, missing directory) is counted; the next one that gets through says how
many were lost. A file that was moved away (log rotation) is left to its new name, and a new one begins. Whoever writes beyond
`ROTATE` bytes moves it to `.1` first, in place of what was there: the two never take more than twice as much.
"""

import fcntl
import os
from contextlib import suppress

from resilience.model.records import Record, journal
from resilience.ports import Clock

_MODE = 0o640
ROTATE = 64 << 20
"""Bytes: some 300,000 records. logrotate, which the site's files set up, comes before this on a quiet node."""
_TAIL = 1 << 20
"""Bytes at the end of the journal that are looked at for what the last agent did."""


class JournalFile:
    """Journal port (AgentJournal) on a file."""

    def __init__(self, path: str, clock: Clock, *, rotate: int = ROTATE) -> None:
        self._path = path
        self._rotate = rotate
        self._clock = clock
        self._fd = -1
        self._inode = 0
        self._lost = 0
        self._torn = False

    def append(self, record: Record) -> None:
        text = journal.line(record, wall=self._clock.wall(), mono=self._clock.monotonic(), lost=self._lost)
        line = text.encode() + b"\n"
        if self._torn:
            line = b"\n" + line
        if self._write(line):
            self._lost, self._torn = 0, False
        else:
            self._lost += 1

    def _write(self, line: bytes) -> bool:
        try:
            self._open()
            written = os.write(self._fd, line)
        except OSError:
            return False
        if written < len(line):
            self._torn = True
            return False
        return True

    def _open(self) -> None:
        if self._fd >= 0:
            with suppress(FileNotFoundError):
                if os.stat(self._path).st_ino == self._inode and not self._move_away():
                    return
            os.close(self._fd)
            self._fd = -1
        self._begin()
        if self._move_away():
            os.close(self._fd)
            self._begin()

    def _move_away(self) -> bool:
        """A file that is long enough, by one of its writers."""
        if os.fstat(self._fd).st_size < self._rotate:
            return False
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False  # another does it
        if os.stat(self._path).st_ino == self._inode:
            os.rename(self._path, f"{self._path}.1")
        return True

    def _begin(self) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(self._path, flags, _MODE)
        self._inode = os.fstat(self._fd).st_ino

    def recent(self) -> tuple[journal.Entry, ...]:
        found = (journal.parse(line.decode("utf-8", "replace")) for line in self._last_lines())
        return tuple(entry for entry in found if entry is not None)

    def _last_lines(self) -> list[bytes]:
        """Of the file that was moved away as well, as long as the new one is short."""
        data = _end(self._path, _TAIL)
        if len(data) < _TAIL:
            data = _end(f"{self._path}.1", _TAIL - len(data)) + data
        return data.split(b"\n")

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _end(path: str, most: int) -> bytes:
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - most))
            return file.read(most)
    except OSError:
        return b""
