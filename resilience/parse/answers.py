"""JSON that another node has printed, as the dataclass that it is to be. Pure; nothing of it is trusted.

Keys that this version does not know are left out; one that is missing takes its field's default. Text comes out printable and
cut, so that no node's answer can move a terminal's cursor or fill it.
"""

import json
from dataclasses import MISSING, fields, is_dataclass
from enum import StrEnum
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

from resilience.model.errors import WireError
from resilience.model.records.words import printable

T = TypeVar("T")
_TEXT = 4096
"""Characters of one text."""
_MOST = 10**15
"""Numbers beyond this are no number of ours."""


def read(kind: type[T], text: bytes) -> T:
    """One JSON object as a dataclass. Raises WireError that names what is wrong."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise WireError("answer", "is not JSON", shown(text)) from error
    made: T = _value(kind, value, "answer")
    return made


def shown(text: bytes) -> str:
    """What a node printed, as a message shows it: its last line, printable and short."""
    lines = text[-2000:].decode("utf-8", "replace").strip().splitlines()
    return printable(lines[-1].strip())[-200:] if lines else "nothing"


def _value(kind: Any, value: object, where: str) -> Any:
    if get_origin(kind) in (Union, UnionType):
        if value is None and NoneType in get_args(kind):
            return None
        (kind,) = (option for option in get_args(kind) if option is not NoneType)
    kind = getattr(kind, "__supertype__", kind)
    if get_origin(kind) is tuple and isinstance(value, list):
        return tuple(_value(get_args(kind)[0], item, where) for item in value)
    if isinstance(kind, type) and is_dataclass(kind) and isinstance(value, dict):
        return _filled(kind, value, where)
    if isinstance(kind, type) and issubclass(kind, StrEnum) and isinstance(value, str) and value in list(kind):
        return kind(value)
    if kind is bool and isinstance(value, bool):
        return value
    if kind is int and isinstance(value, int) and not isinstance(value, bool) and -_MOST < value < _MOST:
        return value
    if kind is str and isinstance(value, str):
        return printable(value[:_TEXT])
    raise WireError(where, f"is not a {getattr(kind, '__name__', 'list')}", printable(repr(value)[:80]))


def _filled(kind: Any, values: dict[str, object], where: str) -> Any:
    given = {}
    for field in fields(kind):
        if field.name in values:
            given[field.name] = _value(field.type, values[field.name], f"{where}.{field.name}")
        elif field.default is MISSING and field.default_factory is MISSING:
            raise WireError(f"{where}.{field.name}", "is missing")
    return kind(**given)
