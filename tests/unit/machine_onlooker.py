"""An onlooker at the machine: what it can know of tasks and servers, and the rules, checked on every effect.

Its bookkeeping is its own and knows only the events and the effects.
"""

from dataclasses import dataclass, field

from hypothesis.stateful import RuleBasedStateMachine

from resilience.model import effect as fx
from resilience.model import event as ev
from resilience.model.ids import Color, IncidentId, JobId, ServerId, TaskRef
from resilience.model.incident import Outcome, Part
from resilience.model.observation import Client, Source, What
from resilience.model.options import JobOptions, OnCulprit, Rung
from resilience.model.records import ServerRebuilt, ServerReplaced
from resilience.model.settings import Recovery
from resilience.model.timer import RungDue, SpillDue, Unanswered
from resilience.model.world import Requeue
from tests.unit.machine_kit import GPU, Node, server

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


class Onlooker(RuleBasedStateMachine):
    """Passes events on and checks what comes out; who plays the node is for another to say."""

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
        self.gone: set[ServerId] = set()
        """Servers whose control daemon has ended: nobody can join them till they are opened anew."""
        self.broken = False
        self.requeued: set[JobId] = set()
        self.refused: set[JobId] = set()
        self.opening: list[ServerId] = []
        self.culprits: dict[TaskRef, ServerId] = {}
        self.named: dict[IncidentId, set[tuple[JobId, OnCulprit]]] = {}
        """Jobs of culprits by incident, and what they want to become of them."""

    def struck(self, one: ServerId) -> None:
        self.hit.add(one)
        for known in self.tasks.values():
            known.failed = known.failed or (known.server == one and not self.cut)

    def see(self, what: What, near: ServerId | None, source: Source, client: Client | None, **fields: object) -> None:
        color = near.color if near else None
        effects = self.node.see(what, source=source, color=color, client=client, **fields)  # type: ignore[arg-type]
        self.check(effects)

    def event(self, event: ev.Event) -> None:
        effects = self.node.do(event)
        self.check(effects)

    # ------------------------------------------------------------ the rules
    def check(self, effects: tuple[fx.Effect, ...]) -> None:
        self.bounded()
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
                    self.gone.discard(one.server)
                case _:
                    pass
        for one in effects:
            match one:
                case fx.WriteJournal(record=ServerRebuilt() | ServerReplaced() as up) if up.ms is not None:
                    assert up.server is not None
                    assert (up.server.domain, up.server.gpu) == ("u1001", GPU)
                    self.hit.discard(up.server)
                    self.down.discard(up.server)
                case _:
                    pass

    def bounded(self) -> None:
        """Whatever is waited for of a supervisor or of Slurm has a timer that ends the wait."""
        state, timers = self.node.state, self.node.timers
        for job in state.jobs.values():
            waits: dict[Requeue, type[SpillDue | Unanswered]] = {
                Requeue.SPILLING: SpillDue,
                Requeue.ASKED: Unanswered,
            }
            wait = waits.get(job.requeue) if job.requeue else None
            assert wait is None or wait(job.job) in timers, f"{job} has no timer"
        for task in state.tasks.values():
            incident = state.incidents.get(task.incident) if task.incident else None
            case = incident.cases.get(task.ref) if incident else None
            if incident and case and case.outcome is Outcome.TOLD and case.due and not task.over:
                assert RungDue(incident.id, task.ref) in timers, f"{case} has no timer"

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
        lost = self.down | self.gone
        possible = any(server(color) not in lost for color in ("a", "b") if self.exists(color))
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
