"""Supervisors at the agent's door: who may speak, for which task, and their words as events of the machine.

Relies on the kernel's word for a peer's uid and pid, and on the job's lease for whose the job is. A peer that says what
it must not is turned away with the reason; the journal names a bounded number of those.
"""

from collections.abc import Iterator
from dataclasses import replace

from resilience.agent import messages
from resilience.agent.budget import Budget, Taken
from resilience.agent.chatter import Chatter
from resilience.agent.clients import Clients
from resilience.agent.endings import ClientEndings
from resilience.agent.gpus import KnownGpus
from resilience.agent.job_logs import JobLogs
from resilience.agent.last_calls import LastCalls
from resilience.agent.messages import FaultWords, HelloWords, KeeperWords, KillWords
from resilience.agent.newcomers import Newcomers
from resilience.agent.peers import Peers
from resilience.agent.senses import Observer
from resilience.model import event as ev
from resilience.model import records as rec
from resilience.model.errors import ConfigError, WireError
from resilience.model.ids import Color, ServerId, TaskRef
from resilience.model.lease import Lease, LeaseState
from resilience.model.observation import Client, Source, What
from resilience.model.options import JobOptions
from resilience.model.settings import Options
from resilience.parse import rules
from resilience.parse.packet import pack, unpack
from resilience.ports import Clock, Journal, Leases, Packet, Peer, Supervisors

_TEXT = 300
REFUSALS = 30
"""Peers turned away in a minute that the journal names: anybody may knock, and must not fill the disk with it."""
HEARD = 4096
"""Bytes of a supervisor's message: ours have no path in them, as the agent's own do."""


class Reception:
    """Packets of supervisors to events. `site`: what this node's mpsr.yaml allows."""

    def __init__(
        self,
        *,
        site: Options,
        clock: Clock,
        journal: Journal,
        leases: Leases,
        supervisors: Supervisors,
        clients: Clients,
        peers: Peers,
        logs: JobLogs,
        chatter: Chatter,
        gpus: KnownGpus,
        observer: Observer,
        newcomers: Newcomers,
        endings: ClientEndings,
        last_calls: LastCalls,
    ) -> None:
        self._rules = site
        self._clock = clock
        self._journal = journal
        self._leases = leases
        self._supervisors = supervisors
        self._clients = clients
        self._peers = peers
        self._logs = logs
        self._chatter = chatter
        self._gpus = gpus
        self._see = observer.see
        self._newcomers = newcomers
        self._endings = endings
        self._last_calls = last_calls
        self._tasks: dict[Peer, TaskRef] = {}
        self._homes: dict[TaskRef, ServerId] = {}
        """Domain and GPU of a task, with the colour that it came with."""
        self._refusals = Budget(REFUSALS)
        self._turned_away: Peer | None = None
        """The last one: what it said before it noticed comes with the same news."""

    def packet(self, packet: Packet) -> Iterator[ev.Event]:
        peer = packet.peer
        if packet.data is None:
            yield from self._left(peer)
            return
        if peer is self._turned_away:
            return
        try:
            if len(packet.data) > HEARD:
                raise WireError("agent socket", f"message is longer than {HEARD} bytes", len(packet.data))
            verb, words = unpack(packet.data)
            ref = self._tasks.get(peer)
            if ref is None:
                yield from self._hello(peer, messages.hello(verb, words))
            else:
                yield from self._message(peer, ref, messages.message(ref, verb, words))
        except WireError as error:
            yield from self._turn_away(peer, error)

    def _turn_away(self, peer: Peer, error: WireError) -> Iterator[ev.Event]:
        taken = self._refusals.take("anybody", self._clock.monotonic())
        if taken is not Taken.NO:
            last = " (further ones of this minute are not written down)" if taken is Taken.LAST else ""
            self._journal.append(rec.TaskGone(pid=peer.pid, uid=peer.uid, refused=True, reason=f"{error}{last}"))
        self._supervisors.send(peer, pack("refuse", reason=f"{error} {error.hint}".strip()[:_TEXT]))
        self._supervisors.drop(peer)
        self._turned_away = peer
        yield from self._left(peer)

    def _hello(self, peer: Peer, words: HelloWords) -> Iterator[ev.Event]:
        lease = self._leases.read(words.ref.job)
        if lease is None:
            raise WireError("agent socket", "no lease on this node", f"job {words.ref.job}")
        if peer.uid not in (0, lease.uid):
            raise WireError("agent socket", f"job {words.ref.job} is not yours", f"uid {peer.uid}")
        if lease.state is not LeaseState.OPEN:
            raise WireError("agent socket", "the lease is refused", lease.reason)
        if words.gpu not in dict(lease.gpus):
            raise WireError("agent socket", f"GPU is not in the lease of job {words.ref.job}", words.gpu)
        chosen = self._options(words, lease)
        first, _ = lease.span(words.gpu)[0]
        here = ServerId(domain=lease.domain, gpu=first, color=lease.colors[0] if lease.colors else Color("a"))
        active = self._color(words, lease, here)
        if not self._clients.learn(words.active, words.ref, lease.domain, peer.pid):
            raise WireError("agent socket", "active_pid names a process that is not the task's", words.active)
        for minor, uuid in lease.gpus:
            self._gpus.learn(uuid, minor)
        if (turned := self._gpus.guard_turned()) is not None:
            yield turned
        before = self._peers.get(words.ref)
        if before is not None:
            self._tasks.pop(before, None)
            self._supervisors.drop(before)
        self._tasks[peer] = words.ref
        self._peers.put(words.ref, peer)
        self._clients.learn(peer.pid, words.ref, lease.domain, peer.pid)
        self._homes[words.ref] = here
        self._chatter.learn(words.ref.job, lease.uid)
        hello = ev.Hello(
            ref=words.ref,
            lease=replace(lease, options=chosen),
            server=replace(here, color=active or here.color),
            mpi=words.mpi,
            resumed=words.resumed,
            retries=words.retries,
            retried=words.retried,
            active=words.active,
            session=words.session,
            program=words.program,
        )
        self._last_calls.met(words.ref)
        self._newcomers.hello(hello, lambda: self._peers.get(words.ref) is peer)

    def _color(self, words: HelloWords, lease: Lease, here: ServerId) -> Color | None:
        """The server that the task uses already, which must be one of its domain; or the one that new tasks join."""
        if not (words.resumed and words.color):
            return self._leases.active(here)
        if words.color not in lease.colors and replace(here, color=words.color) not in self._leases.servers(
            lease.domain
        ):
            raise WireError("agent socket", f"color names no server of job {words.ref.job}", words.color)
        return words.color

    def _options(self, words: HelloWords, lease: Lease) -> JobOptions:
        """What a supervisor says that its task asked for, within what the site allows and the job has: anybody can start
        mpsr-launch, with whatever in its environment."""
        try:
            return rules.within(words.options, lease.options, rules.of_partition(self._rules, lease.partition))
        except ConfigError as error:
            raise WireError(
                "agent socket", f"{error.subject}: {error.wrong}", error.observed, hint=error.hint
            ) from error

    def _message(self, peer: Peer, ref: TaskRef, message: messages.Message) -> Iterator[ev.Event]:
        match message:
            case FaultWords():
                now = self._see(Source.CLIENT, What.CUDA, message.text, pid=message.pid, cuda=message.cuda)
                yield ev.Seen(observation=now, client=Client(pid=message.pid, task=ref, job=ref.job))
            case KeeperWords():
                said = rec.Sighting(source=Source.CLIENT, what="keeper", task=ref, text=message.state)
                for record in self._chatter.written(said):
                    self._journal.append(record)
            case KillWords():
                self._last_calls.asked(ref)
            case ev.Ending():
                self._endings.asked(peer, message, replace(self._homes[ref], color=message.color))
            case ev.Started():
                if not self._clients.learn(message.pid, ref, self._homes[ref].domain, peer.pid):
                    raise WireError("agent socket", "started names a process that is not the task's", message.pid)
                yield message
            case _:
                yield message

    def _left(self, peer: Peer) -> Iterator[ev.Event]:
        ref = self._tasks.pop(peer, None)
        if ref is None:
            return
        if self._peers.get(ref) is peer:
            self._peers.remove(ref)
            yield ev.Gone(ref=ref)
            self._clients.forget(ref, self._homes.pop(ref).domain)
            if next(self._peers.of_job(ref.job), None) is None:
                self._logs.forget(ref.job)
