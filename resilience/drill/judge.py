"""What the drill's job left, read and judged. Pure: files as texts, Slurm's record and the job's records as values.

A row that does not hold says what was seen instead.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from resilience.drill.bystander import LONGEST, expected
from resilience.drill.plan import CULPRIT, KEPT, LOOK, PLAIN
from resilience.model.ids import JobId, StepId, TaskId, TaskRef
from resilience.model.incident import Action
from resilience.model.records import IncidentAttributed, Record, Recovered, Verdict

_HOW: dict[str, str] = {
    Action.PROMOTE: "recovered on standby",
    Action.RESTORE: "restored from kept state",
    Action.RELAUNCH: "relaunched",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    what: str
    seen: str
    held: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """What the job left. `files` by name in the drill's directory, `records` of its faults, `spilled` directories of
    spilled state that nobody took away."""

    job: int
    state: str
    restarts: int
    files: Mapping[str, str]
    records: tuple[Record, ...]
    spilled: tuple[str, ...] = ()

    def word(self, name: str) -> str:
        return self.files.get(name, "").strip()

    def task(self, name: str) -> TaskRef | None:
        """The only task of a step."""
        step = self.word(f"{name}.step")
        return TaskRef(job=JobId(self.job), step=StepId(int(step)), task=TaskId(0)) if step.isdigit() else None

    def attributed(self) -> tuple[IncidentAttributed, ...]:
        return tuple(record for record in self.records if isinstance(record, IncidentAttributed))

    def last_line(self, name: str) -> str:
        """Of a step's output."""
        return (self.word(f"{name}.log").splitlines() or ["no output"])[-1][:160]


def rows(left: Left) -> list[Judgement]:
    """The judgement, one row for each thing that must hold."""
    return [
        _where(left),
        _culprit(left),
        _bystander(left, KEPT, "bystander that keeps state"),
        _bystander(left, PLAIN, "bystander that does not"),
        Judgement(
            what="the job",
            seen=f"{left.state}, {left.restarts} restarts",
            held=left.state == "COMPLETED" and not left.restarts,
        ),
        Judgement(what="left behind", seen=", ".join(left.spilled) or "nothing", held=not left.spilled),
    ]


def _where(left: Left) -> Judgement:
    fault = next(iter(left.attributed()), None)
    if fault is None:
        return Judgement(what="fault", seen="the job's records tell of none", held=False)
    observing = any(isinstance(record, Verdict) and record.dry_run for record in left.records)
    mode = "; recovery.mode is observe: nothing is recovered" if observing else ""
    return Judgement(
        what="fault", seen=f"seen on {fault.gpu}; isolation: {fault.isolation or 'unknown'}{mode}", held=not mode
    )


def _culprit(left: Left) -> Judgement:
    status = left.word(f"{CULPRIT}.status")
    if not status:
        return Judgement(what="culprit", seen=f"made no fault: {left.last_line(LOOK)}", held=False)
    named = {record.culprit for record in left.attributed() if record.culprit is not None}
    right = bool(named) and {who.task for who in named} == {left.task(CULPRIT)}
    who = "named" if right else f"named: {', '.join(sorted(map(str, named)))}" if named else "nobody was named"
    return Judgement(what="culprit", seen=f"{who}; exit status {status}", held=right and status != "0")


def _bystander(left: Left, name: str, what: str) -> Judgement:
    status, out = left.word(f"{name}.status"), left.word(f"{name}.out").split()
    if status != "0" or len(out) != 2:
        how = f"ended with status {status}" if status else "did not end"
        return Judgement(what=what, seen=f"{how}: {left.last_line(name)}", held=False)
    steps = int(out[0]) if out[0].isdigit() else 0
    right = 0 < steps <= LONGEST and out[1] == expected(steps)
    back = [record for record in left.records if isinstance(record, Recovered) and record.task == left.task(name)]
    how = (
        ", ".join(f"{_HOW.get(record.action, record.action)} in {record.ms:.1f} ms" for record in back) or "not touched"
    )
    bytes_of = "right" if right else "WRONG"
    return Judgement(what=what, seen=f"{how}; {bytes_of} bytes after {steps} steps", held=right)
