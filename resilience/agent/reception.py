"""Supervisors at the agent's door: who may speak, for which task, and their words as events of the machine.

Relies on the kernel's word for a peer's uid and pid, and on the job's lease for whose the job is. A peer that says what
it must not, or too much, is turned away with the reason; the journal names a bounded number of those.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from resilience.agent import messages
from resilience.agent.act import Actor
from resilience.agent.budget import Budget, Taken
from resilience.agent.clients import Clients
from resilience.agent.messages import FaultWords, HelloWords, KeeperWords
from resilience.machine.sentences import ref_words
from resilience.model import event as ev
from resilience.model.errors import WireError
from resilience.model.ids import Color, GpuMinor, GpuUuid, ServerId, TaskRef
from resilience.model.lease import LeaseState
from resilience.model.observation import Client, Observation, Source, What
from resilience.parse.packet import pack, unpack
from resilience.ports import Clock, Journal, Leases, Packet, Peer, Supervisors

_TEXT = 300
REFUSALS = 30
"""Peers turned away in a minute that the journal names: anybody may knock, and must not fill the disk with it."""
WORDS = 12_000
"""Messages of one user in a minute. 256 tasks that start and recover twice say 5000."""


class Observe(Protocol):
    def __call__(self, source: Source, what: What, text: str, **fields: object) -> Observation:
        """A sighting of now."""


class Reception:
    """`take` hands an event to the machine, `know` takes a GPU that a lease names, `observe` makes a sighting of now."""

    def __init__(
        self,
        *,
        clock: Clock,
        journal: Journal,
        leases: Leases,
        supervisors: Supervisors,
        clients: Clients,
        actor: Actor,
        take: Callable[[ev.Event], None],
        know: Callable[[GpuUuid, GpuMinor], None],
        observe: Observe,
    ) -> None:
        self._clock = clock
        self._journal = journal
        self._leases = leases
        self._supervisors = supervisors
        self._clients = clients
        self._actor = actor
        self._take = take
        self._know = know
        self._observe = observe
        self._tasks: dict[Peer, TaskRef] = {}
        self._refusals = Budget(REFUSALS)
        self._words = Budget(WORDS)
        self._turned_away: Peer | None = None
        """The last one: what it said before it noticed comes with the same news."""

    def packet(self, packet: Packet) -> None:
        peer = packet.peer
        if packet.data is None:
            self._left(peer)
            return
        if peer is self._turned_away:
            return
        try:
            if self._words.take(peer.uid, self._clock.monotonic()) is Taken.NO:
                raise WireError("agent socket", f"more than {WORDS} messages in a minute", f"uid {peer.uid}")
            verb, words = unpack(packet.data)
            ref = self._tasks.get(peer)
            if ref is None:
                self._hello(peer, messages.hello(verb, words))
            else:
                self._message(peer, ref, messages.message(ref, verb, words))
        except WireError as error:
            self._turn_away(peer, error)

    def _turn_away(self, peer: Peer, error: WireError) -> None:
        taken = self._refusals.take("anybody", self._clock.monotonic())
        if taken is not Taken.NO:
            last = " (further ones of this minute are not written down)" if taken is Taken.LAST else ""
            self._journal.append("task.gone", pid=peer.pid, uid=peer.uid, refused=True, reason=f"{error}{last}")
        self._supervisors.send(peer, pack("refuse", reason=f"{error} {error.hint}".strip()[:_TEXT]))
        self._supervisors.drop(peer)
        self._turned_away = peer
        self._left(peer)

    def _hello(self, peer: Peer, words: HelloWords) -> None:
        lease = self._leases.read(words.ref.job)
        if lease is None:
            raise WireError("agent socket", "no lease on this node", f"job {words.ref.job}")
        if peer.uid not in (0, lease.uid):
            raise WireError("agent socket", f"job {words.ref.job} is not yours", f"uid {peer.uid}")
        if lease.state is not LeaseState.OPEN:
            raise WireError("agent socket", "the lease is refused", lease.reason)
        if words.gpu not in dict(lease.gpus):
            raise WireError("agent socket", f"GPU is not in the lease of job {words.ref.job}", words.gpu)
        here = ServerId(domain=lease.domain, gpu=words.gpu, color=lease.colors[0] if lease.colors else Color("a"))
        active = words.color if words.resumed and words.color else self._leases.active(here)
        for minor, uuid in lease.gpus:
            self._know(uuid, minor)
        before = self._actor.peers.get(words.ref)
        if before is not None:
            self._tasks.pop(before, None)
            self._supervisors.drop(before)
        self._tasks[peer] = words.ref
        self._actor.peers[words.ref] = peer
        self._clients.learn(peer.pid, words.ref)
        if words.active and self._clients.belongs(words.active, peer.pid):
            self._clients.learn(words.active, words.ref)
        chosen = replace(words.options, domain=lease.options.domain)
        self._take(
            ev.Hello(
                ref=words.ref,
                lease=replace(lease, options=chosen),
                server=replace(here, color=active or here.color),
                mpi=words.mpi,
                resumed=words.resumed,
                retries=words.retries,
                active=words.active,
                session=words.session,
            )
        )

    def _message(self, peer: Peer, ref: TaskRef, message: messages.Message) -> None:
        match message:
            case FaultWords():
                now = self._observe(Source.CLIENT, What.CUDA, message.text, pid=message.pid, cuda=message.cuda)
                self._take(ev.Seen(observation=now, client=Client(pid=message.pid, task=ref, job=ref.job)))
            case KeeperWords():
                self._journal.append(
                    "observation", source="client", what="keeper", task=ref_words(ref), text=message.state
                )
            case ev.Started():
                if not self._clients.belongs(message.pid, peer.pid):
                    raise WireError("agent socket", "started names a process that is not the task's", message.pid)
                self._clients.learn(message.pid, ref)
                self._take(message)
            case _:
                self._take(message)

    def _left(self, peer: Peer) -> None:
        ref = self._tasks.pop(peer, None)
        if ref is None:
            return
        if self._actor.peers.get(ref) is peer:
            del self._actor.peers[ref]
            self._take(ev.Gone(ref=ref))
            self._clients.forget(ref)
            if not any(other.job == ref.job for other in self._actor.peers):
                self._actor.forget_job(ref.job)
