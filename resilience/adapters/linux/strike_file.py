"""Faults that programs have caused, kept for the next agent: one JSON list in root's log directory, written as a whole.

What cannot be read is told and counts for nobody; a full disk costs what was to be kept, not the agent.
"""

import json
from dataclasses import asdict

from resilience.adapters.linux.guarded_files import read_regular, write_whole
from resilience.model.errors import ResilienceError
from resilience.model.world import Strike

_LIMIT = 2 << 20
"""Bytes; 4096 strikes have some 700 KiB."""
_KINDS: dict[str, tuple[type, ...]] = {
    "at": (int, float), "uid": (int,), "program": (str,), "address": (int, type(None)), "task": (str,),
    "incident": (str,),
}  # fmt: skip


class StrikeFile:
    """ports.Strikes."""

    def __init__(self, path: str, *, trusted: int = 0) -> None:
        self._path = path
        self._trusted = trusted

    def read(self) -> tuple[Strike, ...]:
        try:
            values = json.loads(read_regular(self._path, limit=_LIMIT, owner=self._trusted))
        except FileNotFoundError:
            return ()
        except (OSError, ValueError, RecursionError) as error:
            raise ResilienceError(
                self._path, "cannot be read", error, hint="faults before now count for nobody"
            ) from None
        rows = values if isinstance(values, list) else []
        return tuple(Strike(**row) for row in rows if _good(row))

    def write(self, strikes: tuple[Strike, ...]) -> None:
        try:
            write_whole(self._path, json.dumps([asdict(strike) for strike in strikes]), mode=0o600)
        except OSError as error:
            raise ResilienceError(self._path, "cannot be written", error.strerror or error) from error


def _good(row: object) -> bool:
    return (
        isinstance(row, dict)
        and row.keys() == _KINDS.keys()
        and all(type(row[key]) in kinds for key, kinds in _KINDS.items())
    )
