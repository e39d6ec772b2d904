"""mpsr.yaml to Settings: the admin's choices on a node, or one clear error that names key, value and the way out.

Relies on `model.settings`, whose fields are the schema: a key that is no field, a value of another type, a number out
of range, a path with stray characters, an option that the contract does not know are all refused; nothing is ignored.
`load` also refuses a file that somebody other than root (or the caller) could have written, and names the component at
fault: root's prolog acts on this file. The walk from a mapping to a dataclass (`fill`) serves the site file of `render`
too. Raises ConfigError only.
"""

import os
import re
import reprlib
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass, replace
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin

import yaml

from resilience.adapters.linux.trust import check_status, check_trusted
from resilience.contract import contract
from resilience.model.errors import ConfigError, TrustError
from resilience.model.settings import Options, PartitionRules, Path, Settings
from resilience.parse import rules
from resilience.parse.hostlist import expand
from resilience.parse.nearest import hint as did_you_mean
from resilience.parse.nearest import nearest as most_like
from resilience.parse.options import check_value

_MAX_BYTES = 1 << 20
_MAX_RUN = 60
"""Longest paths.run: a socket's path has 107 characters, <node>/d/u<uid>/g<gpu>/<color>/control_privileged the rest."""
_MAX_FORBIDDEN = 32
"""The plugin has room for as many."""

_HUGE = 10**15
_PATH = re.compile(r"/[A-Za-z0-9._+@,:/-]*\Z")
_DEVICES = re.compile(r"/[A-Za-z0-9._+:/-]*(?:\[[0-9,-]+\][A-Za-z0-9._+:/-]*)*\Z")
_PROGRAM = re.compile(r"[A-Za-z0-9._+-]+\Z")
_PARTITION = re.compile(r"[A-Za-z0-9._+-]{1,63}\Z")
_MAX_PARTITIONS = 32
"""The plugin has room for as many."""

T = TypeVar("T")


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice, where YAML itself would let the last one win silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"key given twice: {key.value}", problem_mark=key.start_mark)
            if isinstance(key.value, str):
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def load(path: str) -> Settings:
    """The settings in a file. Raises ConfigError when it is missing, not to be trusted or wrong."""
    return parse(read_trusted(path), path)


def parse(text: str, source: str) -> Settings:
    """The settings in a text; `source` names it in errors."""
    settings = fill(Settings, mapping(text, source), source)
    return checked(settings, source)


def read_trusted(path: str) -> str:
    """The text of a file that only root or the caller could have written."""
    real = os.path.realpath(path)
    try:
        with open(real, "rb") as file:
            check_trusted(real, owner=os.geteuid())
            check_status(real, os.fstat(file.fileno()), owner=os.geteuid())
            data = file.read(_MAX_BYTES + 1)
    except TrustError as error:
        raise ConfigError(error.subject, error.wrong, error.observed, hint=error.hint) from error
    except OSError as error:
        raise ConfigError(path, "cannot be read", error.strerror or error) from error
    if len(data) > _MAX_BYTES:
        raise ConfigError(path, f"is longer than {_MAX_BYTES} bytes", len(data))
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(path, "is not UTF-8", f"byte {error.start}") from error


def mapping(text: str, source: str) -> Mapping[str, Any]:
    """A YAML text as a mapping; an empty one is an empty mapping."""
    try:
        value = yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{source}:{mark.line + 1}" if mark else source
        raise ConfigError(where, "is not YAML", error.problem or error.context or "") from error
    except (yaml.YAMLError, ValueError, RecursionError, TypeError) as error:
        raise ConfigError(source, "is not YAML", str(error).splitlines()[0] if str(error) else "") from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(source, "is not a mapping of keys to values", shown(value))
    return value


def shown(value: object) -> str:
    """A value of a file as an error shows it: short, on one line."""
    try:
        return reprlib.repr(value)[:80]
    except ValueError:  # an integer of thousands of digits, which Python refuses to print
        return type(value).__name__


def fill(kind: type[T], values: Mapping[str, Any], source: str, prefix: str = "", root: type | None = None) -> T:
    """The dataclass `kind` from a mapping; absent keys take the field's default. Raises ConfigError."""
    root = root or kind
    known = {field.name: field for field in _fields(kind)}
    given: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            raise ConfigError(source, "unknown key", f"{prefix}{key}", hint=nearest(f"{prefix}{key}", root))
        given[key] = _typed(known[key].type, known[key], value, source, f"{prefix}{key}", root)
    for name, field in known.items():
        if name not in given and field.default is MISSING and field.default_factory is MISSING:
            raise ConfigError(source, "key missing", f"{prefix}{name}", hint=str(field.metadata.get("help", "")))
    return kind(**given)


def leaves(kind: type, prefix: str = "") -> Iterator[tuple[str, Field[Any], Any]]:
    """Every setting of a dataclass tree as (dotted key, field, type), in the order of the source."""
    for field in _fields(kind):
        if is_dataclass(field.type):
            yield from leaves(field.type, f"{prefix}{field.name}.")  # type: ignore[arg-type]
        else:
            yield f"{prefix}{field.name}", field, field.type


def nearest(key: str, root: type) -> str:
    """The hint for an unknown key: the nearest valid name, else the sections."""
    names = [name for name, _, _ in leaves(root)]
    sections = list(dict.fromkeys(name.split(".")[0] for name in names))
    match = most_like(key, [*names, *sections], 0.7)
    if not match:
        by_last = {name.rsplit(".", 1)[-1]: name for name in reversed(names)}
        match = by_last.get(most_like(key.rsplit(".", 1)[-1], by_last, 0.7), "")
    return f"did you mean {match}?" if match else f"known: {', '.join(sections)}"


def checked(settings: Settings, source: str, prefix: str = "") -> Settings:
    """Settings whose numbers, paths and options make sense, with option values in canonical form."""
    for key, field, _ in leaves(Settings):
        section, name = key.split(".")
        _check(f"{source}: {prefix}{key}", field, getattr(getattr(settings, section), name))
    paths, where = settings.paths, f"{source}: {prefix}paths"
    if len(paths.run) > _MAX_RUN:
        hint = f"at most {_MAX_RUN} characters: sockets below it must fit into 107"
        raise ConfigError(f"{where}.run", "is too long for a socket's path", paths.run, hint=hint)
    where = f"{source}: {prefix}options"
    options = replace(settings.options, partitions={})
    partitions = {}
    if len(settings.options.partitions) > _MAX_PARTITIONS:
        raise ConfigError(
            f"{where}.partitions", f"has more than {_MAX_PARTITIONS} entries", len(settings.options.partitions)
        )
    for name, own in settings.options.partitions.items():
        there = f"{where}.partitions.{shown(name)[1:-1]}"
        if not _PARTITION.match(name):
            raise ConfigError(there, "is not a name", hint="letters, digits and . _ + -, at most 63")
        merged = _checked_options(rules.of_partition(settings.options, name), there)
        partitions[name] = PartitionRules(
            defaults={key: merged.defaults[key] for key in own.defaults},
            locked=None if own.locked is None else merged.locked,
            forbidden=None if own.forbidden is None else merged.forbidden,
        )
    return replace(settings, options=replace(_checked_options(options, where), partitions=partitions))


def _check(where: str, field: Field[Any], value: Any) -> None:
    """Raises ConfigError unless a number is within its range, and a text that names a file is one."""
    within, kind = field.metadata["within"], field.metadata["path"]
    if within is not None and not within[0] <= value <= within[1]:
        raise ConfigError(where, f"is not within {within[0]:g} and {within[1]:g}", value)
    if (
        kind is Path.ABSOLUTE
        or (kind is Path.OPTIONAL and value)
        or (kind is Path.PROGRAM and not _PROGRAM.match(value))
    ):
        check_path(where, value)
    elif kind is Path.DEVICES and value:
        check_devices(where, value)


def check_path(where: str, value: str) -> None:
    """Raises ConfigError unless the value is an absolute path that needs no quoting anywhere it is written."""
    if not _PATH.match(value):
        hint = "an absolute path of letters, digits and . _ + @ , : / -"
        raise ConfigError(where, "is not a usable path", shown(value), hint=hint)
    if ".." in value.split("/"):
        raise ConfigError(where, "goes up with '..'", shown(value))


def check_devices(where: str, value: str) -> None:
    """Raises ConfigError unless the value is one device path, with or without brackets, as gres.conf has it in File=."""
    if not _DEVICES.match(value.replace("{node}", "n")):
        raise ConfigError(where, "is not a device path", shown(value), hint="such as /dev/nvidia[0-3]")
    expand(value, where)


def _checked_options(options: Options, where: str) -> Options:
    specs = {spec["key"]: spec for spec in contract()["option"].values()}

    def canonical(place: str, key: str, value: str) -> str:
        if key not in specs:
            hint = did_you_mean(key, specs, f"known: {', '.join(specs)}")
            raise ConfigError(f"{where}.{place}", "unknown option key", key, hint=hint)
        try:
            return check_value(key, value)
        except ConfigError as error:
            choices = specs[key].get("choices", [])
            hint = did_you_mean(value, choices, error.hint)
            raise ConfigError(f"{where}.{place}.{key}", "bad value", shown(value), hint=hint) from error

    defaults = {key: canonical("defaults", key, value) for key, value in options.defaults.items()}
    for key in options.locked:
        canonical("locked", key, str(specs.get(key, {}).get("default", "")))
    forbidden = []
    for pair in options.forbidden:
        key, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"{where}.forbidden", "is not key=value", shown(pair), hint="such as domain=shared")
        forbidden.append(f"{key}={canonical('forbidden', key, value)}")
    if len(forbidden) > _MAX_FORBIDDEN:
        raise ConfigError(f"{where}.forbidden", f"has more than {_MAX_FORBIDDEN} pairs", len(forbidden))
    locked = tuple(dict.fromkeys(options.locked))
    options = replace(options, defaults=defaults, locked=locked, forbidden=tuple(forbidden))
    for key, holds in rules.defaults(options).items():
        if word := rules.forbidden_word(options, key, holds):
            hint = f"set another {where.rpartition(': ')[2]}.defaults.{key}"
            raise ConfigError(f"{where}.forbidden", "forbids what holds by default", f"{key}={word}", hint=hint)
    return options


def _fields(kind: Any) -> tuple[Field[Any], ...]:
    return fields(kind)


def _typed(kind: Any, field: Field[Any], value: Any, source: str, key: str, root: type) -> Any:
    """One value as the field's type. Where words are wanted, YAML's booleans are on/off and its numbers digits."""
    where = f"{source}: {key}"
    if isinstance(kind, type) and is_dataclass(kind):
        if value is None:
            value = {}
        if not isinstance(value, dict):
            raise ConfigError(where, "is not a mapping of keys to values", shown(value))
        return fill(kind, value, source, f"{key}.", root)
    if get_origin(kind) is dict:
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise ConfigError(where, "is not a mapping of keys to values", shown(value))
        items = ((_word(where, name), item) for name, item in value.items())
        if is_dataclass(part := get_args(kind)[1]):
            return {name: _typed(part, field, item, source, f"{key}.{name}", root) for name, item in items}
        return {name: _word(f"{where}.{name}", item) for name, item in items}
    if get_origin(kind) is UnionType:
        kind = next(one for one in get_args(kind) if one is not NoneType)
    if get_origin(kind) is tuple:
        if value is None:
            return ()
        if not isinstance(value, list):
            raise ConfigError(where, "is not a list", shown(value), hint="write [first, second]")
        return tuple(_word(where, item) for item in value)
    choices: tuple[str, ...] = field.metadata.get("choices", ())
    if kind is str:
        text = _word(where, value) if choices else _text(where, value)
        if choices and text not in choices:
            hint = did_you_mean(text, choices, f"one of {', '.join(choices)}", 0.4)
            raise ConfigError(where, "is not one of the choices", shown(text), hint=hint)
        return text
    if kind is bool:
        if not isinstance(value, bool):
            raise ConfigError(where, "is not true or false", shown(value))
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(where, "is not a number", shown(value))
    if not -_HUGE < value < _HUGE:  # false for .nan too
        raise ConfigError(where, "is not a usable number", shown(value))
    if kind is int and value != int(value):
        raise ConfigError(where, "is not a whole number", shown(value))
    return int(value) if kind is int else float(value)


def _text(where: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ConfigError(where, "is not a string", shown(value), hint='put it in quotes: "..."')
    if any(not char.isprintable() for char in value):
        raise ConfigError(where, "has a character that cannot be printed", shown(value))
    return value


def _word(where: str, value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, int) and -_HUGE < value < _HUGE:
        return str(value)
    if value is None:
        return ""
    return _text(where, value)
