"""An incident or a job as a story in plain words, from the entries of a journal. Pure.

Each record has its own sentence; nothing in the journal is left out of a story.
"""

from collections.abc import Iterable

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
    first, last = own[0].wall - _BEFORE, own[-1].wall
    return [entry for entry in every if entry.record.incident == incident or _sighting(entry, server, first, last)]


def _sighting(entry: Entry, server: ServerId | None, first: float, last: float) -> bool:
    seen = entry.record
    if not isinstance(seen, Sighting) or server is None or not first <= entry.wall <= last:
        return False
    return seen.server == server if seen.server is not None else seen.gpu == server.gpu


def of_job(entries: Iterable[Entry], job: int) -> list[Entry]:
    """What is about a job, and all of the incidents that it was in."""
    every = list(entries)
    incidents = {entry.record.incident for entry in every if entry.record.incident and job in entry.jobs()}
    belong = {id(entry) for incident in incidents for entry in of_incident(every, incident)}
    return [entry for entry in every if job in entry.jobs() or id(entry) in belong]


def tell(entries: list[Entry]) -> list[str]:
    """The story, a line for each record: time, milliseconds since the record before, a sentence."""
    lines: list[str] = []
    before = entries[0].wall if entries else 0.0
    for entry in entries:
        lines.append(f"{when(entry.wall)[11:-1]} {_since(entry.wall - before):>9}  {entry.sentence()}")
        before = entry.wall
    return lines


def _since(seconds: float) -> str:
    return f"+{seconds:.1f} s" if seconds >= 10 else f"+{seconds * 1000:.0f} ms" if seconds >= 0.0005 else ""
