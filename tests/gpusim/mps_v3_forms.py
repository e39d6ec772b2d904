"""What the commands of protocol 3 share: reading a line, answering with a table or a field, finding a server.

Source: as in mps_v3_commands.py.
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
FLAGS = ("force", "all")


def read_options(words: list[str]) -> tuple[list[str], Options]:
    """Plain words; and `--key=value`, `key=value` and flags by key."""
    plain, options = list[str](), dict[str, str]()
    for word in words:
        key, has, value = word.removeprefix("--").partition("=")
        if has or word.startswith("--") or word in FLAGS:
            options[key] = value
        else:
            plain.append(word)
    return plain, options


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


def say_field(control: Control, row: dict[str, str], field: str) -> None:
    control.say(row.get(field, f"Unknown field {field}"))


def running(control: Control, name: str) -> Child | None:
    return next((one for one in control.servers.values() if one.name == name), None)


def find_server(control: Control, name: str) -> Child | None:
    """The named server, or None after saying so."""
    child = running(control, name)
    if child is None:
        control.say(f"Server {name} not found" if name else "A server name is required")
    return child


def mine(control: Control, uid: int) -> bool:
    """May whoever gives the command act on a server of that user?"""
    if control.ui_uid in (0, uid):
        return True
    control.say(f"Insufficient privileges for UID {control.ui_uid}")
    return False


def status(child: Child) -> str:
    return STATUS.get(child.state, child.state)


def gpus(names: Names, server: str) -> list[mps_host.Gpu]:
    host = mps_host.read()
    devices = names.servers[server].devices if server else ""
    return host.visible(devices or os.environ.get("CUDA_VISIBLE_DEVICES")) if host else []


def sizes() -> tuple[int, int]:
    """(SMs of a GPU, SMs of a chunk)."""
    return mps_inject.number("sm_count", 132), mps_inject.number("chunk_sms", 8)
