"""Which task or job a process belongs to: tasks' known processes, then ancestors, then what its environment says.

Clients are looked up when they connect, since the process may be gone when the server's log names it. The MPS daemons
themselves are nobody's: their environment can name the job whose prolog started them.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TypeVar

from resilience.model.ids import DomainKey, JobId, ServerId, TaskRef
from resilience.model.observation import Client
from resilience.model.world import State
from resilience.ports import Leases, Procfs

_REMEMBERED = 1024
"""Clients of one domain kept after they left: their pid may still be named by a late line."""
_DAEMONS = 64
"""Daemons and servers of one domain."""
_DOMAINS = 256
_K = TypeVar("_K")
_V = TypeVar("_V")
NOWHERE = DomainKey("")
"""What root's own sources say: the kernel log and the guard module."""


@dataclass(slots=True)
class _Told:
    """What one domain's logs, or tasks that have ended, have told of processes."""

    seen: OrderedDict[int, Client] = field(default_factory=OrderedDict)
    daemons: OrderedDict[int, None] = field(default_factory=OrderedDict)


class Clients:
    """Processes by number. Numbers are reused: a new connection is looked up anew.

    A domain's log lies in its owner's hands: what it says of a process counts in that domain alone, and the word of a task's
    supervisor, which was checked, before it.
    """

    def __init__(self, procfs: Procfs, leases: Leases) -> None:
        self._procfs = procfs
        self._leases = leases
        self._tasks: dict[int, tuple[TaskRef, int | None]] = {}
        """Processes that were proven to be a task's, with the time of their start."""
        self._told: OrderedDict[DomainKey, _Told] = OrderedDict()

    def learn(self, pid: int, ref: TaskRef, domain: DomainKey, supervisor: int) -> bool:
        """A supervisor says that a process is its task's. False: it is certainly not.

        A process that has gone is believed to have been, in the task's own domain, unless it is known as another's.
        """
        if pid <= 0:
            return True
        ancestors = self._procfs.ancestors(pid)
        if pid == supervisor or supervisor in ancestors:
            self._tasks[pid] = (ref, self._procfs.starttime(pid))
            return True
        if not ancestors and ((known := self.resolve(pid)) is None or known.task == ref):
            self._remember(pid, Client(pid=pid, task=ref, job=ref.job), domain)
            return True
        return False

    def forget(self, ref: TaskRef, domain: DomainKey) -> None:
        """The task has ended. Its processes stay known as long as there is room, for late lines."""
        for pid in [pid for pid, (owner, _) in self._tasks.items() if owner == ref]:
            del self._tasks[pid]
            self._remember(pid, Client(pid=pid, task=ref, job=ref.job), domain)

    def daemon(self, pid: int, domain: DomainKey) -> None:
        """A control daemon or a server, as a domain's log says."""
        if pid > 0:
            _keep(self._of(domain).daemons, pid, None, _DAEMONS)

    def is_daemon(self, pid: int) -> bool:
        """Whether the log of any domain has named it so."""
        return any(pid in told.daemons for told in self._told.values())

    def connected(self, pid: int, domain: DomainKey) -> Client | None:
        """A client connected: look it up now, while it is there."""
        told = self._of(domain)
        told.daemons.pop(pid, None)
        known = told.seen.pop(pid, None)
        found = self.resolve(pid, domain)
        if found is None and known is not None and not self._procfs.ancestors(pid):
            self._remember(pid, known, domain)  # it has gone: nobody has its number anew
            return known
        return found

    def resolve(self, pid: int | None, domain: DomainKey = NOWHERE) -> Client | None:
        """Who a process is that a domain's log names, or root's own sources; None when nobody knows."""
        if not pid or pid <= 0:
            return None
        ancestors = self._procfs.ancestors(pid)
        for one in (pid, *ancestors):
            if (ref := self._task(one)) is not None:
                return self._remember(pid, Client(pid=pid, task=ref, job=ref.job), domain)
        told = self._told.get(domain)
        if told is not None and pid in told.daemons:
            return None
        alive = domain == NOWHERE and bool(ancestors)
        if not alive and (known := self._remembered(pid, domain)) is not None:
            return known
        job = self._job(pid)
        return None if job is None else self._remember(pid, Client(pid=pid, job=job), domain)

    def user_of(self, server: ServerId, pid: int | None, state: State) -> Client | None:
        """Who a process is that a server's log names, when it can have used that server."""
        client = self.resolve(pid, server.domain)
        if client is None:
            return None
        task = state.tasks.get(client.task) if client.task else None
        if task is not None:
            same = (task.server.domain, task.server.gpu) == (server.domain, server.gpu)
            return client if same else None
        lease = self._leases.read(client.job) if client.job is not None else None
        return client if lease is not None and lease.domain == server.domain else None

    def _task(self, pid: int) -> TaskRef | None:
        ref, began = self._tasks.get(pid, (None, None))
        if ref is not None and self._procfs.starttime(pid) not in (None, began):
            del self._tasks[pid]  # its number is another's now
            return None
        return ref

    def _job(self, pid: int) -> JobId | None:
        """The job that a process's environment names, when it is its user's."""
        job = self._procfs.job(pid)
        lease = self._leases.read(job) if job is not None else None
        return job if lease is not None and self._procfs.uid(pid) == lease.uid else None

    def _remembered(self, pid: int, domain: DomainKey) -> Client | None:
        """Root's sources name a process of any domain."""
        where = [told] if (told := self._told.get(domain)) is not None else []
        if domain == NOWHERE:
            where = list(reversed(self._told.values()))
        return next((told.seen[pid] for told in where if pid in told.seen), None)

    def _remember(self, pid: int, client: Client, domain: DomainKey) -> Client:
        _keep(self._of(domain).seen, pid, client, _REMEMBERED)
        return client

    def _of(self, domain: DomainKey) -> _Told:
        return _keep(self._told, domain, self._told.get(domain) or _Told(), _DOMAINS)


def _keep(known: OrderedDict[_K, _V], key: _K, value: _V, most: int) -> _V:
    """The latest ones."""
    known[key] = value
    known.move_to_end(key)
    if len(known) > most:
        known.popitem(last=False)
    return value
