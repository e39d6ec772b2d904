"""Finding and ending processes that are proven to be the ones meant.

A process counts as meant when its user, its name or its environment say so *and* its start time stays the same
between the look and the signal; the signal goes through a pidfd, so a number that was given to another process in
between cannot be hit. A zombie is gone: it holds nothing. Waiting is bounded and sleeps in poll(2).
"""

import os
import select
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

from resilience.adapters.linux.proc_stat import proc_stat
from resilience.model.ids import ProcessId

_ENVIRON_LIMIT = 1 << 20
"""Bytes of one process's environment that are looked at."""
_KILL_WAIT = 3.0
"""Seconds for the kernel to take down a process after SIGKILL; more means that it hangs in a driver call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedProcess:
    """A living process as /proc shows it. `name` is its comm: at most 15 characters."""

    process: ProcessId
    uid: int
    name: str
    environ: Mapping[str, str]
    command: tuple[str, ...]

    def __str__(self) -> str:
        name = "".join(
            char if char.isprintable() else "?" for char in self.name
        )  # the user's choice: no lines of its own
        return f"process {self.process.pid} ({name})"


def starttime(pid: int) -> int | None:
    """Field 22 of /proc/<pid>/stat; None when the process is gone or a zombie."""
    stat = proc_stat(pid)
    return None if stat is None or stat.gone else stat.starttime


def parent(pid: int) -> int | None:
    """Field 4 of /proc/<pid>/stat; None when the process is gone or a zombie."""
    stat = proc_stat(pid)
    return None if stat is None or stat.gone else stat.parent


def _read(path: str, limit: int) -> str:
    try:
        with open(path, "rb") as file:
            return file.read(limit).decode("utf-8", "replace")
    except OSError:
        return ""


def look(pid: int) -> ObservedProcess | None:
    """One process; None when it is gone, a zombie, or not ours to look at."""
    try:
        uid = os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return None
    stat = proc_stat(pid)
    if stat is None or stat.gone:
        return None
    environ = {
        name: value
        for name, equals, value in (
            word.partition("=") for word in _read(f"/proc/{pid}/environ", _ENVIRON_LIMIT).split("\0")
        )
        if equals
    }
    command = tuple(_read(f"/proc/{pid}/cmdline", 1 << 16).split("\0"))
    process = ProcessId(pid=pid, starttime=stat.starttime)
    return ObservedProcess(process=process, uid=uid, name=stat.name, environ=environ, command=command)


def living(uid: int) -> Iterator[ObservedProcess]:
    """Every living process of a user that can be looked at, our own left out."""
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        with suppress(OSError):
            if os.stat(f"/proc/{entry}").st_uid == uid and (seen := look(int(entry))):
                yield seen


def has_any(uid: int) -> bool:
    """Whether a process of a user lives, also one that hides behind PR_SET_DUMPABLE."""
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with suppress(OSError):
                rows = _read(f"/proc/{entry}/status", 1 << 14).partition("\nUid:")[2].partition("\n")[0].split()
                if str(uid) in rows and int(entry) != os.getpid():
                    return True
    return False


def kill(process: ProcessId) -> str:
    """SIGKILL to a process and no other; why not, in words, empty when it got it or has gone."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return ""
    except OSError as error:
        return f"process {process.pid}: {error.strerror}"
    try:
        # The handle stands for one process: if that is the one meant now, the signal cannot reach another.
        if starttime(process.pid) == process.starttime:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
    except ProcessLookupError:
        pass
    except OSError as error:
        return f"process {process.pid}: {error.strerror}"
    finally:
        os.close(handle)
    return ""


def end(
    meant: Iterable[ObservedProcess], *, grace: float, still_meant: Callable[[ObservedProcess], bool]
) -> tuple[ObservedProcess, ...]:
    """SIGTERM, wait `grace` seconds for all together, SIGKILL; returns those that outlive it.

    `still_meant` is asked again of a fresh look at the process just before each signal.
    """
    left = {seen.process: seen for seen in meant}
    for number, wait in ((signal.SIGTERM, grace), (signal.SIGKILL, _KILL_WAIT)):
        handles: dict[int, ProcessId] = {}
        for process in list(left):
            try:
                fd = os.pidfd_open(process.pid)
            except OSError:
                del left[process]
                continue
            now = look(process.pid)
            if now is None or now.process != process or not still_meant(now):
                os.close(fd)
                del left[process]
                continue
            handles[fd] = process
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(fd, number)
        for fd in _wait(handles, wait):
            del left[handles[fd]]
        for fd in handles:
            os.close(fd)
    return tuple(left.values())


def wait_gone(processes: Iterable[ProcessId], timeout: float) -> tuple[ProcessId, ...]:
    """Wait for processes to end, at most `timeout` seconds; returns those that live on."""
    handles: dict[int, ProcessId] = {}
    for process in processes:
        try:
            fd = os.pidfd_open(process.pid)
        except OSError:
            continue
        if starttime(process.pid) == process.starttime:
            handles[fd] = process
        else:
            os.close(fd)
    ended = _wait(handles, timeout)
    for fd in handles:
        os.close(fd)
    return tuple(process for fd, process in handles.items() if fd not in ended)


def _wait(handles: Mapping[int, ProcessId], timeout: float) -> set[int]:
    """The pidfds whose process has ended within `timeout` seconds."""
    poll = select.poll()
    for fd in handles:
        poll.register(fd, select.POLLIN)
    ended: set[int] = set()
    deadline = time.monotonic() + timeout
    while len(ended) < len(handles) and (left := deadline - time.monotonic()) > 0:
        for fd, _ in poll.poll(left * 1000):
            ended.add(fd)
            poll.unregister(fd)
    return ended
