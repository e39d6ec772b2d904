"""What a record of the journal is: a frozen value, typed fields, and its JSON.

Every event of contract.toml has one class (`KINDS`). A field that was not said has its default and is not written. Reading
is total: a value of another type than ours, as another version or a torn disk may have it, leaves the default, and the
JSON object itself stays with the entry (journal.py), so that nothing is lost. Fields carry their help and the version that
brought them; docs/reference/journal.md is made from that.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from types import NoneType, UnionType
from typing import Any, ClassVar, Union, get_args, get_origin

from resilience.contract import contract
from resilience.model.ids import Color, DomainKey, GpuMinor, JobId, ServerId, StepId, TaskId, TaskRef
from resilience.model.observation import Client

_MOST = 10**15
"""Numbers beyond this are no number of ours."""


def said(help: str, default: Any = None, *, since: str = "0.1.0") -> Any:
    """A field with what it says, in which unit, and the version that brought it."""
    metadata = {"help": help, "since": since}
    if isinstance(default, dict):
        return field(default_factory=dict, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One event. Subclasses name theirs in EVENT."""

    EVENT: ClassVar[str] = ""
    SINCE: ClassVar[str] = "0.1.0"

    incident: str = said("id of the incident; joins all records of one fault", "")

    def sentence(self) -> str:
        """The record in plain words; empty when there is too little in it for a sentence."""
        return ""

    def jobs(self) -> frozenset[JobId]:
        """The jobs that it is about."""
        return frozenset(job for item in fields(self) for job in _jobs_in(item.name, getattr(self, item.name)))

    def json(self) -> dict[str, object]:
        """What was said, as JSON types; without the event's name and the times."""
        pairs = ((item.name, getattr(self, item.name)) for item in fields(self))
        return {name: _encode(value) for name, value in pairs if value is not None and value != ""}


def meaning(event: str) -> str:
    """What an event says, by the contract; empty for one that it does not know."""
    return str(contract()["event"].get(event, ""))


def decode(kind: type[Record], values: Mapping[str, object]) -> Record:
    """A record from a JSON object. Total: what does not fit a field's type is left out."""
    given: dict[str, Any] = {}
    for item in fields(kind):
        if item.name in values and (value := _decode(item.type, values[item.name])) is not None:
            given[item.name] = value
    return kind(**given)


# ---------------------------------------------------------------- one value
def task_id(ref: TaskRef) -> str:
    """`12.0.3`: job, step, task."""
    return f"{ref.job}.{ref.step}.{ref.task}"


def server_id(server: ServerId) -> str:
    """`u1001/g0/a`: domain, GPU, color."""
    return f"{server.domain}/g{server.gpu}/{server.color}"


def _encode(value: object) -> object:
    match value:
        case StrEnum():
            return value.value
        case TaskRef():
            return task_id(value)
        case ServerId():
            return server_id(value)
        case Client():
            return str(value)
        case frozenset():
            return [_encode(item) for item in sorted(value)]
        case tuple():
            return [_encode(item) for item in value]
        case Mapping():
            return {str(_encode(key)): _encode(item) for key, item in value.items()}
        case _:
            return value


def _decode(kind: Any, value: object) -> object | None:
    """The value as the type of a field; None when it is not one."""
    if get_origin(kind) in (Union, UnionType):  # JobId | None is the former, int | None the latter
        (kind,) = (option for option in get_args(kind) if option is not NoneType)
    options, origin = get_args(kind), get_origin(kind)
    if origin is tuple:
        return tuple(_all(options[0], value)) if isinstance(value, list) else None
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, dict):
            return None
        pairs = ((_decode(options[0], key), _decode(options[1], item)) for key, item in value.items())
        return {key: item for key, item in pairs if key is not None and item is not None}
    read = _READ.get(getattr(kind, "__supertype__", kind))
    return read(value) if read else None


def _all(kind: Any, values: list[object]) -> Iterable[object]:
    return (item for item in (_decode(kind, value) for value in values) if item is not None)


def number(value: object) -> float | None:
    """A number of JSON that may be one of ours, which neither Infinity nor NaN is; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not -_MOST < value < _MOST:
        return None
    return float(value)


def _whole(value: object) -> int | None:
    found = number(value)
    return int(found) if found is not None and found == int(found) else None


def _numbers(text: object, parts: int) -> list[int] | None:
    pieces = text.split(".") if isinstance(text, str) else []
    if len(pieces) != parts or not all(piece.isascii() and piece.isdigit() and len(piece) < 20 for piece in pieces):
        return None
    return [int(piece) for piece in pieces]


def _task(value: object) -> TaskRef | None:
    if (found := _numbers(value, 3)) is None:
        return None
    return TaskRef(job=JobId(found[0]), step=StepId(found[1]), task=TaskId(found[2]))


def _server(value: object) -> ServerId | None:
    pieces = value.split("/") if isinstance(value, str) else []
    if len(pieces) != 3 or not pieces[0] or not pieces[2] or pieces[1][:1] != "g":
        return None
    if (gpu := _numbers(pieces[1][1:], 1)) is None:
        return None
    return ServerId(domain=DomainKey(pieces[0]), gpu=GpuMinor(gpu[0]), color=Color(pieces[2]))


_READ: dict[Any, Callable[[object], object | None]] = {
    str: lambda value: value if isinstance(value, str) else None,
    bool: lambda value: value if isinstance(value, bool) else None,
    int: _whole,
    float: number,
    TaskRef: _task,
    ServerId: _server,
    Client: lambda value: Client.of(value) if isinstance(value, str) else None,
}


def _jobs_in(name: str, value: object) -> Iterable[JobId]:
    match value:
        case int() if name == "job":
            yield JobId(value)
        case TaskRef():
            yield value.job
        case Client() if value.job is not None:
            yield value.job
        case tuple() | Mapping():
            for item in value:
                yield from _jobs_in("", item)
        case _:
            return
