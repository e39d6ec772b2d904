"""Carries out the machine's effects over the ports. What takes its time goes to a worker lane; results are events.

A port that fails is a result too: an MPS daemon that cannot be asked is an unanswered question, a server that cannot be
opened a failed opening, a Slurm that does not answer a refusal with the reason. Nothing here raises for such a thing.
"""

import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import assert_never

from resilience.model import effect as fx
from resilience.model import event as ev
from resilience.model.errors import ResilienceError
from resilience.model.ids import JobId, NodeName, Process, ServerId, TaskRef
from resilience.model.incident import Action
from resilience.model.settings import Settings
from resilience.model.world import Sight
from resilience.parse.packet import cut, encode, pack
from resilience.ports import (
    AgentJournal,
    Clock,
    Daemons,
    Done,
    JobInfo,
    Leases,
    Mps,
    Peer,
    Refused,
    Result,
    ServerLine,
    ServerLogs,
    ServerOwner,
    ServerState,
    Slurm,
    Supervisors,
    Worker,
)

_LINE = 800
"""Characters of a recovery log line."""
_TEXT = 2400
"""Bytes of such a line, or of a reason, on the wire: with the rest of its packet it must fit there, whatever a user's
program has put into it."""
_PATH = 1400
"""Bytes on the wire that the path of a recovery log may take."""
_STAY = 2.0
"""Seconds that a job's tasks stay after their end at most, for Slurm to take the job's account: it takes some 50 ms."""
_HELD = 200
"""Lines of one job that wait for Slurm to say where its log lies."""


@dataclass(slots=True)
class _JobLog:
    """Where a job's recovery log lies, and what waits to be written there."""

    path: str = ""
    held: deque[str] = field(default_factory=lambda: deque(maxlen=_HELD))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tag:
    """What a worker's call was for."""

    what: str
    server: ServerId | None = None
    job: JobId | None = None


class Actor:
    """Effects to the world. `send` reaches a task's supervisor, `peers` are those that are connected."""

    def __init__(
        self,
        *,
        node: NodeName,
        settings: Settings,
        clock: Clock,
        journal: AgentJournal,
        leases: Leases,
        mps: Mps,
        slurm: Slurm,
        supervisors: Supervisors,
        server_logs: ServerLogs,
        daemons: Daemons,
        worker: Worker,
        past: Callable[[tuple[ServerLine, ...]], None],
    ) -> None:
        self._node = node
        self._settings = settings
        self._clock = clock
        self._journal = journal
        self._leases = leases
        self._mps = mps
        self._slurm = slurm
        self._supervisors = supervisors
        self._logs = server_logs
        self._daemons = daemons
        self._worker = worker
        self._past = past
        self.peers: dict[TaskRef, Peer] = {}
        self.timers: dict[tuple[object, ...], float] = {}
        self._job_logs: dict[JobId, _JobLog] = {}
        self._accounts: dict[JobId, str] = {}
        """Jobs whose account Slurm is being given, and the one that is to follow it."""
        self._asked: dict[ServerId, float] = {}
        """Servers whose state is being asked for, and when that was last wished."""

    def carry_out(self, effect: fx.Effect) -> None:
        match effect:
            case fx.Place():
                self._place(effect)
            case fx.Refuse():
                self.tell(effect.ref, "refuse", reason=effect.reason)
            case fx.Verdict():
                self._verdict(effect)
            case fx.StartStandby():
                self.tell(effect.ref, "standby", color=effect.server.color, pipe=self._mps.pipe(effect.server))
            case fx.JobLine():
                self._job_line(effect.job, effect.text)
            case fx.Journal():
                self._journal.append(effect.event, **effect.fields)
            case fx.SetActive():
                self._leases.set_active(effect.server)
            case fx.Poll():
                self._poll(effect)
            case fx.Open():
                self._open(effect)
            case fx.Close():
                self._logs.unwatch(effect.server)
                self._submit("mps", _Tag(what="close", server=effect.server), lambda: self._mps.close(effect.server))
            case fx.TerminateClient():
                call = self._mps.terminate_client
                self._submit("mps", _Tag(what="terminate"), lambda: call(effect.server, effect.pid))
            case fx.Watch():
                self._past(self._logs.watch(effect.server, self._mps.logs(effect.server)))
                tag = _Tag(what="daemon", server=effect.server)
                self._submit("mps", tag, lambda: self._mps.daemon(effect.server))
            case fx.Unwatch():
                self._logs.unwatch(effect.server)
                self._daemons.unwatch(effect.server)
            case fx.LookUpJob():
                self._job_logs[effect.job] = _JobLog()
                self._submit("slurm", _Tag(what="job", job=effect.job), lambda: self._slurm.job(effect.job))
            case fx.AskRequeue():
                self._requeue(effect)
            case fx.AskDrain():
                self._submit("slurm", _Tag(what="drain"), lambda: self._slurm.drain(self._node, effect.reason))
            case fx.AskComment():
                self._account(effect)
            case fx.SetTimer():
                self.timers[effect.key] = effect.at
            case _:
                assert_never(effect)

    # ------------------------------------------------------------ to supervisors
    def tell(self, ref: TaskRef, verb: str, /, **words: object) -> None:
        """Send to a task's supervisor, if it is there."""
        peer = self.peers.get(ref)
        if peer is not None:
            self._supervisors.send(peer, pack(verb, **words))

    def _place(self, place: fx.Place) -> None:
        standby = place.standby
        self.tell(
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
        )

    def _verdict(self, verdict: fx.Verdict) -> None:
        server = verdict.server
        self.tell(
            verdict.ref,
            "verdict",
            incident=verdict.incident,
            action=verdict.action.value,
            part=verdict.part.value,
            color=server.color if server else "",
            pipe=self._mps.pipe(server) if server else "",
            reason=cut(verdict.reason[:_LINE], _TEXT),
        )

    def _job_line(self, job: JobId, text: str) -> None:
        stamp = datetime.fromtimestamp(self._clock.wall()).isoformat(timespec="milliseconds")
        line = cut(f"{stamp} mpsr[{self._node}] {text}"[:_LINE], _TEXT)
        log = self._job_logs.setdefault(job, _JobLog())
        if not log.path:
            log.held.append(line)
            return
        ref = min((ref for ref in self.peers if ref.job == job), default=None)
        if ref is not None:
            self.tell(ref, "log", path=log.path, line=line)

    def forget_job(self, job: JobId) -> None:
        """The job's last task here has gone."""
        self._job_logs.pop(job, None)

    # ------------------------------------------------------------ to the workers
    def _submit(self, lane: str, tag: _Tag, call: Callable[[], object]) -> None:
        self._worker.submit(lane, tag, call)

    def _poll(self, poll: fx.Poll) -> None:
        busy = poll.server in self._asked
        self._asked[poll.server] = self._clock.monotonic()
        if not busy:
            self._ask(poll.server)

    def _ask(self, server: ServerId) -> None:
        def call() -> tuple[float, ServerState]:
            asked = self._clock.monotonic()
            return asked, self._mps.state(server)

        self._submit("mps", _Tag(what="state", server=server), call)

    def _open(self, effect: fx.Open) -> None:
        owner = ServerOwner(uid=effect.uid, gid=effect.gid, shared=effect.shared)

        def call() -> str:
            left = self._mps.close(effect.server) if effect.anew else ()
            self._mps.open(effect.server, effect.uuid, owner)
            return f"left behind: {', '.join(left)}" if left else ""

        self._submit("mps", _Tag(what="open", server=effect.server), call)

    def _requeue(self, ask: fx.AskRequeue) -> None:
        exclude = self._node if ask.exclude else None
        tag = _Tag(what="requeue", job=ask.job)
        self._submit("slurm", tag, lambda: self._slurm.requeue(ask.job, comment=ask.comment, exclude=exclude))

    def _account(self, ask: fx.AskComment) -> None:
        """Slurm takes a comment only while the job runs: its tasks here stay until Slurm has answered.

        One at a time for a job, and then its latest: whose faults come fast must not keep others waiting.
        """
        self._tell_all(ask.job, "hold", ms=_ms(_STAY))
        if ask.job in self._accounts:
            self._accounts[ask.job] = ask.text
            return
        self._accounts[ask.job] = ""
        tag = _Tag(what="comment", job=ask.job)
        self._submit("account", tag, lambda: self._slurm.comment(ask.job, ask.text))

    def _accounted(self, job: JobId) -> None:
        if later := self._accounts.pop(job, ""):
            self._account(fx.AskComment(job=job, text=later))
        else:
            self._tell_all(job, "release")

    def _tell_all(self, job: JobId, verb: str, **words: object) -> None:
        for ref in [ref for ref in self.peers if ref.job == job]:
            self.tell(ref, verb, **words)

    def result(self, result: Result) -> ev.Event | None:
        """A worker's result as an event; None when nothing follows from it."""
        tag, value = result.tag, result.value
        if not isinstance(tag, _Tag):
            return None
        failed = isinstance(value, Exception)
        if failed and not isinstance(value, ResilienceError):
            value = ResilienceError("agent", f"{tag.what} failed", f"{type(value).__name__}: {value}")
        match tag.what:
            case "state" if tag.server is not None:
                return self._state(tag.server, value)
            case "daemon" if tag.server is not None:
                if value is None or isinstance(value, Process):
                    self._daemons.watch(tag.server, value)
                return None
            case "open" if tag.server is not None:
                return ev.ServerOpened(server=tag.server, ok=not failed, detail=str(value))
            case "job" if tag.job is not None:
                return self._job(tag.job, value)
            case "requeue" | "drain" | "comment":
                if tag.what == "comment" and tag.job is not None:
                    self._accounted(tag.job)
                ok = isinstance(value, Done)
                detail = (
                    value.detail
                    if isinstance(value, Done)
                    else value.reason
                    if isinstance(value, Refused)
                    else str(value)
                )
                return ev.SlurmAnswered(ask=ev.Ask(tag.what), job=tag.job, ok=ok, detail=detail)
            case _:
                return None

    def _state(self, server: ServerId, value: object) -> ev.Event:
        wished = self._asked.pop(server, 0.0)
        asked, sight = self._clock.monotonic(), None
        if isinstance(value, tuple):
            asked, sight = value[0], Sight(value[1].value)
            if asked < wished:
                self._asked[server] = wished
                self._ask(server)
        return ev.ServerSeen(server=server, sight=sight, asked=asked)

    def _job(self, job: JobId, value: object) -> ev.Event | None:
        if not isinstance(value, JobInfo):
            return None
        log = self._job_logs.get(job)
        directory = os.path.dirname(value.stdout) if value.stdout else value.workdir
        path = os.path.join(directory, f"mpsr-{job}.log")
        if log is not None and path.startswith("/") and len(encode(path)) <= _PATH:
            log.path = path
            ref = min((ref for ref in self.peers if ref.job == job), default=None)
            while log.held and ref is not None:
                self.tell(ref, "log", path=log.path, line=log.held.popleft())
        return ev.JobKnown(job=job, batch=value.batch, requeueable=value.requeue)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def urgency(effect: fx.Effect) -> int:
    """The journal first, for what is in it comes before the act; then those who wait to go on; then the rest in order.

    A task that fails is told last: its supervisor ends, and the lines of its job's log go through it.
    """
    if isinstance(effect, fx.Journal):
        return 0
    if isinstance(effect, fx.Verdict):
        return 3 if effect.action in (Action.FAIL, Action.NONE) else 1
    return 2
