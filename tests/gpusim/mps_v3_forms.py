"""What the commands of protocol 3 share: reading a line, answering with a table or a field, finding a server.

Source: as in mps_v3_commands.py. The words of a usage line say what a verb takes: `<name>` and `[<name>]` are positional (the
document has up to three), `--key=<value>` may also come as `key=value`, `--flag` has no value.
"""

from __future__ import annotations

import os

from . import mps_host, mps_inject

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .mps_daemon import Control
    from .mps_spawn import Child
    from .mps_v3 import Names

    Options = dict[str, str]

STATUS = {"ACTIVE": "Ready", "INITIALIZING": "Initializing", "FAULT": "Fault"}
FORMATS = ("table", "table,noheader", "csv", "csv,noheader")


def read_options(words: list[str]) -> tuple[list[str], Options]:
    """Plain words; and `--key=value`, `key=value` and flags by key."""
    plain, options = list[str](), dict[str, str]()
    for word in words:
        key, has, value = word.removeprefix("--").partition("=")
        if has or word.startswith("--"):
            options[key] = value
        else:
            plain.append(word)
    return plain, options


def misfit(usage: str, plain: list[str], options: Options) -> str:
    """What does not go with the usage line, in words; empty when all does."""
    words = [word.lstrip("[") for word in usage.split()]
    keys = {word.removeprefix("--").partition("=")[0] for word in words if "=" in word}
    flags = {word.removeprefix("--").rstrip("]") for word in words if word.startswith("--") and "=" not in word}
    if len(plain) > len([word for word in words if word.startswith("<")]):
        return f"Too many arguments: {plain[-1]}"
    for key, value in options.items():
        if key not in keys | flags:
            return f"Unknown option {key}"
        if (key in keys) != bool(value):
            return f"Option {key} needs a value" if key in keys else f"Option {key} takes no value"
    if options.get("format", FORMATS[0]) not in FORMATS:
        return f"Invalid format {options['format']}"
    return ""


def truth(text: str) -> bool | None:
    """`true` or `false`, else None."""
    return {"true": True, "false": False}.get(text)


def table(control: Control, columns: Sequence[str], rows: list[dict[str, str]], options: Options) -> None:
    """As text columns with a heading in capitals, or with `--format=csv` joined by commas."""
    style = options.get("format", "table").split(",")
    lines = [] if "noheader" in style else [list(columns)]
    lines += [[row[column] for column in columns] for row in rows]
    if style[0] == "csv":
        for line in lines:
            control.say(",".join(line))
        return
    if "noheader" not in style:
        lines[0] = [column.upper() for column in columns]
    widths = [max(len(line[place]) for line in lines) for place in range(len(columns))] if lines else []
    for line in lines:
        control.say(" ".join(value.ljust(width) for value, width in zip(line, widths, strict=True)).rstrip())


def say_field(control: Control, row: dict[str, str], fields: Sequence[str], field: str) -> None:
    """The bare value of one of these fields."""
    control.say(row[field] if field in fields else f"Unknown field {field}")


def running(control: Control, name: str) -> Child | None:
    return next((one for one in control.servers.values() if one.name == name), None)


def find_server(control: Control, name: str) -> Child | None:
    """The named server, or None after saying so."""
    child = running(control, name)
    if child is None:
        control.say(f"Server {name} not found" if name else "A server name is required")
    return child


def mine(control: Control, uid: int) -> bool:
    """May whoever gives the command act for that user?"""
    if control.ui_uid in (0, uid):
        return True
    control.say(f"Insufficient privileges for UID {control.ui_uid}")
    return False


def own_server(control: Control, names: Names, name: str) -> Child | None:
    """The named server, if it belongs to whoever gives the command; or None after saying what is wrong."""
    child = find_server(control, name)
    return child if child is not None and mine(control, names.servers[name].uid) else None


def status(child: Child) -> str:
    return STATUS.get(child.state, child.state)


def gpus(names: Names, server: str) -> list[mps_host.Gpu]:
    """The GPUs that a server may use."""
    return visible(names.servers[server].devices)


def visible(devices: str) -> list[mps_host.Gpu]:
    """The GPUs that a list of allowed devices leaves; an empty one those of the daemon."""
    host = mps_host.read()
    return host.visible(devices or os.environ.get("CUDA_VISIBLE_DEVICES")) if host else []


def sizes() -> tuple[int, int]:
    """(SMs of a GPU, SMs of a chunk)."""
    return mps_inject.number("sm_count", 132), mps_inject.number("chunk_sms", 8)
