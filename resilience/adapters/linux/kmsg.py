"""The kernel log: /dev/kmsg from now on, or a regular file that is followed from its end (tests, syslog).

A device record is `priority,sequence,microseconds,flags;text` and possibly lines of properties; it is handed on as it
is. Records that the kernel overwrote before they were read (EPIPE) are lost, and reading goes on. Without the right
to read the log (CAP_SYSLOG) the constructor raises ResilienceError with the way out.

The driver writes the process ids of the kernel's own count. In another pid namespace (a container) they are other
processes' numbers, or nobody's: `names_our_processes` tells, so that nobody is taken for the culprit by chance.
"""

import os
import stat

from resilience.adapters.linux.inotify import Inotify, Tail
from resilience.model.errors import ResilienceError

_RECORD = 8192
"""Bytes of the longest record (kernel: CONSOLE_EXT_LOG_MAX)."""
_INITIAL_PIDS = "pid:[4026531836]"
"""The namespace that counts as the kernel does (PROC_PID_INIT_INO of the kernel's proc_ns.h)."""
_BURST = 4096
"""Records handed on at a time, so that a flood does not hold up the loop."""


class KernelLogReader:
    """KernelLog port."""

    names_our_processes = True

    def __init__(self, path: str = "/dev/kmsg", *, pids: str = "/proc/self/ns/pid") -> None:
        """`pids` is the link to this process's pid namespace."""
        self._notify: Inotify | None = None
        self._tail: Tail | None = None
        self._fd = -1
        try:
            device = stat.S_ISCHR(os.stat(path).st_mode)
        except FileNotFoundError:
            device = False
        except OSError as error:
            raise ResilienceError("kernel log", "cannot be read", f"{path}: {error.strerror}") from error
        if device:
            self._open_device(path)
            self.names_our_processes = os.readlink(pids) == _INITIAL_PIDS
        else:
            self._follow(path)

    def _open_device(self, path: str) -> None:
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise ResilienceError(
                "kernel log",
                "cannot be read",
                f"{path}: {error.strerror}",
                hint="the agent needs CAP_SYSLOG; set paths.kmsg to a file that syslog writes",
            ) from error
        os.lseek(self._fd, 0, os.SEEK_END)

    def _follow(self, path: str) -> None:
        self._notify = Inotify()
        if self._notify.add(os.path.dirname(os.path.abspath(path))) is None:
            self._notify.close()
            raise ResilienceError("kernel log", "no such directory", os.path.dirname(path))
        self._fd = self._notify.fd
        self._tail = Tail(path)
        self._tail.skip(0)

    def fileno(self) -> int:
        return self._fd

    def read(self) -> tuple[str, ...]:
        if self._notify is not None and self._tail is not None:
            self._notify.read()
            return tuple(self._tail.read())
        records: list[str] = []
        while len(records) < _BURST:
            try:
                record = os.read(self._fd, _RECORD)
            except BlockingIOError:
                break
            except BrokenPipeError:
                continue
            if not record:
                break
            records.append(record.decode("utf-8", "replace"))
        return tuple(records)

    def close(self) -> None:
        if self._tail is not None:
            self._tail.close()
        os.close(self._fd)
