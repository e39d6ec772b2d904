"""control.log and server.log: `[2026-11-20 17:14:17.942 Control  7585] text`, local time, pid right-aligned to five.

Guarantees: one write(2) per line on an O_APPEND descriptor, nothing buffered: a reader that follows the file sees a
line when the event has happened, and two processes in one file never mix within a line.

On failure: a log that cannot be written is silently none, as with the real daemon, which warns once at its start.
"""

from __future__ import annotations

import os
import time


class Log:
    """One log under one role (`Control`, `Other`, `Server`); no descriptor, no log."""

    __slots__ = ("descriptor", "role")

    def __init__(self, descriptor: int | None, role: str) -> None:
        self.descriptor = descriptor
        self.role = role

    def note(self, text: str) -> None:
        """Write one line at once."""
        now = time.time()
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))
        line = f"[{stamp}.{int(now * 1000) % 1000:03d} {self.role} {os.getpid():5d}] {text}\n".encode()
        if self.descriptor is None:
            return
        try:
            os.write(self.descriptor, line)
        except OSError:
            self.descriptor = None


def append(path: str) -> int | None:
    """A descriptor that appends to `path`, created 0644 if need be; None where that is not allowed."""
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    except OSError:
        return None
