"""One incident as a timeline: lanes, what happened in each and when, times to detect, decide and recover. Pure.

Lanes come in the order sightings, agent, servers, tasks with their standbys, requests to Slurm. Times are seconds since the first
sighting, by the monotonic clock where every record has it: a wall clock that is set in between moves nothing.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from resilience.model import records as rec
from resilience.model.ids import STEPS, JobId, ServerId, TaskRef
from resilience.model.incident import Action
from resilience.model.records.journal import Entry
from resilience.report import story
from resilience.report.evidence import Use, judged

SEEN, AGENT = "sightings", "agent"
_EARLY = 10.0
"""A source's own time that is older than this was not read as it came."""
MOST = 200
"""Timelines in one page."""
_AROUND = 2000
"""Records before and after an incident in which sightings and answers of Slurm are looked for."""
_ANSWERS = 30.0
"""Seconds after an incident in which Slurm's answer to its last request is still looked for."""


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
class Span:
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
    spans: list[Span] = field(default_factory=list)
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
    own = _about(list(entries), incident)
    if not own:
        return None
    when = _clock(own)
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
    names = list(incidents)[-MOST:]
    places: dict[str, tuple[int, int]] = {}
    for place, entry in enumerate(entries):
        if name := entry.record.incident:
            places[name] = places.get(name, (place, place))[0], place
    made = []
    for name in names:
        first, last = places.get(name, (0, 0))
        around = entries[max(0, first - _AROUND) : last + _AROUND]
        if (one := build(around, name)) is not None:
            made.append(one)
    return tuple(made)


def task_name(task: TaskRef) -> str:
    """`job 12 step batch task 0`, short."""
    return f"{task.job}.{STEPS.get(task.step, task.step)}.{task.task}"


def _server(server: ServerId) -> str:
    return f"server {rec.server_id(server)}"


def _about(entries: list[Entry], incident: str) -> list[Entry]:
    """The incident's own records and sightings, and what its servers, tasks and requests to Slurm did meanwhile."""
    told = story.of_incident(entries, incident)
    if not told:
        return []
    servers: set[ServerId] = set()
    jobs: set[JobId] = set()
    for entry in told:
        record = entry.record
        if isinstance(record, rec.IncidentOpened | rec.Verdict) and record.server is not None:
            servers.add(record.server)
        if record.incident == incident:
            jobs |= {task.job for task in _tasks(record)}
    begun = next(id(entry) for entry in told if entry.record.incident == incident)
    places = {id(entry): place for place, entry in enumerate(entries)}
    first, last = places[begun], places[id(told[-1])]
    patience = story.clock(told[-1]) + _ANSWERS
    known, asked = {id(entry) for entry in told}, set[tuple[str, JobId | None]]()
    found = []
    for place, entry in enumerate(entries):
        if id(entry) in known:
            found.append(entry)
        elif not entry.record.incident and place >= first and (place <= last or story.clock(entry) <= patience):
            match entry.record:
                case rec.ServerUnavailable() | rec.ServerRebuilt() | rec.ServerReplaced() as one:
                    belongs = one.server in servers and place <= last
                case rec.TaskExit() as one:
                    belongs = one.task is not None and one.task.job in jobs and place <= last
                case rec.SlurmIntent() as one:
                    belongs = one.job in jobs and place <= last
                    asked |= {(one.ask, one.job)} if belongs else set()
                case rec.SlurmOutcome() as one:
                    belongs = (one.ask, one.job) in asked
                    asked.discard((one.ask, one.job))
                case _:
                    belongs = False
            if belongs:
                found.append(entry)
    return found


def _tasks(record: rec.Record) -> Iterable[TaskRef]:
    match record:
        case rec.IncidentOpened():
            return record.clients
        case rec.IncidentClosed():
            return record.outcomes
        case rec.IncidentAttributed():
            return record.parts
        case rec.Verdict() | rec.Recovered() | rec.RecoveryFailed():
            return (record.task,) if record.task is not None else ()
        case _:
            return ()


def _clock(own: list[Entry]) -> Callable[[Entry], float]:
    by_mono = all(entry.mono is not None for entry in own)

    def when(entry: Entry) -> float:
        now = entry.mono if by_mono and entry.mono is not None else entry.wall
        earlier = None
        match entry.record:
            case rec.Sighting() as seen:
                earlier = seen.at_mono if by_mono else seen.at
            case rec.Recovered() as back if by_mono:
                earlier = back.done_mono
            case _:
                pass
        return earlier if earlier is not None and 0 <= now - earlier <= _EARLY else now

    return when


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
            made.spans.append(Span(lane=lane, start=start, end=at, kind=kind, text=text))

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
