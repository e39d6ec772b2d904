"""A span of a journal in figures: faults by class and GPU, who did it, how tasks came back, GPU time kept. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median

from resilience.machine.policy import ACTIONS
from resilience.metrics.saved import Saved, Savings
from resilience.model import records as rec
from resilience.model.ids import JobId, TaskRef
from resilience.model.incident import Action, Confidence, Outcome, Part
from resilience.model.records.journal import Entry

NOBODY = "nobody's doing"
UNNAMED = "not known"
_RUNGS = {action.value: rung.value for rung, action in ACTIONS.items()} | {Action.QUARANTINE.value: "quarantine"}


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultLine:
    """One incident in a line."""

    incident: str
    wall: float
    kind: str
    gpu: str
    words: str
    by: str
    sure: str
    victims: int
    """Tasks that were in it and are not known to have caused it."""
    ended: str


@dataclass(slots=True, kw_only=True)
class Overview:
    first: float = 0.0
    last: float = 0.0
    faults: list[FaultLine] = field(default_factory=list)
    endings: Counter[str] = field(default_factory=Counter)
    """How it ended for tasks that did not cause a fault: the rung by which they came back, or the outcome."""
    times: dict[str, list[float]] = field(default_factory=dict)
    """Rung → seconds of each recovery."""
    saved: list[Saved] = field(default_factory=list)
    opened: bool = False
    """Whether the records tell of jobs' beginnings, without which nothing can be counted as kept."""
    users: dict[JobId, int] = field(default_factory=dict)
    """Job → uid, as far as known."""

    def classes(self) -> Counter[str]:
        return Counter(fault.kind for fault in self.faults)

    def gpus(self) -> Counter[str]:
        return Counter(fault.gpu for fault in self.faults)

    def certainty(self) -> Counter[str]:
        return Counter(fault.sure for fault in self.faults)

    def culprits(self) -> list[tuple[str, int]]:
        return Counter(fault.by for fault in self.faults if fault.by not in (NOBODY, UNNAMED)).most_common()

    def medians(self) -> dict[str, float]:
        return {rung: median(times) for rung, times in self.times.items()}

    def saved_hours(self) -> float:
        return sum(one.seconds for one in self.saved) / 3600


def build(entries: Iterable[Entry], since: float = 0.0, incidents: frozenset[str] | None = None) -> Overview:
    """Figures of the incidents that ended at or after `since`, or of the named ones. What lies before is read for jobs' beginnings."""
    made, savings = Overview(), Savings()
    rungs: dict[tuple[str, object], str] = {}
    told: dict[tuple[str, TaskRef], str] = {}
    decided: dict[str, rec.IncidentAttributed] = {}
    for entry in entries:
        record = entry.record
        if entry.wall >= since:
            made.first = made.first or entry.wall
            made.last = entry.wall
        kept = savings.take(entry)
        counts = entry.wall >= since and (incidents is None or record.incident in incidents)
        match record:
            case rec.JobOpened() if record.job is not None:
                made.opened = True
                if record.uid is not None:
                    made.users[record.job] = record.uid
            case rec.IncidentAttributed():
                decided[record.incident] = record
            case rec.Verdict() if record.task is not None and not record.dry_run:
                told[record.incident, record.task] = record.action
            case rec.Recovered() if record.task is not None:
                rung = _RUNGS.get(record.action, record.action or "other")
                rungs[record.incident, record.task] = rung
                if counts and record.ms is not None:
                    made.times.setdefault(rung, []).append(record.ms / 1000)
            case rec.IncidentClosed() if counts and not record.same_as:
                made.saved += kept
                outcomes = {task: _outcome(record, task, told.get((record.incident, task))) for task in record.outcomes}
                made.faults.append(_fault(entry.wall, record, outcomes, decided.get(record.incident)))
                for task, outcome in outcomes.items():
                    if record.parts.get(task) != Part.CULPRIT:
                        back = outcome == Outcome.RECOVERED
                        made.endings[rungs.get((record.incident, task), outcome) if back else outcome] += 1
            case _:
                pass
    return made


def of_job(entries: Iterable[Entry], job: JobId) -> Overview:
    """Figures of the incidents that a job was in. An end that no record tells of, as beside a job's output, follows from the rest."""
    every = list(entries)
    names = dict.fromkeys(one.record.incident for one in every if one.record.incident and job in one.jobs())
    closed = {one.record.incident for one in every if isinstance(one.record, rec.IncidentClosed)}
    ends = [_end(every, name) for name in names if name not in closed]
    made = build([*every, *ends], incidents=frozenset(names))
    times = [entry.wall for entry in every if job in entry.jobs()] or [0.0]
    made.first, made.last = times[0], times[-1]
    made.saved = [one for one in made.saved if one.job == job]
    return made


def merged(parts: Iterable[Overview]) -> Overview:
    """The figures of several nodes, each made from its own records, as one."""
    made = Overview()
    for part in parts:
        made.first = min(filter(None, (made.first, part.first)), default=0.0)
        made.last = max(made.last, part.last)
        made.faults += part.faults
        made.endings += part.endings
        for rung, times in part.times.items():
            made.times.setdefault(rung, []).extend(times)
        made.saved += part.saved
        made.opened |= part.opened
        made.users |= part.users
    made.faults.sort(key=lambda fault: fault.wall)
    return made


def _end(entries: list[Entry], incident: str) -> Entry:
    """How an incident ended for one job, from what the job's own records say of it."""
    own = [entry for entry in entries if entry.record.incident == incident]
    parts: dict[TaskRef, str] = {}
    outcomes: dict[TaskRef, str] = {}
    for entry in own:
        match entry.record:
            case rec.IncidentAttributed() as one:
                parts = dict(one.parts)
            case rec.Verdict() as one if one.action == Action.REQUEUE and one.task is not None:
                outcomes[one.task] = Outcome.GONE
            case rec.Verdict() as one if one.task is not None:
                outcomes.pop(one.task, None)
            case rec.Recovered() as one if one.task is not None:
                outcomes[one.task] = Outcome.RECOVERED
            case rec.JobAccounted() as one if one.outcome:
                back = {task: outcome for task, outcome in outcomes.items() if outcome == Outcome.RECOVERED}
                outcomes = {task: one.outcome for task in parts if task.job == one.job} | back
            case _:
                pass
    record = rec.IncidentClosed(incident=incident, parts=parts, outcomes=outcomes)
    return Entry(event=record.EVENT, wall=own[-1].wall, record=record)


def _outcome(closed: rec.IncidentClosed, task: TaskRef, told: str | None) -> str:
    """A task that was told to be requeued is mostly gone before Slurm has answered."""
    outcome = closed.outcomes[task]
    return Outcome.REQUEUED if outcome == Outcome.GONE and told == Action.REQUEUE else outcome


def _fault(
    wall: float, closed: rec.IncidentClosed, told: Mapping[TaskRef, str], decided: rec.IncidentAttributed | None
) -> FaultLine:
    sure = closed.confidence or (decided.confidence if decided else "")
    blameless = closed.blameless or (decided is not None and decided.blameless)
    culprit = decided.culprit if decided else None
    parts = closed.parts or (decided.parts if decided else {})
    outcomes = Counter(told.values())
    return FaultLine(
        incident=closed.incident,
        wall=wall,
        kind=closed.fault_class or (decided.fault if decided else "") or "unknown",
        gpu=closed.gpu or (decided.gpu if decided else "") or "unknown",
        words=closed.fault or (decided.words if decided else ""),
        by=NOBODY if blameless else str(culprit) if culprit else UNNAMED,
        sure="blameless" if blameless else UNNAMED if sure in ("", Confidence.NONE) else sure,
        victims=sum(part != Part.CULPRIT for part in parts.values()),
        ended=", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items())) or closed.outcome,
    )
