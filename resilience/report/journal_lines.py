"""Journals read back: JSON lines to records, torn and foreign lines counted and left out.

Raises ResilienceError when the file itself cannot be read.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from resilience.model.errors import ConfigError, ResilienceError
from resilience.model.records.journal import Entry, parse
from resilience.model.records.words import printable

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(slots=True)
class Read:
    entries: list[Entry] = field(default_factory=list)
    skipped: int = 0
    """Lines that are no record."""


def read(path: str) -> Read:
    """The records of a journal, in its order."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return collect(file)
    except PermissionError as error:
        hint = "it is for admins; the log of your own job is beside its output file: mpsr log -j JOB"
        raise ResilienceError(path, "cannot be read", error.strerror or error, hint=hint) from error
    except OSError as error:
        hint = "give --node NODE or --journal FILE"
        raise ResilienceError(path, "cannot be read", error.strerror or error, hint=hint) from error


def collect(lines: Iterable[str]) -> Read:
    """The records of lines, in their order."""
    found = Read()
    for line in filter(str.strip, lines):
        entry = parse(line)
        if entry is None:
            found.skipped += 1
        else:
            found.entries.append(entry)
    return found


def since(text: str, now: float) -> float:
    """A time in the past, in seconds since the epoch: 90s, 10m, 2h, 1d ago, or an ISO 8601 time. Raises ConfigError."""
    unit = _UNITS.get(text[-1:])
    if unit and text[:-1].isascii() and text[:-1].isdigit() and len(text) < 10:
        return now - int(text[:-1]) * unit
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError) as error:
        raise ConfigError("--since", "is not a time", text, hint="such as 10m, 2h, 1d or 2026-01-31T12:00") from error


def when(wall: float) -> str:
    """UTC, to the millisecond."""
    try:
        moment = datetime.fromtimestamp(wall, UTC)
    except (ValueError, OverflowError, OSError):
        return f"{wall}"
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def listing(entry: Entry) -> str:
    """One record on one line: time, event, and what else it says."""
    return printable(f"{when(entry.wall)} {entry.event:<21} {entry.fields()}".rstrip())
