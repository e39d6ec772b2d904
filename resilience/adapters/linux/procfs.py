"""Processes as /proc shows them. One that is gone, or may not be looked at, is None or empty, never an error."""

import re
from collections.abc import Mapping
from pathlib import Path

from resilience.adapters.linux.proc_stat import ProcStat, proc_stat
from resilience.model.ids import JobId
from resilience.parse.job_environment import process_job

_DEPTH = 64
"""Generations looked at: a loop in a racing /proc must end."""
_ENVIRONMENT = 1 << 20
"""Bytes of an environment that are read."""


class ProcfsTree:
    """Procfs port. `root` is /proc and `cgroups` where cgroups are mounted, but for tests."""

    def __init__(self, root: str = "/proc", cgroups: str = "/sys/fs/cgroup") -> None:
        self._root = Path(root)
        self._cgroups = Path(cgroups)

    def _stat(self, pid: int) -> ProcStat | None:
        return proc_stat(pid, str(self._root))

    def starttime(self, pid: int) -> int | None:
        stat = self._stat(pid)
        return None if stat is None or stat.gone else stat.starttime

    def ancestors(self, pid: int) -> tuple[int, ...]:
        found: list[int] = []
        while len(found) < _DEPTH:
            stat = self._stat(pid)
            parent = stat.parent if stat else 0
            if parent <= 0 or parent in found:
                break
            found.append(parent)
            pid = parent
        return tuple(found)

    def stopped(self, pid: int) -> bool:
        if self._frozen(pid):
            return True
        family, look = {pid}, [pid]
        while look:
            one = look.pop()
            if (stat := self._stat(one)) is not None and stat.state in "Tt":
                return True
            fresh = self._children(one) - family
            family |= fresh
            look += fresh
        return False

    def _children(self, pid: int) -> set[int]:
        """What a process's threads have started; needs CONFIG_PROC_CHILDREN, which distributions set."""
        found: set[int] = set()
        for path in (self._root / str(pid) / "task").glob("*/children"):
            found |= {int(word) for word in _read(path).split() if word.isdigit()}
        return found

    def _frozen(self, pid: int) -> bool:
        """Slurm suspends so where it tracks processes by cgroup. A frozen process looks as if it slept (cgroup v2)."""
        for line in _read(self._root / str(pid) / "cgroup").splitlines():
            _, controllers, path = (*line.split(":", 2), "", "")[:3]
            inside = path.lstrip("/")
            if controllers == "freezer":
                if _read(self._cgroups / "freezer" / inside / "freezer.state").startswith("FR"):
                    return True
            elif not controllers:
                mounts = (self._cgroups, self._cgroups / "unified")
                if any("frozen 1" in _read(mount / inside / "cgroup.events").splitlines() for mount in mounts):
                    return True
        return False

    def uid(self, pid: int) -> int | None:
        for line in _read(self._root / str(pid) / "status").splitlines():
            if line.startswith("Uid:"):
                return int(line.split()[1])
        return None

    def environ(self, pid: int) -> Mapping[str, str] | None:
        try:
            with (self._root / str(pid) / "environ").open("rb") as file:
                text = file.read(_ENVIRONMENT)
        except OSError:
            return None
        words = (word.partition("=") for word in text.decode("utf-8", "replace").split("\0"))
        return {name: value for name, _, value in words}

    def name(self, pid: int) -> str:
        return _read(self._root / str(pid) / "comm").rstrip("\n")

    def has_cuda(self, pid: int) -> bool:
        try:
            with (self._root / str(pid) / "maps").open("rb") as file:
                return any(b"/libcuda.so" in line for line in file)
        except OSError:
            return self.starttime(pid) is not None

    def job(self, pid: int) -> JobId | None:
        """By its cgroup, where Slurm tracks processes so: root's word. Else by what its environment says."""
        if found := re.search(
            r"/job_(\d{1,10})(?:/|$)", _read(self._root / str(pid) / "cgroup"), re.MULTILINE | re.ASCII
        ):
            return JobId(int(found[1]))
        environ = self.environ(pid)
        return None if environ is None else process_job(environ)


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8", "replace")
    except OSError:
        return ""
