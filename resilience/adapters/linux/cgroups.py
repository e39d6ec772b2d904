"""Cgroups of our own, below one name at the root of the kernel's hierarchies, one for each thing that root starts.

A process of the user cannot leave one: on v2 that takes the right to write cgroup.procs of an ancestor that both places
have, which is root's; on v1 the right to write the target's, and only root has any there unless the site gives users
cgroups of the freezer hierarchy (pam_cgfs does). So v2 is taken where it is mounted, also in hybrid mode; v1's freezer
otherwise; and v1's accounting hierarchies in addition where they are mounted (cgroups(7), cgroup-v2.rst "Delegation").

Guarantees: `end` ends everything in a cgroup, however fast it forks: v2 kills it as one (cgroup.kill, Linux 5.14), else
it is frozen first; nothing outside is hit, as a number counts only while it is listed. Raises OSError where no cgroup
can be made, as in a container that shows them read-only.
"""

import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

MOST_TASKS = 4096
"""Threads of one cgroup: a server has 60 clients at most, and what it needs for each is far below; a fork bomb is not."""
_ACCOUNTING = ("memory", "cpuacct", "pids")
_CONTROLLERS = ("memory", "pids")
"""Switched on for v2, from the root down. Not cpu: that would change how what is there already shares the processors, and
processor time is counted without it (cgroup-v2.rst, cpu.stat)."""
_AT_ONCE = 128
"""Processes that are held by descriptor at the same time."""
_PAUSE = 0.002
_TRIES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Hierarchies:
    """Where the kernel's hierarchies are mounted."""

    tracking: str
    """The one whose members are ended."""
    unified: bool
    """`tracking` is v2."""
    accounting: tuple[str, ...] = ()
    """Of v1, those that only count and limit."""

    def __str__(self) -> str:
        return f"cgroup v2 at {self.tracking}" if self.unified else f"cgroup v1, freezer, at {self.tracking}"


def mounted(mountinfo: str) -> Hierarchies | None:
    """What a text as of /proc/self/mountinfo shows; None where there is nothing to track processes with."""
    unified, legacy = "", dict[str, str]()
    for line in mountinfo.splitlines():
        head, _, tail = line.partition(" - ")
        fields, kind = head.split(), tail.split()
        if len(fields) < 5 or len(kind) < 3:
            continue
        place = fields[4].encode().decode("unicode_escape") if "\\" in fields[4] else fields[4]
        if kind[0] == "cgroup2":
            unified = unified or place
        elif kind[0] == "cgroup":
            legacy.update({name: place for name in kind[2].split(",") if name not in legacy})
    accounting = tuple(dict.fromkeys(legacy[name] for name in _ACCOUNTING if name in legacy))
    if unified:
        return Hierarchies(tracking=unified, unified=True, accounting=accounting)
    if freezer := legacy.get("freezer"):
        others = tuple(place for place in accounting if place != freezer)
        return Hierarchies(tracking=freezer, unified=False, accounting=others)
    return None


def of_this_host() -> Hierarchies | None:
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
        return mounted(file.read())


class Cgroup:
    """One leaf: `name` is its path from the root of the hierarchies, such as /mpsr/n0/u1000/g0.a."""

    def __init__(self, hierarchies: Hierarchies, name: str) -> None:
        self._unified = hierarchies.unified
        self._roots = (hierarchies.tracking, *hierarchies.accounting)
        self._name = name.strip("/")
        self._path = f"{hierarchies.tracking}/{self._name}"

    def make(self) -> tuple[str, ...]:
        """Have it; the files that a process writes itself into. Raises OSError when it cannot be had to track with."""
        files = []
        for root in self._roots:
            try:
                self._make(root)
            except OSError:
                if root == self._roots[0]:
                    raise
                continue
            files.append(f"{root}/{self._name}/cgroup.procs")
        return tuple(files)

    def _make(self, root: str) -> None:
        path = root
        for part in self._name.split("/"):
            if root == self._roots[0] and self._unified:
                for controller in _CONTROLLERS:  # those that the kernel has here
                    _put(f"{path}/cgroup.subtree_control", f"+{controller}")
            path = f"{path}/{part}"
            self._mkdir(path)
        _put(f"{path}/pids.max", str(MOST_TASKS))

    @staticmethod
    def _mkdir(path: str) -> None:
        """Somebody else may be removing an empty one above it just now."""
        for attempt in range(_TRIES):
            try:
                os.mkdir(path, 0o755)
                return
            except FileExistsError:
                return
            except FileNotFoundError:
                if attempt == _TRIES - 1:
                    raise
                os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)

    def members(self) -> set[int]:
        return _numbers(f"{self._path}/cgroup.procs")

    def end(self, seconds: float) -> set[int]:
        """End all members; those that are left after `seconds`."""
        deadline = time.monotonic() + seconds
        while self.members():
            if not _put(f"{self._path}/cgroup.kill", "1"):
                self._freeze(True)
                end_listed(self.members, signal.SIGKILL)
                self._freeze(False)
            if time.monotonic() >= deadline:
                return self.members()
            time.sleep(_PAUSE)
        return set()

    def _freeze(self, frozen: bool) -> None:
        if self._unified:
            _put(f"{self._path}/cgroup.freeze", str(int(frozen)))
        else:
            _put(f"{self._path}/freezer.state", "FROZEN" if frozen else "THAWED")

    def remove(self) -> None:
        """Remove it and what above it is empty now. One with members stays."""
        for root in self._roots:
            name = self._name
            with suppress(OSError):
                while name:
                    os.rmdir(f"{root}/{name}")
                    name = name.rpartition("/")[0]


def end_listed(listed: Callable[[], Iterable[int]], number: signal.Signals) -> None:
    """Signal the processes that `listed` names, each only if it is still named when a descriptor of it is held."""
    for chunk in _chunks(sorted(set(listed()))):
        held: dict[int, int] = {}
        try:
            for pid in chunk:
                with suppress(OSError):
                    held[pid] = os.pidfd_open(pid)
            still = set(listed())
            for pid, fd in held.items():
                if pid in still:
                    with suppress(ProcessLookupError):
                        signal.pidfd_send_signal(fd, number)
        finally:
            for fd in held.values():
                os.close(fd)


def _chunks(numbers: list[int]) -> Iterator[list[int]]:
    for start in range(0, len(numbers), _AT_ONCE):
        yield numbers[start : start + _AT_ONCE]


def _numbers(path: str) -> set[int]:
    """0, a process that our pid namespace does not show, is left out."""
    try:
        with open(path, encoding="ascii") as file:
            return {int(word) for word in file.read().split()} - {0}
    except OSError:
        return set()


def _put(path: str, text: str) -> bool:
    """Whether the kernel has this file and took the text."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        os.write(fd, text.encode())
    except OSError:
        return False
    finally:
        os.close(fd)
    return True
