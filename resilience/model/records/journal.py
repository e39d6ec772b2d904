"""A line of the journal and back: when, which record, and the JSON object as it was read. Pure.

A line is torn when its writer was killed or the disk was full; the one at the end may still be growing. A record of an
event that this version does not know is `Unknown`: it is listed and told with all that stands in it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from resilience.model.ids import JobId
from resilience.model.records import incidents, node, slurm, tasks
from resilience.model.records.base import Record, decode, meaning, number
from resilience.model.records.words import printable

KINDS: Mapping[str, type[Record]] = {
    kind.EVENT: kind
    for kind in (
        node.AgentStarted,
        node.AgentStopped,
        node.DomainOpened,
        node.DomainClosed,
        node.JobOpened,
        node.JobRefused,
        node.JobClosed,
        tasks.TaskHello,
        tasks.TaskGone,
        tasks.ClientEnded,
        tasks.ClientKilledBusy,
        tasks.TaskExit,
        tasks.TaskStopped,
        tasks.ProcessUnattached,
        tasks.StrikeGiven,
        tasks.StrikeTaken,
        tasks.StrikesApplied,
        incidents.Sighting,
        incidents.IncidentOpened,
        incidents.IncidentClassified,
        incidents.IncidentAttributed,
        incidents.IncidentClosed,
        incidents.Verdict,
        incidents.Recovered,
        incidents.RecoveryFailed,
        incidents.JobAccounted,
        node.ServerUnavailable,
        node.ServerRebuilt,
        node.ServerReplaced,
        node.UserThrottled,
        slurm.SlurmIntent,
        slurm.SlurmOutcome,
        slurm.BreakerOpen,
    )
}
_STANDARD = ("event", "wall", "mono")


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown(Record):
    """A record of an event that this version does not know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line. `values` is the whole JSON object, also what this version has no field for."""

    event: str
    wall: float
    """Seconds since the epoch, UTC."""
    record: Record
    values: Mapping[str, object] = field(default_factory=dict)

    @property
    def mono(self) -> float | None:
        """Seconds of the monotonic clock: orders and measures the events of one boot."""
        return number(self.values.get("mono"))

    @property
    def lost(self) -> int:
        """How many records before this one could not be written."""
        value = self.values.get("lost")
        return value if type(value) is int and 0 < value < 10**15 else 0

    def jobs(self) -> frozenset[JobId]:
        job = self.values.get("job") if isinstance(self.record, Unknown) else None
        return self.record.jobs() | ({JobId(job)} if type(job) is int else frozenset())

    def sentence(self) -> str:
        """In plain words; whatever has no sentence is told by its event's meaning and its fields."""
        text = self.record.sentence()
        if not text:
            rest = self.fields()
            means = meaning(self.event)
            text = f"{means} ({rest})" if means and rest else means or f"{self.event} {rest}"
        dry = self.values.get("dry_run")
        return f"(only written down, recovery.mode is observe) {text}" if dry else text

    def fields(self) -> str:
        """All that it says beside the time and the event, as key=value."""
        rest = ((key, value) for key, value in self.values.items() if key not in _STANDARD and value not in (None, ""))
        return " ".join(f"{key}={_short(value)}" for key, value in rest)


def parse(line: str) -> Entry | None:
    """One line of a journal; None when it is no record."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return entry(value) if isinstance(value, dict) else None


def entry(values: Mapping[str, object]) -> Entry | None:
    """A JSON object as an entry; None when it has no event or no time."""
    event, wall = values.get("event"), number(values.get("wall"))
    if not isinstance(event, str) or wall is None:
        return None
    return Entry(event=event, wall=wall, record=decode(KINDS.get(event, Unknown), values), values=values)


def line(record: Record, *, wall: float, mono: float, lost: int = 0) -> str:
    """The text of one line, without its end."""
    head: dict[str, object] = {"event": record.EVENT, "wall": round(wall, 6), "mono": round(mono, 6)}
    if lost:
        head["lost"] = lost
    return json.dumps(head | record.json(), default=str, separators=(",", ":"))


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    text = printable(text)
    return f'"{text}"' if isinstance(value, str) and (" " in text or not text) else text
