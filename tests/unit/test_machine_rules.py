"""The machine's safety rules under any order of events, and proof that breaking a rule is noticed.

A hypothesis state machine plays a hostile node: tasks come and go, every source says anything at any time, servers open
or fail, timers fire early or late. The rules are checked on what comes out, by a bookkeeping of their own that knows
only the events and the effects.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from resilience import policy
from resilience.machine import recover, servers, verdicts
from resilience.machine.turn import Turn
from resilience.model import effect as fx
from resilience.model import event as ev
from resilience.model.ids import Color, IncidentId, JobId, ServerId, TaskRef
from resilience.model.incident import Part
from resilience.model.lease import Isolation
from resilience.model.observation import Client, Source, What
from resilience.model.options import JobOptions, OnCulprit, Rung
from resilience.model.settings import Recovery
from resilience.model.world import Sight
from tests.unit.machine_kit import GPU, Node, lease, ref, server

_RUNG_OF = {"promote": Rung.STANDBY, "restore": Rung.RESTORE, "relaunch": Rung.RELAUNCH, "requeue": Rung.REQUEUE}
_ORDER = list(Rung)
_ENDS = ("fail", "none")


@dataclass
class Known:
    """What a task is, as far as an onlooker can tell."""

    options: JobOptions
    mpi: bool
    batch: bool
    server: ServerId
    retries: int = 0
    session: bool = False
    active: int = 0
    standby: int = 0
    standby_server: ServerId | None = None
    ready: bool = False
    failed: bool = False
    """Its own process reported a fault or ended with a failure, or its server was hit."""
    ended: bool = False
    left: list[int] = field(default_factory=list)
    told: dict[str, list[str]] = field(default_factory=dict)
    """Incident → actions so far."""
    over: bool = False


class Hostile(RuleBasedStateMachine):
    """Events in any order; the rules after each."""

    cut = False
    """The domain has SM partitions, one a job: then only a process that met the fault itself has been hit."""

    def __init__(self) -> None:
        super().__init__()
        self.node = Node(Recovery(max_requeues_per_hour=3))
        self.tasks: dict[TaskRef, Known] = {}
        self.pids = 100
        self.hit: set[ServerId] = set()
        """Servers that something said are hit, and not seen to recover since."""
        self.down: set[ServerId] = set()
        self.broken = False
        self.requeued: set[JobId] = set()
        self.refused: set[JobId] = set()
        self.opening: list[ServerId] = []
        self.culprits: dict[TaskRef, ServerId] = {}
        self.named: dict[IncidentId, set[tuple[JobId, OnCulprit]]] = {}
        """Jobs of culprits by incident, and what they want to become of them."""

    # ------------------------------------------------------------ events
    @rule(
        job=st.integers(1, 4),
        number=st.integers(0, 1),
        session=st.booleans(),
        mpi=st.sampled_from([False, False, False, True]),
        batch=st.booleans(),
        retries=st.integers(0, 3),
        recover_by=st.sampled_from([tuple(Rung), (Rung.RELAUNCH, Rung.REQUEUE), (Rung.STANDBY,), (Rung.RESTORE,)]),
        on_culprit=st.sampled_from(OnCulprit),
        colors=st.sampled_from([("a", "b"), ("a", "b"), ("a",)]),
    )
    def join(
        self,
        job: int,
        number: int,
        session: bool,
        mpi: bool,
        batch: bool,
        retries: int,
        recover_by: tuple[Rung, ...],
        on_culprit: OnCulprit,
        colors: tuple[str, ...],
    ) -> None:
        who = ref(job, number)
        if who in self.tasks:
            return
        mates = [known for other, known in self.tasks.items() if other.job == job]
        batch = mates[0].batch if mates else batch
        isolation, slot = (Isolation.SM, job) if self.cut else (Isolation.DOMAINS, 0)
        given = lease(job, colors=colors, isolation=isolation, slot=slot, recover=recover_by, on_culprit=on_culprit)
        known = Known(options=given.options, mpi=mpi, batch=batch, server=server("a"), retries=retries)
        self.tasks[who] = known
        hello = ev.Hello(
            ref=who, lease=given, server=server("a"), mpi=mpi, resumed=False, retries=retries, active=0, session=False
        )
        self.event(hello)
        self.event(ev.JobKnown(job=JobId(job), batch=batch, requeueable=True))
        if session and not known.over:
            self.begin(who)

    def begin(self, who: TaskRef) -> None:
        known = self.tasks[who]
        self.pids += 1
        known.active, known.session, known.ended = self.pids, True, False
        self.event(ev.Started(ref=who, role=ev.Role.ACTIVE, pid=known.active, color=known.server.color))
        self.event(ev.SessionOpened(ref=who, role=ev.Role.ACTIVE, pid=known.active))

    @precondition(lambda self: self.tasks)
    @rule(data=st.data())
    def started(self, data: st.DataObject) -> None:
        who = self.pick(data)
        known = self.tasks[who]
        self.pids += 1
        known.active, known.ended = self.pids, False
        self.event(ev.Started(ref=who, role=ev.Role.ACTIVE, pid=known.active, color=known.server.color))

    @precondition(lambda self: self.tasks)
    @rule(data=st.data(), color=st.sampled_from(["a", "b"]))
    def standby(self, data: st.DataObject, color: str) -> None:
        who = self.pick(data)
        known = self.tasks[who]
        if known.server.color == color or known.standby or known.over or not known.session:
            return
        self.pids += 1
        known.standby, known.standby_server = self.pids, server(color)
        self.event(ev.Started(ref=who, role=ev.Role.STANDBY, pid=known.standby, color=Color(color)))
        known.ready = server(color) not in self.hit | self.down
        self.event(ev.Ready(ref=who, pid=known.standby))

    @precondition(lambda self: self.tasks)
    @rule(
        data=st.data(),
        what=st.sampled_from([What.CULPRIT, What.HANDLING, What.SERVER_GONE, What.RECREATING, What.DAEMON_GONE]),
        named=st.booleans(),
    )
    def server_log(self, data: st.DataObject, what: What, named: bool) -> None:
        who = self.pick(data)
        near = self.tasks[who].server
        if what is What.SERVER_GONE or (what in (What.HANDLING, What.CULPRIT) and not self.cut):
            self.struck(near)
        client = Client(pid=self.tasks[who].active or 1, task=who, job=who.job) if named else None
        self.see(what, near, Source.SERVER_LOG, client)

    @precondition(lambda self: self.tasks)
    @rule(data=st.data(), code=st.sampled_from([700, 719, 716, 806, 226, 810, 12345]))
    def report(self, data: st.DataObject, code: int) -> None:
        who = self.pick(data)
        known = self.tasks[who]
        known.failed = True
        self.see(What.CUDA, None, Source.CLIENT, Client(pid=known.active, task=who, job=who.job), cuda=code)

    @rule(data=st.data(), number=st.sampled_from([31, 13, 45, 94, 109, 43, 99999]), named=st.booleans())
    def xid(self, data: st.DataObject, number: int, named: bool) -> None:
        client = None
        if named and self.tasks:
            who = self.pick(data)
            client = Client(pid=self.tasks[who].active, task=who, job=who.job)
        self.see(What.XID, None, Source.KMSG, client, xid=number)

    @precondition(lambda self: not self.broken and len(self.tasks) > 2)
    @rule(
        number=st.sampled_from([79, 95]), source=st.sampled_from([Source.KMSG, Source.NVML]), really=st.integers(0, 4)
    )
    def break_gpu(self, number: int, source: Source, really: int) -> None:
        if really:
            return  # seldom: little happens afterwards
        self.broken = True
        self.see(What.XID, None, source, None, xid=number)

    @precondition(lambda self: self.tasks)
    @rule(data=st.data(), status=st.sampled_from([0, 9, 256]), old=st.booleans())
    def exit(self, data: st.DataObject, status: int, old: bool) -> None:
        who = self.pick(data)
        known = self.tasks[who]
        if old and known.left:
            self.event(ev.Exited(ref=who, role=ev.Role.ACTIVE, pid=known.left[-1], status=status))
        if old or known.ended:
            return
        known.ended, known.failed = True, known.failed or status != 0
        self.event(ev.Exited(ref=who, role=ev.Role.ACTIVE, pid=known.active, status=status))
        known.over = known.over or status == 0

    @precondition(lambda self: self.tasks)
    @rule(data=st.data())
    def standby_ends(self, data: st.DataObject) -> None:
        who = self.pick(data)
        known = self.tasks[who]
        if known.standby:
            pid, known.standby, known.standby_server, known.ready = known.standby, 0, None, False
            self.event(ev.Exited(ref=who, role=ev.Role.STANDBY, pid=pid, status=9))

    @precondition(lambda self: self.tasks)
    @rule(data=st.data(), fails=st.booleans(), right=st.booleans())
    def answer(self, data: st.DataObject, fails: bool, right: bool) -> None:
        who = self.pick(data)
        told = self.tasks[who].told
        name = IncidentId(list(told)[-1] if told and right else "nonsense")
        if fails:
            self.event(ev.RungFailed(ref=who, incident=name, rung="x", reason="tried"))
        else:
            self.event(ev.Stepped(ref=who, incident=name, seq=1, ms=1.0))

    @precondition(lambda self: self.tasks)
    @rule(data=st.data())
    def spill(self, data: st.DataObject) -> None:
        self.event(ev.Spilled(ref=self.pick(data), seq=1))

    @rule(color=st.sampled_from(["a", "b", "q1"]), sight=st.sampled_from(Sight), late=st.booleans())
    def state_seen(self, color: str, sight: Sight, late: bool) -> None:
        if sight is Sight.FAULT:
            self.struck(server(color))
        asked = self.node.now - (1.0 if late else 0.0)
        self.event(ev.ServerSeen(server=server(color), sight=sight, asked=asked))

    @precondition(lambda self: self.opening)
    @rule(ok=st.booleans())
    def opened(self, ok: bool) -> None:
        one = self.opening.pop(0)
        (self.down.discard if ok else self.down.add)(one)
        self.event(ev.ServerOpened(server=one, ok=ok, detail="" if ok else "no"))

    @rule(job=st.integers(1, 4), ok=st.booleans())
    def slurm(self, job: int, ok: bool) -> None:
        if not ok:
            self.refused.add(JobId(job))
        self.event(ev.SlurmAnswered(ask=ev.Ask.REQUEUE, job=JobId(job), ok=ok, detail="because"))

    @rule(seconds=st.sampled_from([0.001, 0.05, 0.2, 3.0, 40.0]))
    def time_passes(self, seconds: float) -> None:
        end = self.node.now + seconds
        timers = self.node.timers
        for _ in range(25):
            key = min(timers, key=lambda name: timers[name], default=None)
            if key is None or timers[key] > end:
                break
            self.node.now = max(self.node.now, timers.pop(key))
            self.event(ev.TimerFired(key=key))
        self.node.now = end

    @precondition(lambda self: self.tasks)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        who = self.pick(data)
        del self.tasks[who]
        self.culprits.pop(who, None)
        self.event(ev.Gone(ref=who))
        if not any(other.job == who.job for other in self.tasks):
            self.requeued.discard(who.job)
            self.refused.discard(who.job)
        if not self.tasks:
            self.hit.clear()
            self.down.clear()
            self.broken = False

    # ------------------------------------------------------------ helpers
    def pick(self, data: st.DataObject) -> TaskRef:
        return data.draw(st.sampled_from(sorted(self.tasks)))

    def struck(self, one: ServerId) -> None:
        self.hit.add(one)
        for known in self.tasks.values():
            known.failed = known.failed or (known.server == one and not self.cut)

    def see(self, what: What, near: ServerId | None, source: Source, client: Client | None, **fields: object) -> None:
        effects = self.node.see(what, source=source, color=near.color if near else None, client=client, **fields)
        self.check(effects)

    def event(self, event: ev.Event) -> None:
        effects = self.node.do(event)
        self.check(effects)

    # ------------------------------------------------------------ the rules
    def check(self, effects: tuple[fx.Effect, ...]) -> None:
        requeues = [one for one in effects if isinstance(one, fx.Verdict) and one.action.value == "requeue"]
        verdicts = [one for one in effects if isinstance(one, fx.Verdict)]
        for verdict in verdicts:
            if verdict.part is Part.CULPRIT:
                wish = self.tasks[verdict.ref].options.on_culprit
                self.named.setdefault(verdict.incident, set()).add((verdict.ref.job, wish))
        self.justified(requeues)
        for one in effects:
            match one:
                case fx.Verdict():
                    self.verdict(one, verdicts)
                case fx.Place():
                    self.place(one)
                case fx.Refuse():
                    self.tasks[one.ref].over = True
                case fx.Open():
                    self.opening.append(one.server)
                    self.down.discard(one.server)
                case _:
                    pass
        for one in effects:
            match one:
                case fx.Journal() if one.event in ("server.rebuilt", "server.replaced") and "ms" in one.fields:
                    domain, gpu, color = str(one.fields["server"]).split("/")
                    assert (domain, gpu) == ("u1001", f"g{GPU}")
                    self.hit.discard(server(color))
                    self.down.discard(server(color))
                case _:
                    pass

    def place(self, one: fx.Place) -> None:
        known = self.tasks[one.ref]
        assert one.server not in self.culprits.values(), "placed on a culprit's server"
        assert one.server.color in ("a", "b"), "placed in quarantine"
        known.server = one.server

    def verdict(self, one: fx.Verdict, all_of_them: list[fx.Verdict]) -> None:
        known, action = self.tasks[one.ref], one.action.value
        assert not known.over, "a verdict after the last word"
        told = known.told.setdefault(one.incident, [])
        self.monotone(told, action)
        mate = action == "requeue" and any(
            other.ref.job == one.ref.job and other.ref != one.ref for other in all_of_them
        )
        hit = (known.server in self.hit and not self.cut) or known.failed or self.broken
        assert hit or told or mate or one.ref.job in self.requeued, f"a verdict for a task that was not hit: {one}"
        if action == "fail" and one.part in (Part.BYSTANDER, Part.UNKNOWN, Part.SUSPECT):
            assert self.broken or not self.open_rungs(one, known, told), (
                f"failed with {self.open_rungs(one, known, told)} open"
            )
        if one.server is not None:
            self.move(one, known)
        told.append(action)
        if action in _ENDS:
            known.over = True
        if action == "requeue":
            self.requeued.add(one.ref.job)

    def move(self, one: fx.Verdict, known: Known) -> None:
        assert one.server is not None
        assert one.server not in self.down, "sent to a server that is down"
        others = {
            ref for ref, task in self.tasks.items() if task.server == one.server and ref != one.ref and not task.over
        }
        if one.part is Part.CULPRIT:
            assert one.action.value == "quarantine", "a culprit is moved by quarantine only"
            assert not others, "a culprit on a server that others use"
            assert one.server.color not in ("a", "b"), "a culprit on a server of the pair"
            self.culprits[one.ref] = one.server
        else:
            there = {ref for ref, place in self.culprits.items() if place == one.server and not self.tasks[ref].over}
            assert not there - {one.ref}, "placed on a culprit's server"
            self.culprits.pop(one.ref, None)
        first = not any(action in _RUNG_OF and action != "requeue" for action in known.told[one.incident])
        if first and "quarantine" not in known.told[one.incident]:
            known.retries += 1
            assert known.retries <= known.options.retries or known.told[one.incident], "more recoveries than allowed"
        known.server = one.server
        known.failed, known.ended = False, False
        known.left.append(known.active)
        if one.action.value == "promote":
            known.active = known.standby
            known.standby, known.standby_server, known.ready = 0, None, False
        else:
            known.active, known.session = 0, False
            if known.standby_server == one.server:
                known.standby, known.standby_server, known.ready = 0, None, False

    def monotone(self, told: list[str], action: str) -> None:
        """Rungs only go down; one last word."""
        assert not set(told) & set(_ENDS), f"{action} after {told}"
        rungs = [_RUNG_OF[one] for one in told if one in _RUNG_OF]
        if action in _RUNG_OF and action != "requeue":
            assert "requeue" in told or all(_ORDER.index(_RUNG_OF[action]) > _ORDER.index(rung) for rung in rungs), told
            assert _RUNG_OF[action] not in rungs, f"{action} again after {told}"

    def justified(self, requeues: list[fx.Verdict]) -> None:
        """A job is requeued only when one of its tasks has no faster way, or is a culprit that wants it."""
        for job in {one.ref.job for one in requeues} - self.requeued:
            mine = [one for one in requeues if one.ref.job == job]
            assert self.broken or any(self.must_requeue(one) for one in mine), f"requeued without need: {mine}"
            wishes = {wish for who, wish in self.named.get(mine[0].incident, ()) if who == job}
            assert self.broken or not wishes or OnCulprit.REQUEUE in wishes, f"its culprit is brought back: {mine}"

    def must_requeue(self, one: fx.Verdict) -> bool:
        known = self.tasks[one.ref]
        if one.part is Part.CULPRIT:
            return known.options.on_culprit is OnCulprit.REQUEUE
        told = known.told.get(one.incident, [])
        return not [rung for rung in self.open_rungs(one, known, told) if rung is not Rung.REQUEUE]

    def open_rungs(self, one: fx.Verdict, known: Known, told: list[str]) -> list[Rung]:
        """The rungs that an onlooker holds to be open to this task now."""
        tried = [_RUNG_OF[action] for action in told if action in _RUNG_OF]
        left = known.retries < known.options.retries or any(rung is not Rung.REQUEUE for rung in tried)
        alone = known.mpi
        possible = any(server(color) not in self.down for color in ("a", "b") if self.exists(color))
        below = max((_ORDER.index(rung) for rung in tried if rung is not Rung.REQUEUE), default=-1)
        found: list[Rung] = []
        for rung in known.options.recover:
            if rung in tried or _ORDER.index(rung) < below or rung is Rung.REQUEUE:
                continue
            if alone or not left:
                continue
            if rung is Rung.RESTORE and not known.session:
                continue
            if rung is Rung.STANDBY and not self.standby_good(known):
                continue
            if rung is not Rung.STANDBY and not possible:
                continue
            found.append(rung)
        return found

    def standby_good(self, known: Known) -> bool:
        place = known.standby_server
        pair = next(iter(self.node.state.pairs.values()), None)
        return (
            known.ready
            and place is not None
            and place not in self.hit | self.down
            and place != known.server
            and pair is not None
            and place.color in pair.colors
            and not self.crowded(place)
        )

    def crowded(self, place: ServerId) -> bool:
        """Suspects are kept apart: an onlooker cannot say that the standby is open when others run there."""
        return any(task.server == place and not task.over for task in self.tasks.values())

    def exists(self, color: str) -> bool:
        return any(Color(color) in pair.colors for pair in self.node.state.pairs.values())


_SETTINGS = settings(
    max_examples=250,
    stateful_step_count=40,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)


class Partitioned(Hostile):
    """The same in a domain with SM partitions."""

    cut = True


@pytest.mark.parametrize("kind", [Hostile, Partitioned])
def test_no_order_of_events_breaks_a_rule(kind: type[Hostile]) -> None:
    run_state_machine_as_test(kind, settings=_SETTINGS)


# ---------------------------------------------------------------- the rules notice when they are broken
def _climb_too_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requeue although a faster rung is open."""

    def climb(task: object, means: policy.Means, tried: tuple[Rung, ...], counted: bool) -> object:
        return (Rung.REQUEUE, ()) if not means.requeue else (None, ("no",))

    monkeypatch.setattr(policy, "climb", climb)


def _culprit_beside_bystanders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Send the culprit to the spare instead of a quarantine server."""

    def spare(turn: Turn, near: ServerId) -> ServerId:
        return replace(near, color=Color("b" if near.color == "a" else "a"))

    monkeypatch.setattr(servers, "open_quarantine", spare)


def _everyone_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treat tasks of other servers as hit."""
    monkeypatch.setattr("resilience.machine.decide.look", _careless_look)


def _careless_look(turn: Turn, name: IncidentId) -> None:
    incident = turn.incidents.get(name)
    if incident is not None:
        for who in sorted(turn.tasks):
            if who not in turn.incidents[name].cases and not turn.tasks[who].over:
                recover.begin(turn, name, who, Part.BYSTANDER)


def _one_fate_for_all_partitions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treat a server with SM partitions as any other."""
    monkeypatch.setattr(servers, "partitioned", lambda turn, server: False)


def _two_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Say `fail` twice."""
    real = verdicts.fail

    def twice(turn: Turn, name: IncidentId, who: TaskRef, reason: str) -> None:
        real(turn, name, who, reason)
        real(turn, name, who, reason)

    monkeypatch.setattr(verdicts, "fail", twice)


def _into_the_quarantine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let bystanders go to any server that is up, a culprit's included."""
    real = servers.target

    def anywhere(turn: Turn, hit: ServerId, task: object, own: ServerId | None) -> tuple[ServerId | None, bool]:
        pair = turn.pairs[hit.domain, hit.gpu]
        for color in pair.servers:
            if color.startswith("q") and pair.health(color).value == "up":
                return pair.server(color), True
        return real(turn, hit, task, own)  # type: ignore[arg-type]

    monkeypatch.setattr(servers, "target", anywhere)


@pytest.mark.parametrize(
    "mutation",
    [_climb_too_soon, _culprit_beside_bystanders, _everyone_is_told, _two_last_words],
)
def test_breaking_a_rule_is_noticed(
    monkeypatch: pytest.MonkeyPatch, mutation: Callable[[pytest.MonkeyPatch], None]
) -> None:
    mutation(monkeypatch)
    quick = settings(_SETTINGS, max_examples=600, report_multiple_bugs=False, phases=(Phase.explicit, Phase.generate))
    with pytest.raises(AssertionError):
        run_state_machine_as_test(Hostile, settings=quick)


def test_a_fault_that_is_spread_over_partitions_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    _one_fate_for_all_partitions(monkeypatch)
    quick = settings(_SETTINGS, max_examples=600, report_multiple_bugs=False, phases=(Phase.explicit, Phase.generate))
    with pytest.raises(AssertionError, match="not hit"):
        run_state_machine_as_test(Partitioned, settings=quick)


def _story_of_a_quarantine() -> None:
    """A culprit goes on in quarantine, then a second fault moves a bystander."""
    play = Hostile()
    for job, fate in ((1, OnCulprit.QUARANTINE), (2, OnCulprit.FAIL), (3, OnCulprit.FAIL)):
        play.join(job, 0, True, False, True, 0, tuple(Rung), fate, ("a", "b"))
    for job, where in ((1, "a"), (2, "b")):
        who = ref(job)
        client = Client(pid=play.tasks[who].active, task=who, job=who.job)
        play.struck(server(where))
        play.see(What.CULPRIT, server(where), Source.SERVER_LOG, client)
        play.see(What.XID, None, Source.KMSG, client, xid=31)
        if job == 1:
            play.opened(True)
            assert play.tasks[who].server == server("q1")
            play.state_seen("a", Sight.FAULT, False)
            play.state_seen("a", Sight.ACTIVE, False)
    assert play.tasks[ref(3)].server == server("a")


def test_a_bystander_stays_out_of_a_culprits_quarantine(monkeypatch: pytest.MonkeyPatch) -> None:
    _story_of_a_quarantine()
    _into_the_quarantine(monkeypatch)
    with pytest.raises(AssertionError, match="culprit's server"):
        _story_of_a_quarantine()
