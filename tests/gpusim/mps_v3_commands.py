"""The commands of protocol 3: `nvidia-cuda-mps-control <module> <verb> [words] [--key=value] [--flag]`.

Modules: server, namespace, client, device, sm-partition. Source: **documented, not recorded**: verbs, options, fields, columns and the
examples' lines follow NVIDIA's MPS document for 615 (615.71.09); the wording of a refusal, what is printed where the document shows
nothing, are ours; so is that `-q` is `quit -t 0`. Not simulated, and so unknown: `feature`, `memacct`, `context-share`, `--apply`,
`--locality-domains`.

On failure: an answer in words, nothing changes.
"""

from __future__ import annotations

import os

from . import mps_commands, mps_v3, mps_v3_partitions, mps_wire
from .mps_v3_forms import find_server, gpus, mine, read_options, say_field, sizes, status, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .mps_daemon import Control
    from .mps_spawn import Child
    from .mps_v3 import Names
    from .mps_v3_forms import Options

    Command = Callable[[Control, Names, list[str], Options], int | None]

SERVER_COLUMNS = ("name", "uid", "pid", "status", "pipe-directory", "allowed-devices", "context-ids")
SPACE_COLUMNS = (
    "name",
    "server",
    "server-status",
    "pinned-memory-limit",
    "active-thread-percentage",
    "client-priority",
    "pipe-directory",
)
CLIENT_COLUMNS = ("pid", "server", "device", "namespace", "cmd")
CLIENT_FIELDS = ("pid", "server", "device", "pci-id", "linux-ns", "maws-ns", "cmd")
DEVICE_COLUMNS = ("Ordinal", "Server", "PCI ID", "Device UUID", "Name", "Total SMs", "Total Chunks", "Attributes")
SETTINGS = ("pinned-memory-limit", "active-thread-percentage", "client-priority")


# -- server ---


def _server_row(names: Names, child: Child) -> dict[str, str]:
    contexts = " ".join(str(context) for _, context in child.clients) or "-"
    devices = names.servers[child.name].devices or "all"
    values = (child.name, child.uid, child.pid, status(child), names.folder(child.name), devices, contexts)
    return dict(zip(SERVER_COLUMNS, map(str, values), strict=True))


def server_create(control: Control, names: Names, plain: list[str], options: Options) -> None:
    uid = options.get("uid", str(control.ui_uid))
    name = plain[0] if plain else f"uid_{uid}" if "uid" in options else ""
    if not name:
        control.say("A server name or --uid is required")
    elif not mps_v3.good_name(name):
        control.say(f"Invalid server name {name}")
    elif name in names.servers:
        control.say(f"Server {name} already exists")
    elif not uid.isdigit() or (control.multiuser and uid != "0"):
        control.say(f"Server {name} cannot be created for user {uid}")
    elif mine(control, int(uid)):
        try:
            mps_v3.create(control, names, name, int(uid), options.get("allowed-devices", ""))
        except OSError as error:
            control.say(f"Server {name} cannot be created: {error.strerror or error}")


def server_delete(control: Control, names: Names, plain: list[str], options: Options) -> None:
    child = find_server(control, plain[0] if plain else "")
    if child is None or not mine(control, child.uid):
        return
    if child.count and "force" not in options:
        control.say(f"Server {child.name} has {child.count} clients")
        return
    for pid in dict.fromkeys(pid for pid, _ in child.clients):
        mps_wire.send(child.link, mps_wire.words("terminate", pid=pid))
    mps_wire.send(child.link, mps_wire.words("shutdown", force=1, retire=1))


def server_list(control: Control, names: Names, plain: list[str], options: Options) -> None:
    found = [one for one in control.servers.values() if not plain or one.name == plain[0]]
    table(control, SERVER_COLUMNS, [_server_row(names, child) for child in found], options)


def server_get(control: Control, names: Names, plain: list[str], options: Options) -> None:
    child = find_server(control, plain[0] if plain else "")
    if child is not None:
        say_field(control, _server_row(names, child), plain[1] if len(plain) > 1 else "")


def server_set(control: Control, names: Names, plain: list[str], options: Options) -> None:
    """A server's limits are those of its namespace `default` (documented)."""
    child = find_server(control, plain[0] if plain else "")
    if child is not None and mine(control, child.uid):
        _set(control, names, child.name, mps_v3.NAMESPACE, options)


# -- namespace ---


def _set(control: Control, names: Names, server: str, space: str, options: Options) -> None:
    """Limits of a namespace, all of them or none."""
    given = {key: value for key, value in options.items() if key in SETTINGS}
    limit, percentage, priority = (given.get(key) for key in SETTINGS)
    if not given or len(given) != len([key for key in options if key not in ("server", "format")]):
        control.say("At least one option is required: " + ", ".join(f"--{key}=" for key in SETTINGS))
    elif limit is not None and mps_v3.size(limit) is None:
        control.say(f"Invalid memory limit {limit}")
    elif percentage is not None and not 1.0 <= (mps_commands.percentage(percentage) or 0.0) <= 100.0:
        control.say(f"Invalid percentage {percentage}, expected between 1 and 100")
    elif priority not in (None, "0", "1"):
        control.say("Invalid priority value - must be 0 or 1!")
    else:
        held = names.servers[server].spaces[space]
        held.limit, held.percentage = limit or held.limit, percentage or held.percentage
        held.priority = priority or held.priority


def _space_row(names: Names, child: Child, name: str) -> dict[str, str]:
    space = names.servers[child.name].spaces[name]
    values = (name, child.name, status(child), space.limit or "-", space.percentage or "-", space.priority or "-",
              names.folder(child.name, name))  # fmt: skip
    return dict(zip(SPACE_COLUMNS, values, strict=True))


def _space(control: Control, names: Names, name: str, server: str) -> Child | None:
    """The server that has such a namespace and may be changed, or None after saying what is wrong."""
    child = find_server(control, server)
    if child is None:
        return None
    if name not in names.servers[server].spaces:
        control.say(f"Namespace {name} not found on server {server}" if name else "A namespace name is required")
        return None
    return child


def namespace_create(control: Control, names: Names, plain: list[str], options: Options) -> None:
    name = plain[0] if plain else ""
    child = find_server(control, options.get("server", ""))
    if child is None or not mine(control, child.uid):
        return
    if not mps_v3.good_name(name):
        control.say(f"Invalid namespace name {name}")
    elif name in names.servers[child.name].spaces:
        control.say(f"Namespace {name} already exists on server {child.name}")
    else:
        try:
            mps_v3.create_space(control, names, child.name, name)
        except OSError as error:
            control.say(f"Namespace {name} cannot be created: {error.strerror or error}")


def namespace_delete(control: Control, names: Names, plain: list[str], options: Options) -> None:
    name = plain[0] if plain else ""
    child = _space(control, names, name, options.get("server", ""))
    if child is None or not mine(control, child.uid):
        return
    inside = [pid for pid, _ in child.clients if names.space_of.get(pid) == name]
    if name == mps_v3.NAMESPACE:
        control.say(f"Namespace {name} cannot be deleted")
    elif inside and "force" not in options:
        control.say(f"Namespace {name} has {len(inside)} clients")
    else:
        mps_v3.delete_space(control, names, child.name, name)


def namespace_list(control: Control, names: Names, plain: list[str], options: Options) -> None:
    rows = [
        _space_row(names, child, name)
        for child in control.servers.values()
        if options.get("server", child.name) == child.name
        for name in names.servers[child.name].spaces
        if not plain or name == plain[0]
    ]
    table(control, SPACE_COLUMNS, rows, options)


def namespace_set(control: Control, names: Names, plain: list[str], options: Options) -> None:
    name = plain[0] if plain else ""
    child = _space(control, names, name, options.get("server", ""))
    if child is not None and mine(control, child.uid):
        _set(control, names, child.name, name, options)


def namespace_get(control: Control, names: Names, plain: list[str], options: Options) -> None:
    name, server, field = (*plain, "", "", "")[:3]
    child = _space(control, names, name, server)
    if child is not None:
        say_field(control, _space_row(names, child, name), field)


# -- client, device ---


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


def _client_row(names: Names, child: Child, pid: int) -> dict[str, str]:
    """A client has every device of its server; the first one stands for them."""
    seen = gpus(names, child.name)
    space = names.space_of.get(pid, mps_v3.NAMESPACE)
    return {"pid": str(pid), "server": child.name, "device": "0", "pci-id": seen[0].bus if seen else "-",
            "linux-ns": _linux_space(pid), "namespace": space, "maws-ns": space, "cmd": _command_line(pid)}  # fmt: skip


def client_list(control: Control, names: Names, plain: list[str], options: Options) -> None:
    """With `--all` or without a word about servers: those of every server."""
    rows = [
        _client_row(names, child, pid)
        for child in control.servers.values()
        if options.get("server", child.name) == child.name
        for pid in dict.fromkeys(pid for pid, _ in child.clients)
    ]
    table(control, CLIENT_COLUMNS, rows, options)


def _client(control: Control, text: str) -> tuple[Child, int] | None:
    pid = int(text) if text.isdigit() else 0
    for child in control.servers.values():
        if any(one == pid for one, _ in child.clients):
            return child, pid
    control.say(f"Client {text or '0'} not found")
    return None


def client_get(control: Control, names: Names, plain: list[str], options: Options) -> None:
    if found := _client(control, plain[0] if plain else ""):
        row, field = _client_row(names, *found), plain[1] if len(plain) > 1 else ""
        say_field(control, {key: row[key] for key in CLIENT_FIELDS}, field)


def client_terminate(control: Control, names: Names, plain: list[str], options: Options) -> int | None:
    found = _client(control, plain[0] if plain else "")
    if found is None or not mine(control, found[0].uid):
        return None
    mps_wire.send(found[0].link, mps_wire.words("terminate", pid=found[1]))
    return found[0].pid


def device_list(control: Control, names: Names, plain: list[str], options: Options) -> None:
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


COMMANDS: dict[str, dict[str, Command]] = {
    "server": {
        "create": server_create,
        "delete": server_delete,
        "list": server_list,
        "set": server_set,
        "get": server_get,
    },
    "namespace": {
        "create": namespace_create,
        "delete": namespace_delete,
        "list": namespace_list,
        "set": namespace_set,
        "get": namespace_get,
    },
    "client": {"list": client_list, "get": client_get, "terminate": client_terminate},
    "device": {"list": device_list},
    "sm-partition": {
        "create": mps_v3_partitions.create,
        "delete": mps_v3_partitions.delete,
        "list": mps_v3_partitions.listing,
    },
}


def run(control: Control, names: Names, line: str) -> int | None:
    """Carry out one line; the pid of the server whose answer must come first, or None."""
    module, verb, *words = (*line.split(), "", "")[: max(2, len(line.split()))]
    verbs = COMMANDS.get(module, {})
    if verbs and verb == "help":
        control.say(f"Usage: nvidia-cuda-mps-control {module} {'|'.join(verbs)}")
        return None
    if verb not in verbs:
        control.say(f'Unknown command "{line.strip()}"')
        return None
    return verbs[verb](control, names, *read_options(words))
