"""The one loop: wait for news, turn it into an event, let the machine decide, carry out what it says.

Nothing on this thread takes long: MPS daemons and Slurm are asked on worker lanes, supervisors are never waited for.
When nothing happens the loop sleeps until the next timer, and without timers until news. Logs are read before results
of workers, so that a server's last lines come before the news of its replacement. An unexpected exception costs the
one event that raised it: it is told on stderr, and the loop goes on.
"""

import re
import selectors
import sys
import traceback
from dataclasses import replace

from resilience import catalog
from resilience.agent.act import Actor, urgency
from resilience.agent.budget import Budget, Taken
from resilience.agent.clients import Clients
from resilience.agent.connections import Connections
from resilience.agent.isolated import Isolated
from resilience.agent.reception import Reception
from resilience.machine import step
from resilience.machine.history import recalled, unfinished
from resilience.machine.sentences import server_words
from resilience.model import event as ev
from resilience.model.effect import Unwatch
from resilience.model.errors import GpuError, ResilienceError
from resilience.model.ids import GpuMinor, GpuUuid, NodeName, ServerId
from resilience.model.lease import LeaseState
from resilience.model.mpslog import LogKind
from resilience.model.observation import Client, Observation, Source, What
from resilience.model.settings import Settings
from resilience.model.world import Moment, State
from resilience.parse import mpslog, xid
from resilience.parse.guard import Record
from resilience.ports import (
    AgentJournal,
    ClientEnd,
    Clock,
    Daemons,
    Feed,
    GpuEvents,
    Gpus,
    Guard,
    KernelLog,
    Leases,
    Mps,
    Procfs,
    Result,
    ServerLine,
    ServerLogs,
    Slurm,
    Supervisors,
    Worker,
)

_SIGHTS = {
    LogKind.CULPRIT: What.CULPRIT,
    LogKind.HANDLING: What.HANDLING,
    LogKind.CREATING: What.RECREATING,
    LogKind.SERVER_EXITED: What.SERVER_GONE,
    LogKind.SERVER_FATAL: What.SERVER_GONE,
    LogKind.DAEMON_EXITED: What.DAEMON_GONE,
}
_TEXT = 300
_REUNION = 2.5
"""Seconds in which supervisors find an agent that was started anew; they try every 0.1 s at first, later every 2 s."""
_LINES = 6000
"""Lines of one server's logs in a minute that mean something to us. A fault of 60 clients writes some 300."""


class Agent:
    """The agent of one node.

    The ports are built by the caller (`resilience.cli`) and closed by it; the agent only uses them:

    settings      the node's Settings (recovery, mps, paths.run and paths.log)
    node          Slurm's name of this node
    clock         Clock             adapters.clock.SystemClock()
    journal       AgentJournal      adapters.journal.JournalFile(contract.path("journal", log=…, node=…), clock)
    leases        Leases            reads leases and the `active` files, sets the latter
    mps           Mps               called from the worker's lane `mps` only, but for pipe() and logs(), which are pure
    slurm         Slurm             called from the worker's lanes `slurm` and `account` only
    gpus          Gpus              adapters.nvml.NvmlGpus(); asked once, at the start
    procfs        Procfs            adapters.procfs.ProcfsTree()
    supervisors   Supervisors       adapters.agent_socket.AgentSocket(contract.path("agent_socket", run=…, node=…))
    kernel_log    KernelLog         adapters.kmsg.KernelLogReader(settings.paths.kmsg)
    gpu_events    GpuEvents         adapters.nvml.NvmlEvents(), or NoGpuEvents() when that raises GpuError
    server_logs   ServerLogs        adapters.server_logs.ServerLogFollower()
    daemons       Daemons           adapters.daemon_watch.DaemonWatch()
    worker        Worker            adapters.worker.WorkerThreads()
    guard         Guard             adapters.guard_follower.GuardFollower(say): the module may come and go; None: no such thing
    end_client    ClientEnd         adapters.guard.ClientEnder(mps); called on the worker's lane `mps`; goes with guard

    `run(stop)` returns when the descriptor `stop` becomes readable (a pipe that a signal handler writes to).
    """

    def __init__(
        self,
        settings: Settings,
        node: NodeName,
        *,
        clock: Clock,
        journal: AgentJournal,
        leases: Leases,
        mps: Mps,
        slurm: Slurm,
        gpus: Gpus,
        procfs: Procfs,
        supervisors: Supervisors,
        kernel_log: KernelLog,
        gpu_events: GpuEvents,
        server_logs: ServerLogs,
        daemons: Daemons,
        worker: Worker,
        guard: Guard | None = None,
        end_client: ClientEnd | None = None,
    ) -> None:
        self._node = node
        self._clock = clock
        self._journal = journal
        self._leases = leases
        self._gpus = gpus
        self._supervisors = supervisors
        self._kernel_log = kernel_log
        self._gpu_events = gpu_events
        self._server_logs = server_logs
        self._daemons = daemons
        self._worker = worker
        self._procfs = procfs
        self._clients = Clients(procfs)
        self._guard_module = guard
        self._isolated = (
            Isolated(guard, end_client, self._clients, journal, worker, act=settings.recovery.mode == "act")
            if guard is not None and end_client is not None
            else None
        )
        self._lines = Budget(_LINES)
        self._by_bus: dict[xid.Bus, GpuMinor] = {}
        self._by_uuid: dict[GpuUuid, GpuMinor] = {}
        self._mode = settings.recovery.mode
        others = any(lease.state is LeaseState.OPEN for lease in leases.all())
        complete = clock.monotonic() + _REUNION if others else 0.0
        self.state = State(node=node, recovery=settings.recovery, mps=settings.mps, complete=complete)
        self._connections = Connections(
            self._clients, procfs, state=lambda: self.state, take=self.take, guard=self._guard
        )
        self._actor = Actor(
            node=node,
            settings=settings,
            clock=clock,
            journal=journal,
            leases=leases,
            mps=mps,
            slurm=slurm,
            supervisors=supervisors,
            server_logs=server_logs,
            daemons=daemons,
            worker=worker,
            past=self._connections.past,
        )
        self._reception = Reception(
            clock=clock,
            journal=journal,
            leases=leases,
            supervisors=supervisors,
            clients=self._clients,
            actor=self._actor,
            take=self.take,
            know=self._know,
            observe=self._observation,
        )

    # ------------------------------------------------------------ the loop
    def run(self, stop: int) -> None:
        """Work until `stop` is readable."""
        self._begin()
        feeds: tuple[Feed, ...] = (
            *((self._guard_module,) if self._guard_module is not None else ()),
            self._server_logs,
            self._daemons,
            self._kernel_log,
            self._gpu_events,
            self._supervisors,
            self._worker,
        )
        with selectors.DefaultSelector() as selector:
            for order, feed in enumerate(feeds):
                selector.register(feed.fileno(), selectors.EVENT_READ, order)
            selector.register(stop, selectors.EVENT_READ, len(feeds))
            while True:
                ready = sorted(key.data for key, _ in selector.select(self._sleep()))
                for order in ready:
                    if order == len(feeds):
                        self._journal.append("agent.stopped", node=self._node)
                        return
                    self._guard(self._read, feeds[order])
                self._guard(self._fire)

    def _begin(self) -> None:
        self._warm_up()
        rows = self._journal.recent()
        self.state = replace(self.state, history=recalled(rows, self._clock.wall(), self._clock.monotonic()))
        for entry in unfinished(rows):
            known = {key: entry.get(key) for key in ("incident", "ask", "job") if key in entry}
            outcome = "slurm.outcome" if entry.get("event") == "slurm.intent" else "incident.closed"
            self._journal.append(outcome, **known, ok=False, outcome="interrupted", detail="the agent had ended")
        self._journal.append("agent.started", node=self._node, mode=self._mode, boot=self._clock.boot_id())
        self._guard(self._guard_turned)
        try:
            for gpu in self._gpus.all():
                self._know(gpu.uuid, GpuMinor(gpu.minor), mig=gpu.mig)
                if (bus := xid.parse_bus(gpu.bus_id)) is not None:
                    self._by_bus[bus] = GpuMinor(gpu.minor)
        except GpuError as error:
            print(error.lines(), file=sys.stderr, flush=True)

    def _know(self, uuid: GpuUuid, minor: GpuMinor, *, mig: bool = False) -> None:
        """A GPU of this node: the guard isolates on those that it was told of, and not on MIG instances."""
        if uuid in self._by_uuid:
            return
        self._by_uuid[uuid] = minor
        if self._guard_module is not None and mig:
            text = f"guard module: {uuid} is in MIG mode: faults on its instances are not isolated"
            self._journal.append("observation", source="guard", what="mig", text=text)
        elif self._guard_module is not None:
            self._guard(self._guard_module.learn, uuid)
            self._guard(self._guard_turned)

    def _guard_turned(self) -> None:
        on = self._guard_module is not None and self._guard_module.isolates()
        if on != self.state.guard:
            self.take(ev.GuardTurned(on=on))

    def _warm_up(self) -> None:
        """Load the tables and compile the patterns now: the first fault must not wait for them."""
        for row in catalog.messages():
            mpslog.parse_line(f"[2000-01-01 00:00:00.000 Server 1] {row.sample}")
        catalog.xids()
        catalog.cuda_errors()
        catalog.recovery_actions()
        self._clock.boot_id()

    def _sleep(self) -> float | None:
        timers = self._actor.timers
        if not timers:
            return None
        return max(0.0, min(timers.values()) - self._clock.monotonic())

    def _fire(self) -> None:
        now = self._clock.monotonic()
        due = sorted((at, number, key) for number, (key, at) in enumerate(self._actor.timers.items()) if at <= now)
        for at, _, key in due:
            if self._actor.timers.get(key) == at:
                del self._actor.timers[key]
                self.take(ev.TimerFired(key=key))

    def _read(self, feed: Feed) -> None:
        if self._guard_module is not None and feed is self._guard_module:
            try:
                for record in self._guard_module.read():
                    self._guard(self._record, record)
            finally:
                self._guard_turned()
        elif feed is self._server_logs:
            for line in self._server_logs.read():
                self._guard(self._server_line, line)
        elif feed is self._daemons:
            for server in self._daemons.read():
                self._guard(self._daemon_gone, server)
        elif feed is self._kernel_log:
            for text in self._kernel_log.read():
                self._guard(self._kernel_line, text)
        elif feed is self._gpu_events:
            for uuid, number in self._gpu_events.read():
                self._guard(self._gpu_event, uuid, number)
        elif feed is self._supervisors:
            for packet in self._supervisors.read():
                self._guard(self._reception.packet, packet)
        else:
            for result in self._worker.read():
                if self._isolated is not None and self._isolated.ended(result):
                    continue
                self._guard(self._result, result)

    def _result(self, result: Result) -> None:
        if (event := self._actor.result(result)) is not None:
            self.take(event)

    def _guard(self, call: object, *values: object) -> None:
        """The loop's outer edge: nothing that goes wrong with one piece of news ends the agent."""
        try:
            call(*values)  # type: ignore[operator]
        except ResilienceError as error:
            print(error.lines(), file=sys.stderr, flush=True)
        except Exception:
            print("mpsr: agent: unexpected error, going on:", file=sys.stderr)
            traceback.print_exc(file=sys.stderr)

    def take(self, event: ev.Event) -> None:
        """Let the machine decide, and carry out what it says. One effect that fails does not stop the others."""
        moment = Moment(wall=self._clock.wall(), mono=self._clock.monotonic())
        self.state, effects = step(self.state, event, moment)
        for effect in sorted(effects, key=urgency):
            self._guard(self._actor.carry_out, effect)
            if isinstance(effect, Unwatch):
                self._actor.timers = {
                    key: at for key, at in self._actor.timers.items() if len(key) < 2 or key[1] != effect.server
                }

    # ------------------------------------------------------------ logs
    def _observation(self, source: Source, what: What, text: str, **fields: object) -> Observation:
        return Observation(
            source=source,
            what=what,
            text=text[:_TEXT],
            wall=self._clock.wall(),
            mono=self._clock.monotonic(),
            boot_id=self._clock.boot_id(),
            **fields,  # type: ignore[arg-type]
        )

    def _server_line(self, line: ServerLine) -> None:
        parsed = mpslog.parse_line(line.text)
        if parsed is None:
            return
        taken = self._lines.take(line.server, self._clock.monotonic())
        if taken is not Taken.YES:
            if taken is Taken.LAST:
                text = f"more than {_LINES} lines in a minute: the rest of them is not read"
                self._journal.append("observation", source="server_log", server=server_words(line.server), text=text)
            return
        self._connections.heard(line, parsed)
        what = _SIGHTS.get(parsed.kind)
        if what is None:
            return
        source = Source.CONTROL_LOG if line.control else Source.SERVER_LOG
        server = line.server
        client = self._inside(server, self._clients.resolve(parsed.pid)) if what is What.CULPRIT else None
        now = self._observation(source, what, parsed.text, gpu=server.gpu, server=server, pid=parsed.pid or None)
        self.take(ev.Seen(observation=now, client=client))

    def _daemon_gone(self, server: ServerId) -> None:
        text = "its control daemon has ended"
        now = self._observation(Source.PROCESS, What.DAEMON_GONE, text, gpu=server.gpu, server=server)
        self.take(ev.Seen(observation=now))

    def _inside(self, server: ServerId, client: Client | None) -> Client | None:
        """The client, when it can have used this server: the log lies in its owner's hands and may name anyone."""
        if client is None:
            return None
        task = self.state.tasks.get(client.task) if client.task else None
        if task is not None:
            same = (task.server.domain, task.server.gpu) == (server.domain, server.gpu)
            return client if same else None
        lease = self._leases.read(client.job) if client.job is not None else None
        return client if lease is not None and lease.domain == server.domain else None

    def _record(self, record: Record) -> None:
        """One record of the guard module. What it says of a process is certain: it looked at its open files."""
        kept = self._isolated.take(record, self.state) if self._isolated is not None else None
        if kept is None:
            return
        client, server = kept
        gpu = server.gpu if server is not None else None
        words = record.words()
        now = self._observation(Source.GUARD, What.ISOLATED, words, pid=record.pid, server=server, gpu=gpu)
        self.take(ev.Seen(observation=now, client=client))

    def _kernel_line(self, text: str) -> None:
        parsed = xid.parse_line(text)
        if parsed is None:
            return
        if isinstance(parsed, xid.GpuLine):
            if (minor := self._by_uuid.get(GpuUuid(parsed.uuid))) is not None:
                self._by_bus[parsed.bus] = minor
            return
        pid = parsed.pid if self._kernel_log.names_our_processes else None
        client = None if re.match(r"nvidia-cuda-mps", parsed.name) else self._clients.resolve(pid)
        now = self._observation(
            Source.KMSG,
            What.XID,
            text,
            gpu=self._by_bus.get(parsed.bus),
            pid=pid,
            xid=parsed.xid,
            recovery=parsed.recovery,
        )
        self.take(ev.Seen(observation=now, client=client))

    def _gpu_event(self, uuid: GpuUuid, number: int) -> None:
        now = self._observation(Source.NVML, What.XID, f"NVML: Xid {number}", gpu=self._by_uuid.get(uuid), xid=number)
        self.take(ev.Seen(observation=now))
