"""The simulated GPU's profile as a list of named assumptions; the file says what each of its fields means."""

from __future__ import annotations

import datetime
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROFILE = Path(__file__).resolve().parent / "profile_h200_580.toml"


@dataclass(frozen=True, kw_only=True, slots=True)
class Assumption:
    """One table of the profile. `not_asked` says why no experiment asks a GPU about it, empty where one does."""

    name: str
    id: str
    text: str
    value: Any
    source: str
    date: datetime.date
    confirmed: bool
    key: str = ""
    not_asked: str = ""


def load(path: Path = PROFILE) -> dict[str, Assumption]:
    """Every assumption by name. A field too many or too few is a TypeError."""
    tables = tomllib.loads(path.read_text(encoding="utf-8"))
    return {name: Assumption(name=name, **table) for name, table in tables.items() if isinstance(table, dict)}


def values(path: Path = PROFILE) -> dict[str, Any]:
    """What each assumption assumes, by name."""
    return {name: one.value for name, one in load(path).items()}
