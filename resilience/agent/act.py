"""Carries out the machine's effects over the ports. What takes its time goes to a worker lane; answers are events.

A port that fails is an answer too: an MPS daemon that cannot be asked is an unanswered question, a server that cannot be
opened a failed opening, a Slurm that does not answer a refusal with the reason. Nothing here raises for such a thing.
"""

from dataclasses import dataclass
from functools import partial
from typing import assert_never

from resilience.agent.chatter import Chatter
from resilience.agent.job_logs import JobLogs
from resilience.agent.peers import Peers
from resilience.model import effect as fx
from resilience.model import event as ev
from resilience.model.errors import ResilienceError, SlurmAway
from resilience.model.ids import DomainKey, JobId, NodeName, ProcessId, ServerId, TaskRef
from resilience.model.incident import Action
from resilience.model.records import JobAccounted
from resilience.model.records.told import admin_comment, drain_reason, requeue_comment
from resilience.model.settings import Settings
from resilience.model.timer import OfServer, Timer
from resilience.model.world import ServerState
from resilience.parse.packet import cut
from resilience.ports import Done, JobInfo, Ports, Refused, ServerLine, ServerOwner

_REASON = 800
"""Characters of a verdict's reason."""
_TEXT = 2400
"""Bytes of it on the wire: with the rest of its packet it must fit there."""
_ACCOUNT_FOR = 3600.0
"""Seconds for which a Slurm that does not answer is given an account again: as it comes back the job still runs for it."""
_MPS = "mps:"
_STAY = 2.0
"""Seconds that a job's tasks stay after their end at most, for Slurm to take the job's account: it takes some 50 ms."""


@dataclass(slots=True, kw_only=True)
class _Account:
    """What Slurm is being told of a job, since when, and what is to follow it."""

    given: JobAccounted
    since: float
    later: JobAccounted | None = None


class Actor:
    """Effects to the world."""

    def __init__(
        self, node: NodeName, settings: Settings, ports: Ports, peers: Peers, logs: JobLogs, chatter: Chatter
    ) -> None:
        self._chatter = chatter
        self._node = node
        self._settings = settings
        self._ports = ports
        self._mps = ports.mps
        self._slurm = ports.slurm
        self._submit = ports.worker.submit
        self._peers = peers
        self._job_logs = logs
        self.timers: dict[Timer, float] = {}
        self._accounts: dict[JobId, _Account] = {}
        self._asked: dict[ServerId, float] = {}
        """Servers whose state is being asked for, and when that was last wished."""
        self._followed: set[ServerId] = set()
        self._finding: set[ServerId] = set()
        """Servers whose daemon is being asked for."""
        self._looking: set[JobId] = set()
        """Jobs that Slurm is being asked about."""

    def carry_out(self, effect: fx.Effect) -> tuple[ServerLine, ...]:
        """Do it. Gives the past lines of a log that is followed from now on."""
        match effect:
            case fx.Place():
                self._place(effect)
            case fx.Refuse():
                self._peers.tell(effect.ref, "refuse", reason=effect.reason)
            case fx.Verdict():
                self._verdict(effect)
            case fx.StartStandby():
                pipe = self._mps.pipe(effect.server)
                self._peers.tell(effect.ref, "standby", color=effect.server.color, pipe=pipe)
            case fx.JobLine():
                self._job_logs.tell(effect.job, effect.record)
            case fx.WriteJournal():
                for record in self._chatter.written(effect.record):
                    self._ports.journal.append(record)
            case fx.SetActive():
                self._ports.leases.set_active(effect.server)
            case fx.Poll():
                self._poll(effect)
            case fx.Open():
                self._open(effect)
            case fx.Close():
                self._ports.server_logs.unwatch(effect.server)
                self._submit(lane(effect.server), partial(self._mps.close, effect.server), _nothing)
            case fx.TerminateClient():
                self._terminate(effect)
            case fx.Watch():
                self._find_daemon(effect.server)
                return self._ports.server_logs.watch(effect.server, self._mps.logs(effect.server), effect.uid)
            case fx.Unwatch():
                self._unwatch(effect.server)
            case fx.Look():
                self._look(effect)
            case fx.LookUpJob():
                self._job_logs.begin(effect.job)
                self._look_up(effect.job)
            case fx.AskRequeue():
                self._requeue(effect)
            case fx.AskDrain():
                call = partial(self._slurm.drain, self._node, drain_reason(effect.intent))
                self._submit("slurm", call, partial(_slurm_answered, ev.Ask.DRAIN, None))
            case fx.AskComment():
                self._account(effect)
            case fx.KeepStrikes():
                if (strikes := self._ports.strikes) is not None:
                    self._submit("strikes", partial(strikes.write, effect.strikes), _nothing)
            case fx.SetTimer():
                self.timers[effect.timer] = effect.at
            case _:
                assert_never(effect)
        return ()

    # ------------------------------------------------------------ to supervisors
    def _place(self, place: fx.Place) -> None:
        standby = place.standby
        self._peers.tell(
            place.ref,
            "place",
            color=place.server.color,
            pipe=self._mps.pipe(place.server),
            standby=standby.color if standby else "",
            standby_pipe=self._mps.pipe(standby) if standby else "",
            isolation=place.isolation,
            grace_ms=_ms(self._settings.recovery.grace),
            restore_ms=_ms(self._settings.recovery.restore_timeout),
            requeue_ms=_ms(self._settings.recovery.requeue_timeout),
            spill_ms=_ms(self._settings.state.spill_seconds),
            window_ms=_ms(self._settings.recovery.retries_window),
        )

    def _verdict(self, verdict: fx.Verdict) -> None:
        server = verdict.server
        self._peers.tell(
            verdict.ref,
            "verdict",
            incident=verdict.incident,
            action=verdict.action.value,
            part=verdict.part.value,
            color=server.color if server else "",
            pipe=self._mps.pipe(server) if server else "",
            reason=cut(verdict.reason[:_REASON], _TEXT),
        )

    # ------------------------------------------------------------ MPS
    def _poll(self, poll: fx.Poll) -> None:
        busy = poll.server in self._asked
        self._asked[poll.server] = self._ports.clock.monotonic()
        if not busy:
            self._ask(poll.server)

    def _ask(self, server: ServerId) -> None:
        def call() -> tuple[float, ServerState]:
            asked = self._ports.clock.monotonic()
            return asked, self._mps.state(server)

        self._submit(lane(server), call, partial(self._state, server))

    def _state(self, server: ServerId, value: tuple[float, ServerState] | Exception) -> ev.Event:
        wished = self._asked.pop(server, 0.0)
        if isinstance(value, Exception):
            return ev.ServerSeen(server=server, sight=None, asked=self._ports.clock.monotonic())
        asked, state = value
        if asked < wished:
            self._asked[server] = wished
            self._ask(server)
        return ev.ServerSeen(server=server, sight=state, asked=asked)

    def _terminate(self, effect: fx.TerminateClient) -> None:
        """Only a process that is the task's now: its number may have become another's."""
        peer = self._peers.get(effect.ref)
        if peer is not None and peer.pid in self._ports.procfs.ancestors(effect.pid):
            self._submit(
                lane(effect.server), partial(self._mps.end_clients, effect.server, effect.pid.__eq__), _nothing
            )

    def _find_daemon(self, server: ServerId) -> None:
        """Once at a time, however often a domain comes and goes."""
        self._followed.add(server)
        if server not in self._finding:
            self._finding.add(server)
            self._submit(lane(server), partial(self._mps.daemon, server), partial(self._daemon, server))

    def _daemon(self, server: ServerId, daemon: ProcessId | Exception | None) -> None:
        self._finding.discard(server)
        if server in self._followed and not isinstance(daemon, Exception):
            self._ports.daemons.watch(server, daemon, self._mps.pipe(server))

    def _unwatch(self, server: ServerId) -> None:
        self._followed.discard(server)
        self._ports.server_logs.unwatch(server)
        self._ports.daemons.unwatch(server)
        for timer in [timer for timer in self.timers if isinstance(timer, OfServer) and timer.server == server]:
            del self.timers[timer]

    def _open(self, effect: fx.Open) -> None:
        owner = ServerOwner(uid=effect.uid, gid=effect.gid, shared=effect.shared)

        def call() -> str:
            left = self._mps.close(effect.server) if effect.anew else ()
            self._mps.open(effect.server, effect.uuids, owner)
            return f"left behind: {', '.join(left)}" if left else ""

        def then(left: str | Exception) -> ev.Event:
            return ev.ServerOpened(server=effect.server, ok=isinstance(left, str), detail=_words(left))

        self._submit(lane(effect.server), call, then)

    # ------------------------------------------------------------ Slurm
    def _requeue(self, ask: fx.AskRequeue) -> None:
        comment, exclude = requeue_comment(ask.intent), self._node if ask.exclude else None

        def call() -> Done | Refused:
            if self._ports.clock.monotonic() >= ask.until:
                raise SlurmAway("Slurm", "was busy with other requests until it was too late")
            return self._slurm.requeue(ask.job, comment=comment, exclude=exclude)

        self._submit("slurm", call, partial(_slurm_answered, ev.Ask.REQUEUE, ask.job))

    def _account(self, ask: fx.AskComment) -> None:
        """Slurm takes a comment only while the job runs: its tasks here stay until Slurm has answered.

        One at a time for a job, and then its latest: whose faults come fast must not keep others waiting.
        """
        self._peers.tell_job(ask.job, "hold", ms=_ms(_STAY))
        if ask.job in self._accounts:
            self._accounts[ask.job].later = ask.account
            return
        self._accounts[ask.job] = _Account(given=ask.account, since=self._ports.clock.monotonic())
        self._give_account(ask.job, ask.account)

    def _give_account(self, job: JobId, account: JobAccounted) -> None:
        call = partial(self._slurm.comment, job, admin_comment(account))
        self._submit("account", call, partial(self._accounted, job))

    def _accounted(self, job: JobId, answer: Done | Refused | Exception) -> ev.Event | None:
        """Slurm has answered; None when it has not, and is asked again."""
        account = self._accounts.pop(job)
        late = self._ports.clock.monotonic() - account.since >= _ACCOUNT_FOR
        if account.later is not None:
            self._account(fx.AskComment(job=job, account=account.later))
        elif isinstance(answer, SlurmAway) and not late:
            self._accounts[job] = account
            self._give_account(job, account.given)
            return None
        else:
            self._peers.tell_job(job, "release")
        return _slurm_answered(ev.Ask.COMMENT, job, answer)

    def _look(self, look: fx.Look) -> None:
        """A task is stopped when its supervisor is, or anything that the supervisor has started."""
        peers = {ref: peer.pid for ref in look.refs if (peer := self._peers.get(ref)) is not None}

        def call() -> frozenset[TaskRef]:
            return frozenset(ref for ref, pid in peers.items() if self._ports.procfs.stopped(pid))

        def then(stopped: frozenset[TaskRef] | Exception) -> ev.Event:
            known = frozenset[TaskRef]() if isinstance(stopped, Exception) else stopped
            return ev.Looked(about=look.about, stopped=known)

        self._submit(f"look:{look.refs[0].job if look.refs else ''}", call, then)

    def _look_up(self, job: JobId) -> None:
        """Once at a time, however often its tasks come and go."""
        if job not in self._looking:
            self._looking.add(job)
            self._submit("slurm", partial(self._slurm.job, job), partial(self._job, job))

    def _job(self, job: JobId, info: JobInfo | Exception) -> ev.Event | None:
        self._looking.discard(job)
        if isinstance(info, Exception):
            return None
        self._job_logs.lies(info)
        return ev.JobKnown(job=info.job, batch=info.batch, requeueable=info.requeue, why=info.no_requeue)


def lane(server: ServerId) -> str:
    """A daemon runs as its domain's user, who can stop it: nobody else waits for its answers."""
    return f"{_MPS}{server.domain}"


def domain_of(lane: str) -> DomainKey | None:
    """The domain that a lane is for."""
    return DomainKey(lane.removeprefix(_MPS)) if lane.startswith(_MPS) else None


def _nothing(_: object) -> None:
    """Nothing follows from the answer."""


def _words(error: object) -> str:
    """An answer in words; a mistake of ours says which it was."""
    if isinstance(error, Exception) and not isinstance(error, ResilienceError):
        return f"{type(error).__name__}: {error}"
    return str(error)


def _slurm_answered(ask: ev.Ask, job: JobId | None, answer: Done | Refused | Exception) -> ev.Event:
    match answer:
        case Done():
            return ev.SlurmAnswered(ask=ask, job=job, ok=True, detail=answer.detail)
        case Refused():
            return ev.SlurmAnswered(ask=ask, job=job, ok=False, detail=answer.reason)
        case _:
            away = isinstance(answer, SlurmAway)
            return ev.SlurmAnswered(ask=ask, job=job, ok=False, detail=_words(answer), away=away)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def urgency(effect: fx.Effect) -> int:
    """The journal first, for what is in it comes before the act; then those who wait to go on; then the rest in order.

    A task that fails is told last: its supervisor ends, and the lines of its job's log go through it.
    """
    if isinstance(effect, fx.WriteJournal):
        return 0
    if isinstance(effect, fx.Verdict):
        return 3 if effect.action in (Action.FAIL, Action.NONE) else 1
    return 2
