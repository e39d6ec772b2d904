"""Journals read back: JSON lines to records, torn and foreign lines counted and left out.

Raises ResilienceError when the file itself cannot be read.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from resilience.model.errors import ConfigError, ResilienceError
from resilience.parse.journal import Record, parse

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_STANDARD = ("event", "wall", "mono")
"""Keys that every record has; a listing shows what else there is."""


@dataclass(slots=True)
class Read:
    records: list[Record] = field(default_factory=list)
    skipped: int = 0
    """Lines that are no record."""


def read(path: str) -> Read:
    """The records of a journal, in its order."""
    found = Read()
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.strip():
                    record = parse(line)
                    if record is None:
                        found.skipped += 1
                    else:
                        found.records.append(record)
    except PermissionError as error:
        hint = "it is for admins; the log of your own job is beside its output file: mpsr log -j JOB"
        raise ResilienceError(path, "cannot be read", error.strerror or error, hint=hint) from error
    except OSError as error:
        hint = "give --node NODE or --journal FILE"
        raise ResilienceError(path, "cannot be read", error.strerror or error, hint=hint) from error
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


def jobs(record: Record) -> set[int]:
    """The jobs that a record is about: its `job`, and those of the tasks <job>.<step>.<task> that it names."""
    found: set[int] = set()
    for key in ("job", "task", "who", "clients", "tasks", "suspects", "hit", "culprit"):
        value = record.get(key)
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, int) and not isinstance(item, bool) and key == "job":
                found.add(item)
            elif isinstance(item, str):
                found |= set(_jobs_in(key, item))
    return found


def _jobs_in(key: str, text: str) -> Iterator[int]:
    words = text.removeprefix("job ").split()
    head = words[0].split(".")[0] if words else ""
    named = key == "job" or text.startswith("job ") or text.count(".") >= 2
    if named and head.isascii() and head.isdigit():
        yield int(head)


def when(wall: float) -> str:
    """UTC, to the millisecond."""
    try:
        moment = datetime.fromtimestamp(wall, UTC)
    except (ValueError, OverflowError, OSError):
        return f"{wall}"
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def listing(record: Record) -> str:
    """One record on one line: time, event, and what else it says."""
    rest = " ".join(
        f"{key}={_short(value)}" for key, value in record.items() if key not in _STANDARD and value not in (None, "")
    )
    return f"{when(float(record['wall']))} {record['event']:<21} {rest}".rstrip()


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    text = "".join(char if char.isprintable() else "?" for char in text)
    return f'"{text}"' if isinstance(value, str) and (" " in text or not text) else text
