"""The text of a lease file to and from Lease. Pure; the file itself is read and written by adapters/linux/leases.py.

A text that does not follow docs/reference/protocols.md §3 raises WireError naming the line or the key.
"""

import re

from resilience.model.errors import ConfigError, WireError
from resilience.model.ids import Color, DomainKey, GpuMinor, GpuUuid, JobId, NodeName
from resilience.model.lease import Isolation, Lease, LeaseState
from resilience.parse import options
from resilience.parse.packet import decode, encode

_KEYS = (
    "version job uid gid user node restart state reason options domain isolation "
    "slots colors gpus run log agent python spill opened"
).split()
_LATER = ("partition", "numbers")
"""Keys that a lease from before an upgrade lacks."""
_VERSION = "1"
_LONG_MAX = (1 << 63) - 1
_UINT_MAX = (1 << 32) - 1
_MOST_MINOR = 4095
MOST_SLOTS = 64
"""More chunks than any GPU has (16 on an H200)."""


def render(lease: Lease) -> str:
    """The file's text."""
    gpus = ",".join(f"{minor}:{uuid}" for minor, uuid in lease.gpus)
    special: dict[str, object] = {
        "version": _VERSION,
        "options": options.serialize(lease.options),
        "slots": ",".join(f"{minor}:{slot}" for minor, slot in lease.slots),
        "colors": ",".join(lease.colors),
        "gpus": gpus,
        "numbers": ",".join(map(str, lease.numbers)),
        "opened": f"{lease.opened:.3f}",
    }
    rows = (f"{key}={encode(special.get(key, getattr(lease, key, '')))}" for key in (*_KEYS, *_LATER))
    return "\n".join(rows) + "\n"


def parse(text: str) -> Lease:
    """The lease behind a file's text. Raises WireError."""
    values: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        key, equals, value = line.partition("=")
        if not equals or key in values:
            raise WireError("lease", f"line {number} is not a new key=value", line[:80])
        values[key] = decode(value)
    if missing := [key for key in _KEYS if key not in values]:
        raise WireError("lease", "key missing", missing[0])
    if values["version"] != _VERSION:
        raise WireError("lease", f"version is not {_VERSION}", values["version"])
    try:
        gpus = [pair.split(":", 1) for pair in values["gpus"].split(",") if pair]
        state = LeaseState(values["state"])
        if state is LeaseState.OPEN and not (gpus and values["domain"]):
            raise ValueError("open without a GPU or a domain")
        if not all(uuid for _, uuid in gpus):
            raise ValueError("a GPU without a UUID")
        numbers = tuple(_number(word, 0, _MOST_MINOR) for word in values.get("numbers", "").split(",") if word)
        if len(numbers) not in (0, len(gpus)):
            raise ValueError("a number for some of the GPUs")
        slots = [pair.split(":", 1) for pair in values["slots"].split(",") if pair]
        return Lease(
            job=JobId(_number(values["job"], 1, _LONG_MAX)),
            uid=_number(values["uid"], 0, _UINT_MAX),
            gid=_number(values["gid"], 0, _UINT_MAX),
            user=values["user"],
            node=NodeName(values["node"]),
            restart=_number(values["restart"], 0, _UINT_MAX),
            state=state,
            reason=values["reason"],
            options=options.parse(values["options"]),
            domain=DomainKey(values["domain"]),
            isolation=Isolation(values["isolation"]),
            slots=tuple((_minor(minor), _number(slot, 1, MOST_SLOTS)) for minor, slot in slots),
            colors=tuple(_color(color) for color in values["colors"].split(",")) if values["colors"] else (),
            gpus=tuple((_minor(minor), GpuUuid(uuid)) for minor, uuid in gpus),
            run=values["run"],
            log=values["log"],
            agent=values["agent"],
            python=values["python"],
            spill=values["spill"],
            opened=_seconds(values["opened"]),
            partition=values.get("partition", ""),
            numbers=numbers,
        )
    except (ValueError, ConfigError) as error:
        raise WireError("lease", "bad value", error) from error


def _number(text: str, low: int, high: int) -> int:
    """Decimal digits alone, as in C. Raises ValueError."""
    if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
        raise ValueError(text)
    return int(text)


def _minor(text: str) -> GpuMinor:
    return GpuMinor(_number(text, 0, _MOST_MINOR))


def _color(text: str) -> Color:
    if not re.fullmatch("[a-z0-9]+", text):
        raise ValueError(text)
    return Color(text)


def _seconds(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,15}(\.[0-9]*)?", text):
        raise ValueError(text)
    return float(text)
