"""What belongs to an incident beside its own records: what its servers, tasks and requests to Slurm did meanwhile; and its clock. Pure."""

import math
from collections.abc import Callable, Collection, Iterable, Iterator

from resilience.model import records as rec
from resilience.model.ids import JobId, ServerId, TaskRef
from resilience.model.records.journal import Entry
from resilience.report import story

_EARLY = 10.0
"""A source's own time that is older than this was not read as it came."""
_AROUND = 2000
"""Records before and after an incident in which sightings and answers of Slurm are looked for."""
_FRAME = (rec.AgentStarted, rec.JobOpened, rec.JobClosed)
"""Records that every report needs: when jobs began, and when the clock did."""
_ANSWERS = 30.0
"""Seconds after an incident in which Slurm's answer to its last request is still looked for."""


def about(entries: list[Entry], incident: str) -> list[Entry]:
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
    known, asked = {id(entry) for entry in told}, set[tuple[str, JobId | None]]()
    found = []
    for place, entry in enumerate(entries):
        if id(entry) in known:
            found.append(entry)
            if isinstance(entry.record, rec.SlurmIntent):
                asked.add((entry.record.ask, entry.record.job))
        elif (
            not entry.record.incident
            and place >= first
            and (place <= last or story.between(told[-1], entry) <= _ANSWERS)
        ):
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


def belonging(
    entries: list[Entry], *, jobs: Collection[int] = (), incident: str = "", since: float = math.inf
) -> list[Entry]:
    """All that a story or a report of these jobs, of an incident, or of the incidents since a time is made from."""
    own = {incident} - {""}
    for entry in entries:
        if (name := entry.record.incident) and (entry.wall >= since or not entry.jobs().isdisjoint(jobs)):
            own.add(name)
    wanted = {id(entry) for entry in entries if entry.record.incident in own or not entry.jobs().isdisjoint(jobs)}
    wanted |= {id(entry) for entry in entries if isinstance(entry.record, _FRAME)}
    for name, window in windows(entries, own):
        wanted |= {id(entry) for entry in about(window, name)}
    return [entry for entry in entries if id(entry) in wanted]


def windows(entries: list[Entry], incidents: Iterable[str]) -> Iterator[tuple[str, list[Entry]]]:
    """Each of these incidents with the records around its own, in which all that belongs to it is."""
    places: dict[str, tuple[int, int]] = {}
    for place, entry in enumerate(entries):
        if name := entry.record.incident:
            places[name] = places.get(name, (place, place))[0], place
    for name in incidents:
        first, last = places.get(name, (0, 0))
        yield name, entries[max(0, first - _AROUND) : last + _AROUND]


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


def clock(own: list[Entry]) -> Callable[[Entry], float]:
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
