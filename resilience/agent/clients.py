"""Which task or job a process belongs to: tasks' known processes, then ancestors, then what its environment says.

Clients are looked up when they connect, since the process may be gone when the server's log names it. The MPS daemons
themselves are nobody's: their environment can name the job whose prolog started them.
"""

from collections import OrderedDict

from resilience.model.ids import TaskRef
from resilience.model.observation import Client
from resilience.ports import Procfs

_REMEMBERED = 4096
"""Clients kept after they left: their pid may still be named by a late line."""


class Clients:
    """Processes by number. Numbers are reused: a new connection is looked up anew."""

    def __init__(self, procfs: Procfs) -> None:
        self._procfs = procfs
        self._tasks: dict[int, TaskRef] = {}
        self._seen: OrderedDict[int, Client] = OrderedDict()
        self._daemons: set[int] = set()

    def learn(self, pid: int, ref: TaskRef) -> None:
        """A process is a task's: its supervisor, or one that the supervisor started."""
        if pid > 0:
            self._tasks[pid] = ref
            self._seen.pop(pid, None)

    def belongs(self, pid: int, supervisor: int) -> bool:
        """False when a living process is certainly not the supervisor's."""
        ancestors = self._procfs.ancestors(pid)
        return not ancestors or pid == supervisor or supervisor in ancestors

    def forget(self, ref: TaskRef) -> None:
        """The task has ended. Its processes stay known as long as there is room, for late lines."""
        for pid in [pid for pid, owner in self._tasks.items() if owner == ref]:
            del self._tasks[pid]
            self._remember(pid, Client(pid=pid, task=ref, job=ref.job))

    def daemon(self, pid: int) -> None:
        """A control daemon or a server."""
        if pid > 0 and pid not in self._daemons:
            if len(self._daemons) >= _REMEMBERED:
                self._daemons.clear()
            self._daemons.add(pid)

    def connected(self, pid: int) -> Client | None:
        """A client connected: look it up now, while it is there."""
        self._daemons.discard(pid)
        self._seen.pop(pid, None)
        return self.resolve(pid)

    def resolve(self, pid: int | None) -> Client | None:
        """Who a process is; None when nobody knows."""
        if not pid or pid <= 0 or pid in self._daemons:
            return None
        if (ref := self._tasks.get(pid)) is not None:
            return Client(pid=pid, task=ref, job=ref.job)
        if (known := self._seen.get(pid)) is not None:
            return known
        found = self._look_up(pid)
        if found is not None:
            self._remember(pid, found)
        return found

    def _look_up(self, pid: int) -> Client | None:
        for ancestor in self._procfs.ancestors(pid):
            if (ref := self._tasks.get(ancestor)) is not None:
                return Client(pid=pid, task=ref, job=ref.job)
        job = self._procfs.job(pid)
        return None if job is None else Client(pid=pid, job=job)

    def _remember(self, pid: int, client: Client) -> None:
        self._seen[pid] = client
        self._seen.move_to_end(pid)
        while len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
