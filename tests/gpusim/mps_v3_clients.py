"""`client list|get|terminate` and `device list` of protocol 3.

Source: documented, not recorded, as in mps_v3_commands.py. A client has every device of its server; the first one stands for them.

On failure: an answer in words, nothing changes.
"""

from __future__ import annotations

import os

from . import mps_v3, mps_wire
from .mps_v3_forms import gpus, mine, say_field, sizes, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .mps_daemon import Control
    from .mps_spawn import Child
    from .mps_v3 import Names
    from .mps_v3_forms import Options

COLUMNS = ("pid", "server", "device", "namespace", "cmd")
FIELDS = ("pid", "server", "device", "pci-id", "linux-ns", "maws-ns", "cmd")
DEVICE_COLUMNS = ("Ordinal", "Server", "PCI ID", "Device UUID", "Name", "Total SMs", "Total Chunks", "Attributes")


def _command_line(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return "-"


def _linux_space(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid").partition("[")[2].rstrip("]")
    except OSError:
        return "-"


def _row(names: Names, child: Child, pid: int) -> dict[str, str]:
    seen = gpus(names, child.name)
    space = names.space_of.get(pid, mps_v3.NAMESPACE)
    return {"pid": str(pid), "server": child.name, "device": "0", "pci-id": seen[0].bus if seen else "-",
            "linux-ns": _linux_space(pid), "namespace": space, "maws-ns": space, "cmd": _command_line(pid)}  # fmt: skip


def listing(control: Control, names: Names, plain: list[str], options: Options) -> None:
    """With `--all` or without a word about servers: those of every server."""
    rows = [
        _row(names, child, pid)
        for child in control.servers.values()
        if options.get("server", child.name) == child.name
        for pid in dict.fromkeys(pid for pid, _ in child.clients)
    ]
    table(control, COLUMNS, rows, options)


def _client(control: Control, text: str) -> tuple[Child, int] | None:
    pid = int(text) if text.isdigit() else 0
    for child in control.servers.values():
        if any(one == pid for one, _ in child.clients):
            return child, pid
    control.say(f"Client {text or '0'} not found")
    return None


def get(control: Control, names: Names, plain: list[str], options: Options) -> None:
    if found := _client(control, plain[0] if plain else ""):
        say_field(control, _row(names, *found), FIELDS, plain[1] if len(plain) > 1 else "")


def terminate(control: Control, names: Names, plain: list[str], options: Options) -> int | None:
    found = _client(control, plain[0] if plain else "")
    if found is None or not mine(control, names.servers[found[0].name].uid):
        return None
    mps_wire.send(found[0].link, mps_wire.words("terminate", pid=found[1]))
    return found[0].pid


def devices(control: Control, names: Names, plain: list[str], options: Options) -> None:
    """`device list`: each server's devices in the order in which it counts them."""
    total, chunk = sizes()
    rows = [
        dict(
            zip(DEVICE_COLUMNS,
                (str(ordinal), child.name, gpu.bus, gpu.uuid, gpu.name, str(total), str(total // chunk), "-"),
                strict=True)
        )
        for child in control.servers.values()
        if options.get("server", child.name) == child.name
        for ordinal, gpu in enumerate(gpus(names, child.name))
    ]  # fmt: skip
    table(control, DEVICE_COLUMNS, rows, options)
