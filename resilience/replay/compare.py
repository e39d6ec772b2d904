"""What two journals of the same faults decided differently: culprits, and what each task was told last and how that ended."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from resilience.model import records as rec
from resilience.model.ids import ServerId, TaskRef
from resilience.model.records.journal import Entry
from resilience.report.timeline import task_name

_NEAR = 2.0
"""Seconds between the beginnings of one fault in two journals."""
ABSENT = "no such incident"


@dataclass(slots=True)
class Decided:
    """One incident as it was decided."""

    incident: str
    at: float
    server: ServerId | None
    culprit: str = "not decided"
    told: dict[TaskRef, str] = field(default_factory=dict)
    outcomes: dict[TaskRef, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One decision. The same in both when `one` is `two`."""

    incident: str
    what: str
    """culprit, or a task."""
    one: str
    two: str


def decisions(entries: Iterable[Entry]) -> list[Decided]:
    found: dict[str, Decided] = {}
    for entry in entries:
        record, at = entry.record, entry.wall if entry.mono is None else entry.mono
        if isinstance(record, rec.IncidentOpened):
            found[record.incident] = Decided(incident=record.incident, at=at, server=record.server)
        made = found.get(record.incident)
        if made is None:
            continue
        match record:
            case rec.IncidentAttributed():
                made.culprit = _who(record)
            case rec.Verdict() if record.task is not None and record.action:
                made.told[record.task] = f"{record.action} (only written down)" if record.dry_run else record.action
            case rec.IncidentClosed():
                if record.same_as:
                    del found[record.incident]
                made.outcomes = dict(record.outcomes)
            case _:
                pass
    return list(found.values())


def _who(record: rec.IncidentAttributed) -> str:
    if record.blameless:
        return "nobody's doing"
    if record.culprit is not None:
        return f"{record.culprit}, {record.confidence}"
    return f"one of {len(record.suspects)}" if record.suspects else "not known"


def rows(one: list[Decided], two: list[Decided]) -> list[Comparison]:
    """Every decision of either, in the order of the first."""
    made: list[Comparison] = []
    left = list(two)
    for here in one:
        near = [other for other in left if other.server == here.server and abs(other.at - here.at) <= _NEAR]
        there = min(near, key=lambda other: abs(other.at - here.at), default=None)
        if there is None:
            made.append(Comparison(incident=here.incident, what="culprit", one=here.culprit, two=ABSENT))
            continue
        left.remove(there)
        made.append(Comparison(incident=here.incident, what="culprit", one=here.culprit, two=there.culprit))
        for task in sorted({*here.told, *there.told}):
            made.append(
                Comparison(incident=here.incident, what=task_name(task), one=_fate(here, task), two=_fate(there, task))
            )
    made += [Comparison(incident=other.incident, what="culprit", one=ABSENT, two=other.culprit) for other in left]
    return made


def _fate(made: Decided, task: TaskRef) -> str:
    told, outcome = made.told.get(task, "nothing"), made.outcomes.get(task, "")
    return f"{told}, {outcome}" if outcome else told


def differ(made: Iterable[Comparison]) -> list[Comparison]:
    return [row for row in made if row.one != row.two]
