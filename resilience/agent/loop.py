"""The one loop: wait for news, turn it into events, let the machine decide, carry out what it says.

Nothing on this thread takes long: MPS daemons and Slurm are asked on worker lanes, supervisors are never waited for, and
users' news is taken in turns.
When nothing happens the loop sleeps until the next timer, or until a watchdog wants a sign of life; without either until news.
Logs are read before answers of workers, so that a server's last lines come before the news of its replacement. An
unexpected exception costs the one piece of news that raised it: it is told on stderr, and the loop goes on.
"""

import math
import selectors
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import ParamSpec

from resilience.agent.act import Actor, domain_of, urgency
from resilience.agent.attached import Attached
from resilience.agent.chatter import Chatter
from resilience.agent.clients import Clients
from resilience.agent.connections import Connections
from resilience.agent.endings import ClientEndings
from resilience.agent.forgotten import Forgotten
from resilience.agent.gpus import KnownGpus
from resilience.agent.holders import Holders
from resilience.agent.isolated import Isolated
from resilience.agent.job_logs import JobLogs
from resilience.agent.last_calls import LastCalls
from resilience.agent.missed import MissedFaults
from resilience.agent.newcomers import Newcomers
from resilience.agent.peers import Peers
from resilience.agent.reception import Reception
from resilience.agent.senses import Observer, Senses
from resilience.agent.shares import Shares
from resilience.agent.turns import Turns
from resilience.machine import step
from resilience.machine.history import recalled, unfinished
from resilience.model import effect as fx
from resilience.model import event as ev
from resilience.model import records as rec
from resilience.model.errors import ResilienceError
from resilience.model.ids import DomainKey, NodeName
from resilience.model.lease import LeaseState
from resilience.model.settings import Settings
from resilience.model.world import Moment, State
from resilience.parse import mpslog
from resilience.ports import Answer, Computing, Feed, Guard, Listening, Openings, Packet, Ports, ServerLine

_REUNION = 2.5
"""Seconds in which supervisors find an agent that was started anew; they try every 0.1 s at first, later every 2 s."""
P = ParamSpec("P")
News = Callable[[], Iterable[Iterable[ev.Event]]]
"""Reads a feed: the events that follow from each piece of news, one piece after the other."""


class Agent:
    """The agent of one node. `run(stop)` returns when the descriptor `stop` becomes readable."""

    def __init__(self, settings: Settings, node: NodeName, ports: Ports) -> None:
        self._node = node
        self._mode = settings.recovery.mode
        self._ports = ports
        clock, clients = ports.clock, Clients(ports.procfs, ports.leases)
        observer = Observer(clock)
        peers = Peers(ports.supervisors)
        logs = JobLogs(node, clock, peers, ports.notes, ports.worker)
        self._gpus = KnownGpus(ports.gpus, ports.guard, ports.journal)
        self._holders = Holders(ports.leases, logs, self._gpus, ports.supervisors)
        listening: dict[str, Listening] = {"logs": ports.server_logs, "messages": ports.supervisors}
        self._turns = Turns(clock, ports.journal, listening, Shares())
        self._connections = Connections(clients, ports.procfs, clock)
        chatter = Chatter(clock)
        self._missed = MissedFaults(clients, clock, settings.recovery.restore_timeout)
        self._actor = Actor(node, settings, ports, peers, logs, chatter)
        self._senses = Senses(
            clock=clock,
            journal=ports.journal,
            leases=ports.leases,
            clients=clients,
            connections=self._connections,
            gpus=self._gpus,
            observer=observer,
            isolated=_isolated(ports, clients, act=self._mode == "act"),
            kernel_log=ports.kernel_log,
        )
        self._reception = Reception(
            site=settings.options,
            clock=clock,
            journal=ports.journal,
            leases=ports.leases,
            supervisors=ports.supervisors,
            clients=clients,
            peers=peers,
            logs=logs,
            chatter=chatter,
            gpus=self._gpus,
            observer=observer,
            newcomers=Newcomers(
                ports.mps,
                ports.worker,
                known=lambda domain, gpu: any(
                    (task.server.domain, task.server.gpu) == (domain, gpu) for task in self.state.tasks.values()
                ),
                take=self.take,
            ),
            endings=ClientEndings(ports.mps, ports.procfs, ports.worker, ports.journal, peers),
            last_calls=LastCalls(ports.slurm, ports.worker, clock, peers),
        )
        self._attached = Attached(ports, clients, logs, state=lambda: self.state, act=self._mode == "act")
        self._forgotten = Forgotten(ports.epilogs, ports.worker, clock, state=lambda: self.state)
        others = any(lease.state is LeaseState.OPEN for lease in ports.leases.all())
        complete = clock.monotonic() + _REUNION if others else 0.0
        self.state = State(node=node, recovery=settings.recovery, mps=settings.mps, complete=complete)

    # ------------------------------------------------------------ the loop
    def run(self, stop: int) -> None:
        """Work until `stop` is readable."""
        self._begin()
        feeds = self._feeds()
        with selectors.DefaultSelector() as selector:
            for order, (feed, _) in enumerate(feeds):
                selector.register(feed.fileno(), selectors.EVENT_READ, order)
            selector.register(stop, selectors.EVENT_READ, len(feeds))
            if self._ports.alive is not None:
                self._ports.alive.ready()
            while True:
                ready = sorted(key.data for key, _ in selector.select(self._sleep()))
                for order in ready:
                    if order == len(feeds):
                        self._ports.journal.append(rec.AgentStopped(node=self._node))
                        if self._ports.alive is not None:
                            self._ports.alive.stopping()
                        return
                    self._barrier(self._read, feeds[order][1])
                self._barrier(self._read, self._turns.run)
                self._barrier(self._fire)
                self._barrier(self._forgotten.run)

    def _feeds(self) -> list[tuple[Feed, News]]:
        """What the loop waits on, in the order in which news is read, and how each is read."""
        ports, senses = self._ports, self._senses
        feeds: list[tuple[Feed, News]] = [
            (ports.server_logs, self._log_news),
            (ports.daemons, self._daemon_news),
            (ports.kernel_log, lambda: map(senses.kernel_line, ports.kernel_log.read())),
            (ports.gpu_events, lambda: (senses.gpu_event(*event) for event in ports.gpu_events.read())),
            (ports.supervisors, self._packet_news),
            (ports.worker, self._answer_news),
        ]
        if ports.guard is not None:
            feeds.insert(0, (ports.guard, partial(self._guard_news, ports.guard)))
        if ports.computing is not None:
            feeds.append((ports.computing, partial(self._contexts, ports.computing)))
        if ports.openings is not None:
            feeds.insert(0, (ports.openings, partial(self._lease_news, ports.openings)))
        return feeds

    def _log_news(self) -> Iterator[Iterable[ev.Event]]:
        for line in self._ports.server_logs.read(self._turns.waiting()):
            self._turns.put(line.uid, "logs", partial(self._line, line))
        return self._turns.run()

    def _line(self, line: ServerLine) -> Iterable[ev.Event]:
        return self._senses.server_line(line, self.state)

    def _daemon_news(self) -> Iterator[Iterable[ev.Event]]:
        for server in self._ports.daemons.read():
            self._turns.put(self._owner(server.domain), "daemons", partial(self._senses.daemon_gone, server))
        return self._turns.run()

    def _packet_news(self) -> Iterator[Iterable[ev.Event]]:
        for packet in self._ports.supervisors.read(self._turns.waiting()):
            self._turns.put(packet.peer.uid, "messages", partial(self._packet, packet))
        return self._turns.run()

    def _packet(self, packet: Packet) -> Iterator[ev.Event]:
        for event in self._reception.packet(packet):
            yield from self._missed.before(event, self.state)
            yield event

    def _answer_news(self) -> Iterator[Iterable[ev.Event]]:
        for answer in self._ports.worker.read():
            if (domain := domain_of(answer.lane)) is None:
                yield _answered(answer)
            else:
                self._turns.put(self._owner(domain), "answers", partial(_answered, answer))
        yield from self._turns.run()

    def _owner(self, domain: DomainKey) -> int:
        """Whose a domain is; root's own are all others."""
        return next((pair.uid for (key, _), pair in self.state.pairs.items() if key == domain), 0)

    def _lease_news(self, openings: Openings) -> Iterator[Iterable[ev.Event]]:
        openings.read()
        yield self._holders.look()
        self._take_leases()

    def _take_leases(self) -> None:
        leases = dict(self._holders.leases)
        self._attached.leases(leases)
        self._forgotten.leases(leases)

    def _contexts(self, computing: Computing) -> Iterator[Iterable[ev.Event]]:
        for context in computing.read():
            self._barrier(self._attached.context, context)
        return iter(())

    def _guard_news(self, guard: Guard) -> Iterator[Iterable[ev.Event]]:
        try:
            yield from (self._senses.guard_record(record, self.state) for record in guard.read())
        finally:
            self._barrier(self._look_at_guard)

    def _read(self, news: News) -> None:
        for events in news():
            self._barrier(self._take_all, events)

    def _begin(self) -> None:
        self._senses.warm_up()
        entries = self._ports.journal.recent()
        wall, mono, boot = self._ports.clock.wall(), self._ports.clock.monotonic(), self._ports.clock.boot_id()
        self.state = replace(self.state, history=recalled(entries, wall, mono, boot))
        self._barrier(self._recall_strikes)
        self._missed.recall(entries)
        for record in unfinished(entries):
            self._ports.journal.append(record)
        self._ports.journal.append(rec.AgentStarted(node=self._node, mode=self._mode, boot=boot))
        self._barrier(self._gpus.look)
        self._barrier(self._look_at_guard)
        if self._ports.openings is not None:
            self._barrier(self._take_all, self._holders.look())
            self._take_leases()

    def _recall_strikes(self) -> None:
        if self._ports.strikes is not None:
            history = replace(self.state.history, strikes=self._ports.strikes.read())
            self.state = replace(self.state, history=history)

    def _look_at_guard(self) -> None:
        if (turned := self._gpus.guard_turned()) is not None:
            self.take(turned)

    def _sleep(self) -> float | None:
        """Seconds until the next timer or the next sign of life; None: until there is news."""
        due = [*self._actor.timers.values(), *self._turns.due(), self._forgotten.due()]
        waits = [at - self._ports.clock.monotonic() for at in due]
        if self._ports.alive is not None:
            waits.append(self._ports.alive.beat())
        shortest = min(waits, default=math.inf)
        return None if shortest == math.inf else max(0.0, shortest)

    def _fire(self) -> None:
        now, timers = self._ports.clock.monotonic(), self._actor.timers
        due = sorted((at, number, timer) for number, (timer, at) in enumerate(timers.items()) if at <= now)
        for at, _, timer in due:
            if timers.get(timer) == at:
                del timers[timer]
                self.take(ev.TimerFired(timer=timer))

    def _barrier(self, call: Callable[P, object], *values: P.args, **named: P.kwargs) -> None:
        """The loop's outer edge: nothing that goes wrong with one piece of news ends the agent."""
        try:
            call(*values, **named)
        except ResilienceError as error:
            print(error.lines(), file=sys.stderr, flush=True)
        except Exception:
            print("mpsr: agent: unexpected error, going on:", file=sys.stderr)
            traceback.print_exc(file=sys.stderr)

    def _take_all(self, events: Iterable[ev.Event]) -> None:
        for event in events:
            self.take(event)

    def take(self, event: ev.Event) -> None:
        """Let the machine decide, and carry out what it says. One effect that fails does not stop the others."""
        moment = Moment(wall=self._ports.clock.wall(), mono=self._ports.clock.monotonic())
        self.state, effects = step(self.state, event, moment)
        for effect in sorted(effects, key=urgency):
            self._barrier(self._carry_out, effect)

    def _carry_out(self, effect: fx.Effect) -> None:
        """Who is connected to a server that is followed from now on stands in its past lines, and what was missed there."""
        for line in self._actor.carry_out(effect):
            self._turns.put(line.uid, "logs", partial(self._past, line))

    def _past(self, line: ServerLine) -> Iterator[ev.Event]:
        if (parsed := mpslog.parse_line(line.text)) is not None:
            self._missed.past(line, parsed)
            yield from self._connections.heard(line, parsed, self.state)


def _answered(answer: Answer) -> Iterator[ev.Event]:
    if (event := answer.take()) is not None:
        yield event


def _isolated(ports: Ports, clients: Clients, *, act: bool) -> Isolated | None:
    if ports.guard is None or ports.end_client is None:
        return None
    return Isolated(ports.guard, ports.end_client, clients, ports.journal, ports.worker, act=act)
