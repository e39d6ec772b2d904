"""The journal: JSON lines, appended whole, readable by root's group. It never raises.

A line that could not be written (full disk, missing directory) is counted; the next one that gets through says how
many were lost. A file that was moved away (log rotation) is left to its new name, and a new one begins.
"""

import json
import os
from contextlib import suppress

from resilience.contract import contract
from resilience.ports import Clock

_MODE = 0o640
_TAIL = 1 << 20
"""Bytes at the end of the journal that are looked at for what the last agent did."""


class JournalFile:
    """Journal port (AgentJournal) on a file."""

    def __init__(self, path: str, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._fd = -1
        self._inode = 0
        self._lost = 0
        self._torn = False
        self._names = frozenset(contract()["event"])

    def append(self, event: str, /, **fields: object) -> None:
        entry: dict[str, object] = {
            "event": event,
            "wall": round(self._clock.wall(), 6),
            "mono": round(self._clock.monotonic(), 6),
        }
        if event not in self._names:
            entry["unregistered"] = True
        if self._lost:
            entry["lost"] = self._lost
        entry |= {key: value for key, value in fields.items() if value is not None}
        line = json.dumps(entry, default=str, separators=(",", ":")).encode() + b"\n"
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
                if os.stat(self._path).st_ino == self._inode:
                    return
            os.close(self._fd)
            self._fd = -1
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(self._path, flags, _MODE)
        self._inode = os.fstat(self._fd).st_ino

    def recent(self) -> tuple[dict[str, object], ...]:
        entries: list[dict[str, object]] = []
        for line in self._last_lines():
            with suppress(ValueError):
                if isinstance(entry := json.loads(line), dict):
                    entries.append(entry)
        return tuple(entries)

    def _last_lines(self) -> list[bytes]:
        try:
            with open(self._path, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                file.seek(max(0, size - _TAIL))
                return file.read().split(b"\n")
        except OSError:
            return []

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
