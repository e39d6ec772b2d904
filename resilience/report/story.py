"""An incident or a job as a story in plain words, from the entries of a journal. Pure.

Each record has its own sentence; nothing in the journal is left out of a story.
"""

from collections.abc import Collection, Iterable
from itertools import pairwise

from resilience.model.ids import ServerId
from resilience.model.records import IncidentOpened, Sighting
from resilience.model.records.journal import Entry
from resilience.report.journal_lines import when

_BEFORE = 2.0
"""Seconds before an incident in which a sighting of its server or GPU may be what opened it."""


def of_incident(entries: Iterable[Entry], incident: str) -> list[Entry]:
    """The entries of one incident, in order, with the sightings of its server and GPU from shortly before to its end."""
    every = list(entries)
    own = [entry for entry in every if entry.record.incident == incident]
    if not own:
        return []
    servers = (entry.record.server for entry in own if isinstance(entry.record, IncidentOpened))
    server = next((server for server in servers if server is not None), None)
    places = [place for place, entry in enumerate(every) if entry.record.incident == incident]
    first = places[0]
    while first > 0 and _between(every[first - 1], own[0]) <= _BEFORE:
        first -= 1
    span = every[first : places[-1] + 1]
    return [entry for entry in span if entry.record.incident == incident or _sighting(entry, server)]


def _between(one: Entry, other: Entry) -> float:
    """Seconds from an entry to a later one: by the monotonic clock, which is never stepped, where both have it."""
    if one.mono is not None and other.mono is not None and other.mono >= one.mono:
        return other.mono - one.mono
    return other.wall - one.wall


def _sighting(entry: Entry, server: ServerId | None) -> bool:
    seen = entry.record
    if not isinstance(seen, Sighting) or server is None:
        return False
    return seen.server == server if seen.server is not None else seen.gpu == server.gpu


def of_jobs(entries: Iterable[Entry], wanted: Collection[int]) -> list[Entry]:
    """What is about these jobs, and all of the incidents that they were in."""
    every = list(entries)
    own = [entry for entry in every if not entry.jobs().isdisjoint(wanted)]
    incidents = {entry.record.incident for entry in own if entry.record.incident}
    belong = {id(entry) for entry in own}
    belong |= {id(entry) for incident in incidents for entry in of_incident(every, incident)}
    return [entry for entry in every if id(entry) in belong]


def tell(entries: list[Entry]) -> list[str]:
    """The story, a line for each record: time, milliseconds since the record before, a sentence."""
    lines: list[str] = []
    for before, entry in pairwise([*entries[:1], *entries]):
        lines.append(f"{when(entry.wall)[11:-1]} {_since(_between(before, entry)):>9}  {entry.sentence()}")
    return lines


def _since(seconds: float) -> str:
    return f"+{seconds:.1f} s" if seconds >= 10 else f"+{seconds * 1000:.0f} ms" if seconds >= 0.0005 else ""
