"""What logs, NVML, daemons and the guard module say, as events of the machine.

A server's log lies in its owner's hands and may name anyone: only clients that can have used that server count. Each
method takes one piece of news and yields the events that follow from it.
"""

import re
from collections.abc import Iterator

from resilience import catalog
from resilience.agent.budget import Budget, Taken
from resilience.agent.clients import Clients
from resilience.agent.connections import Connections
from resilience.agent.gpus import KnownGpus
from resilience.agent.isolated import Isolated
from resilience.agent.unread import Unread
from resilience.model import event as ev
from resilience.model import records as rec
from resilience.model.ids import GpuUuid, ServerId
from resilience.model.mpslog import LogKind
from resilience.model.observation import Observation, Source, What
from resilience.model.options import Domain
from resilience.model.world import State
from resilience.parse import mpslog, xid
from resilience.parse.guard import GuardRecord
from resilience.ports import Clock, Journal, KernelLog, Leases, ServerLine

_SIGHTS = {
    LogKind.CULPRIT: What.CULPRIT,
    LogKind.HANDLING: What.HANDLING,
    LogKind.CREATING: What.RECREATING,
    LogKind.SERVER_EXITED: What.SERVER_GONE,
    LogKind.SERVER_FATAL: What.SERVER_GONE,
    LogKind.DAEMON_EXITED: What.DAEMON_GONE,
    LogKind.QUIT: What.DAEMON_GONE,
}
_TEXT = 300
"""Characters of a source's own words that are kept."""
_LINES = 6000
"""Lines of one user's logs in a minute that mean something to us, for each may become a record of the journal. A fault of 60
clients writes some 300."""


class Observer:
    """Sightings of now."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def see(self, source: Source, what: What, text: str, **fields: object) -> Observation:
        return Observation(
            source=source,
            what=what,
            text=text[:_TEXT],
            wall=self._clock.wall(),
            mono=self._clock.monotonic(),
            boot_id=self._clock.boot_id(),
            **fields,  # type: ignore[arg-type]
        )


class Senses:
    def __init__(
        self,
        *,
        clock: Clock,
        journal: Journal,
        leases: Leases,
        clients: Clients,
        connections: Connections,
        gpus: KnownGpus,
        observer: Observer,
        isolated: Isolated | None,
        kernel_log: KernelLog,
    ) -> None:
        self._clock = clock
        self._journal = journal
        self._leases = leases
        self._clients = clients
        self._connections = connections
        self._gpus = gpus
        self._see = observer.see
        self._isolated = isolated
        self._kernel_log = kernel_log
        self._lines = Budget(_LINES)
        self._unread = Unread()

    def warm_up(self) -> None:
        """Load the tables and compile the patterns now: the first fault must not wait for them."""
        for row in catalog.messages():
            mpslog.parse_line(f"[2000-01-01 00:00:00.000 Server 1] {row.sample}")
        catalog.xids()
        catalog.cuda_errors()
        catalog.recovery_actions()
        self._clock.boot_id()

    def server_line(self, line: ServerLine, state: State) -> Iterator[ev.Event]:
        parsed = mpslog.parse_line(line.text)
        if parsed is None:
            yield from self._unread_line(line)
        if parsed is None or parsed.kind is LogKind.ORDINARY:
            return
        if not self._budgeted(line):
            return
        yield from self._connections.heard(line, parsed, state)
        what = _SIGHTS.get(parsed.kind)
        if what is None or (parsed.kind is LogKind.QUIT and line.server.domain.startswith(Domain.SHARED)):
            return  # root's daemon does not obey a user's quit
        source = Source.CONTROL_LOG if line.control else Source.SERVER_LOG
        server = line.server
        client = None
        if what is What.CULPRIT:
            client = self._clients.user_of(server, parsed.pid, state)
        now = self._see(source, what, parsed.text, gpu=server.gpu, server=server, pid=parsed.pid or None)
        yield ev.Seen(observation=now, client=client)

    def _budgeted(self, line: ServerLine) -> bool:
        """Whether one more line is taken; that no more are is told once a minute."""
        taken = self._lines.take(line.uid, self._clock.monotonic())
        if taken is Taken.LAST:
            text = f"uid {line.uid}: more than {_LINES} lines in a minute: the rest of them is not read"
            self._journal.append(rec.Sighting(source=Source.SERVER_LOG, server=line.server, text=text))
        return taken is Taken.YES

    def _unread_line(self, line: ServerLine) -> Iterator[ev.Event]:
        if text := self._unread.text(line, self._clock.monotonic()):
            now = self._see(Source.SERVER_LOG, What.UNKNOWN, text, gpu=line.server.gpu, server=line.server)
            yield ev.Seen(observation=now)

    def daemon_gone(self, server: ServerId) -> Iterator[ev.Event]:
        text = "its control daemon has ended, or its directory was removed"
        yield ev.Seen(observation=self._see(Source.PROCESS, What.DAEMON_GONE, text, gpu=server.gpu, server=server))

    def guard_record(self, record: GuardRecord, state: State) -> Iterator[ev.Event]:
        """What the guard says of a process is certain: it looked at its open files."""
        kept = self._isolated.take(record, state) if self._isolated is not None else None
        if kept is None:
            return
        client, server = kept
        gpu = server.gpu if server is not None else None
        words = record.words()
        now = self._see(
            Source.GUARD, What.ISOLATED, words, pid=record.pid, server=server, gpu=gpu, address=record.address
        )
        yield ev.Seen(observation=now, client=client)

    def kernel_line(self, text: str) -> Iterator[ev.Event]:
        parsed = xid.parse_line(text)
        if parsed is None:
            return
        if isinstance(parsed, xid.GpuLine):
            self._gpus.lies(GpuUuid(parsed.uuid), parsed.bus)
            return
        pid = parsed.pid if self._kernel_log.names_our_processes else None
        client = self._clients.resolve(pid)
        if client is not None and client.task is None and re.match(r"nvidia-cuda-mps", parsed.name):
            client = None  # a daemon, whose environment names a job; a task's process may call itself anything
        now = self._see(
            Source.KMSG,
            What.XID,
            text,
            gpu=self._gpus.on_bus(parsed.bus),
            pid=pid,
            xid=parsed.xid,
            recovery=parsed.recovery,
            address=parsed.address,
        )
        yield ev.Seen(observation=now, client=client)

    def gpu_event(self, uuid: GpuUuid, number: int) -> Iterator[ev.Event]:
        now = self._see(Source.NVML, What.XID, f"NVML: Xid {number}", gpu=self._gpus.minor(uuid), xid=number)
        yield ev.Seen(observation=now)
