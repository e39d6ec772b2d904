"""One incident as a timeline: lanes, what happened in each and when, times to detect, decide and recover. Pure.

Lanes come in the order sightings, agent, servers, tasks with their standbys, requests to Slurm. Times are seconds since the first
sighting, by the monotonic clock where every record has it: a wall clock that is set in between moves nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from resilience.model import records as rec
from resilience.model.ids import STEPS, ServerId, TaskRef
from resilience.model.incident import Action
from resilience.model.records.journal import Entry
from resilience.report import around
from resilience.report.evidence import Use, judged

SEEN, AGENT = "sightings", "agent"
MOST = 200
"""Timelines in one page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    number: int
    lane: str
    at: float
    kind: str
    """seen, rejected, decided, told, good, bad, plain."""
    text: str
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    lane: str
    start: float
    end: float
    kind: str
    """down, hit, back, good, slurm."""
    text: str


@dataclass(slots=True, kw_only=True)
class Timeline:
    incident: str
    began: float
    """Wall clock of the first record."""
    lanes: list[str] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    spans: list[Period] = field(default_factory=list)
    length: float = 0.0
    detect: float | None = None
    """Seconds from the first sighting, as its source dates it, to the incident."""
    decide: float | None = None
    recover: dict[str, float] = field(default_factory=dict)
    """Task → seconds."""
    attributed: rec.IncidentAttributed | None = None
    closed: rec.IncidentClosed | None = None
    words: str = ""
    """What the fault was."""


def build(entries: Iterable[Entry], incident: str) -> Timeline | None:
    """None when the records have nothing of this incident."""
    own = around.about(list(entries), incident)
    if not own:
        return None
    when = around.clock(own)
    start = min(when(entry) for entry in own)
    made = Timeline(incident=incident, began=own[0].wall)
    _facts(made, own)
    ordered = sorted(own, key=when)
    for number, entry in enumerate(ordered, 1):
        made.marks.append(_mark(entry, number, when(entry) - start, made.attributed))
    made.length = max([mark.at for mark in made.marks] + [0.001])
    opened = next((when(entry) - start for entry in own if isinstance(entry.record, rec.IncidentOpened)), None)
    sighted = any(isinstance(entry.record, rec.Sighting) for entry in own)
    made.detect = opened if sighted else None
    _spans(made, [(when(entry) - start, entry.record) for entry in ordered], opened or 0.0)
    lanes = {mark.lane for mark in made.marks} | {span.lane for span in made.spans}
    made.lanes = sorted(lanes, key=lambda lane: _place(lane, made))
    return made


def latest(entries: list[Entry], incidents: Iterable[str]) -> tuple[Timeline, ...]:
    """The timelines of the latest of these incidents, in order. Each looks at the records around its own only."""
    made = (build(window, name) for name, window in around.windows(entries, list(incidents)[-MOST:]))
    return tuple(one for one in made if one is not None)


def task_name(task: TaskRef) -> str:
    """`job 12 step batch task 0`, short."""
    return f"{task.job}.{STEPS.get(task.step, task.step)}.{task.task}"


def _server(server: ServerId) -> str:
    return f"server {rec.server_id(server)}"


def _facts(made: Timeline, own: list[Entry]) -> None:
    for entry in own:
        match entry.record:
            case rec.IncidentClassified() as one:
                made.words = one.words or made.words
            case rec.IncidentAttributed() as one:
                made.attributed = one
                made.decide = one.ms / 1000 if one.ms is not None else None
                made.words = made.words or one.words
            case rec.Recovered() as one if one.task is not None and one.ms is not None:
                made.recover[task_name(one.task)] = one.ms / 1000
            case rec.IncidentClosed() as one:
                made.closed = one
                made.words = one.fault or made.words
            case _:
                pass


def _mark(entry: Entry, number: int, at: float, decided: rec.IncidentAttributed | None) -> Mark:
    lane, kind, note = AGENT, "plain", ""
    match entry.record:
        case rec.Sighting() as seen:
            use, note = judged(seen, decided)
            lane, kind = SEEN, "rejected" if use is Use.REJECTED else "decided" if use is Use.COUNTS else "seen"
            note = note if use is Use.SILENT else f"{use.value}: {note}"
        case rec.IncidentAttributed():
            kind = "decided"
        case rec.Verdict() as one if one.task is not None:
            lane, kind = task_name(one.task), "bad" if one.action == Action.FAIL else "told"
        case rec.Recovered() as one if one.task is not None:
            lane, kind = task_name(one.task), "good"
        case rec.RecoveryFailed() as one if one.task is not None:
            lane, kind = task_name(one.task), "bad"
        case rec.TaskExit() as one if one.task is not None:
            lane = task_name(one.task) + (" standby" if one.role == "standby" else "")
        case rec.ServerUnavailable() | rec.ServerRebuilt() | rec.ServerReplaced() as one if one.server is not None:
            kind = "bad" if isinstance(one, rec.ServerUnavailable) or getattr(one, "ok", True) is False else "good"
            lane = _server(one.server)
        case rec.SlurmIntent() | rec.SlurmOutcome() as one:
            lane = _slurm(one)
            kind = "told" if isinstance(one, rec.SlurmIntent) else "good" if one.ok else "bad"
        case rec.BreakerOpen():
            kind = "bad"
        case _:
            pass
    return Mark(number=number, lane=lane, at=at, kind=kind, text=entry.sentence(), note=note)


def _slurm(record: rec.SlurmIntent | rec.SlurmOutcome) -> str:
    return f"Slurm: {record.ask or 'request'}" + (f" {record.job}" if record.job is not None else "")


def _spans(made: Timeline, events: list[tuple[float, rec.Record]], opened: float) -> None:
    """What lasts: a server that takes no clients, a task from the fault to its return, a request to Slurm."""
    since: dict[str, tuple[float, str, str]] = {}

    def begin(lane: str, at: float, kind: str, text: str) -> None:
        end(lane, at)
        since[lane] = at, kind, text

    def end(lane: str, at: float) -> None:
        if (held := since.pop(lane, None)) is not None:
            start, kind, text = held
            made.spans.append(Period(lane=lane, start=start, end=at, kind=kind, text=text))

    for at, record in events:
        match record:
            case rec.IncidentAttributed() if record.parts:
                for task in record.parts:
                    since.setdefault(task_name(task), (opened, "hit", "waits for its verdict"))
            case rec.IncidentOpened():
                for task in record.clients:
                    begin(task_name(task), at, "hit", "waits for its verdict")
            case rec.Verdict() if record.task is not None and not record.dry_run:
                begin(task_name(record.task), at, "back", f"told: {record.action}")
                if record.action == Action.PROMOTE:
                    begin(f"{task_name(record.task)} standby", at, "back", "takes over")
            case rec.Recovered() if record.task is not None:
                lane = task_name(record.task)
                if f"{lane} standby" in since:  # from now on it is the task
                    end(lane, at)
                    lane = f"{lane} standby"
                begin(lane, at, "good", "goes on")
            case rec.TaskExit() if record.task is not None and record.role != "standby":
                lane = task_name(record.task)
                if since.get(lane, (0, "", ""))[1] != "good":
                    end(lane, at)
            case rec.ServerUnavailable() if record.server is not None:
                begin(_server(record.server), at, "down", "takes no new clients")
            case rec.ServerRebuilt() | rec.ServerReplaced() if record.server is not None:
                end(_server(record.server), at)
            case rec.SlurmIntent():
                begin(_slurm(record), at, "slurm", "asked")
            case rec.SlurmOutcome():
                end(_slurm(record), at)
            case _:
                pass
    for lane in list(since):
        end(lane, made.length)


def _place(lane: str, made: Timeline) -> tuple[int, object]:
    if lane in (SEEN, AGENT):
        return (SEEN, AGENT).index(lane), 0
    if lane.startswith("server "):
        return 2, lane
    if lane.startswith("Slurm: "):
        return 4, next(mark.at for mark in made.marks if mark.lane == lane)
    job, step, task = lane.removesuffix(" standby").split(".")
    return 3, (int(job), step.rjust(10), int(task), lane.endswith(" standby"))
