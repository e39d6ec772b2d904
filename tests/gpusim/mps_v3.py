"""Protocol 3 of the MPS control daemon (driver 615, `-p 3` or CUDA_MPS_PROTOCOL_VERSION=3): several named servers at once.

Job: `server create|list|get|delete`, `client list|terminate`, `sm-partition create`, and the way of a client to its server: by the
directory `<pipe>/<server>/<namespace>`, or from `<pipe>` to the server `uid_<uid>`, which is made when it is missed.

Source: **documented, not recorded**. Commands, options, the columns of `server list` and the directories follow NVIDIA's MPS document
for 615; wording of errors, what is printed where the document shows nothing, and `quit` on standard input are ours. Of namespaces there
is `default` alone; `server set`, `namespace`, `client get`, `device`, `feature`, `memacct`, `context-share` and `--apply` are not simulated
and unknown.

On failure: an answer in words, nothing changes. A server that cannot start is gone with its directory, and its clients then run
without MPS, silently: documented as a trap.
"""

from __future__ import annotations

import os

from . import mps_host, mps_inject, mps_log, mps_wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket

    from .mps_daemon import Control
    from .mps_spawn import Child

MODULES = ("server", "client", "sm-partition")
NAMESPACE = "default"
PIPE_OF_ROOT = "/run/nvidia-mps"
COLUMNS = ("name", "uid", "pid", "status", "pipe-directory", "allowed-devices", "context-ids")
STATUS = {"ACTIVE": "Ready", "INITIALIZING": "Initializing", "FAULT": "Fault"}


class Names:
    """The named servers: who they are for, which devices they may use, and the socket of each."""

    def __init__(self, pipe: str, logs: str) -> None:
        self.pipe = pipe
        self.logs = logs
        self.uid: dict[str, int] = {}
        self.devices: dict[str, str] = {}
        self.sockets: dict[str, socket] = {}
        self.asked: dict[int, str] = {}

    def folder(self, name: str) -> str:
        return os.path.join(self.pipe, name, NAMESPACE)

    def open(self, name: str, uid: int, devices: str) -> socket:
        """Its directory and socket; the server is the caller's business."""
        os.makedirs(self.folder(name), exist_ok=True)
        self.uid[name], self.devices[name] = uid, devices
        self.sockets[name] = mps_wire.listen(os.path.join(self.folder(name), "control"), 0o666)
        return self.sockets[name]

    def log(self, name: str) -> int | None:
        """The descriptor of its server.log, None where that cannot be written."""
        folder = os.path.join(self.logs, name)
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
        except OSError:
            return None
        return mps_log.append(os.path.join(folder, "server.log"))

    def accepted(self, listener: socket, fresh: socket) -> None:
        """Remember by which server's socket somebody came."""
        name = next((one for one, sock in self.sockets.items() if sock is listener), "")
        self.asked[fresh.fileno()] = name

    def close(self, name: str) -> socket:
        """Forget it; the socket to be taken out of the loop."""
        os.unlink(os.path.join(self.folder(name), "control"))
        os.removedirs(self.folder(name))
        del self.uid[name], self.devices[name]
        return self.sockets.pop(name)


def create(control: Control, names: Names, name: str, uid: int, devices: str = "") -> None:
    """A named server with everything that it needs."""
    listener = names.open(name, uid, devices)
    control.listeners.append(listener)
    control.watch(listener)
    control.start_server(uid, name)


def gone(control: Control, names: Names, name: str) -> None:
    """Its process has ended."""
    listener = names.close(name)
    control.listeners.remove(listener)
    control.forget(listener)


def _options(words: list[str]) -> tuple[list[str], dict[str, str]]:
    """Plain words, and `--key=value` by key."""
    plain = [word for word in words if not word.startswith("--")]
    return plain, dict(word[2:].partition("=")[::2] for word in words if word.startswith("--"))


def _row(names: Names, child: Child) -> dict[str, str]:
    ids = " ".join(str(context) for _, context in child.clients)
    values = (child.name, str(child.uid), str(child.pid), STATUS.get(child.state, child.state), names.folder(child.name),
              names.devices[child.name] or "all", ids)  # fmt: skip
    return dict(zip(COLUMNS, values, strict=True))


def _server(control: Control, name: str) -> Child | None:
    child = next((one for one in control.servers.values() if one.name == name), None)
    if child is None:
        control.say(f"Server {name} not found")
    return child


def _server_command(control: Control, names: Names, plain: list[str], options: dict[str, str]) -> None:
    verb, name = plain[0], plain[1] if len(plain) > 1 else ""
    found: Child | None
    if verb == "list":
        if "noheader" not in options.get("format", ""):
            control.say(",".join(COLUMNS))
        for child in control.servers.values():
            control.say(",".join(_row(names, child).values()))
    elif not name:
        control.say(f"A server name is required: server {verb} <name>")
    elif verb == "create":
        uid = options.get("uid", str(control.ui_uid))
        if name in names.uid:
            control.say(f"Server {name} already exists")
        elif not uid.isdigit() or control.ui_uid not in (0, int(uid)):
            control.say(f"Server {name} cannot be created for user {uid}")
        else:
            create(control, names, name, int(uid), options.get("allowed-devices", ""))
    elif verb == "get":
        found = _server(control, name)
        field = plain[2] if len(plain) > 2 else ""
        if found is not None:
            control.say(_row(names, found).get(field, f"Unknown field {field}"))
    elif (found := _server(control, name)) is not None:
        if found.count and "force" not in options:
            control.say(f"Server {name} has {found.count} clients")
        else:
            mps_wire.send(found.link, mps_wire.words("shutdown", force=1, retire=1))


def _client_command(control: Control, plain: list[str]) -> int | None:
    if plain[0] == "list":
        for child in control.servers.values():
            for pid in dict.fromkeys(pid for pid, _ in child.clients):
                control.say(f"{pid},{child.name},{NAMESPACE}")
        return None
    pid = int(plain[1]) if len(plain) > 1 and plain[1].isdigit() else 0
    for child in control.servers.values():
        if any(one == pid for one, _ in child.clients):
            mps_wire.send(child.link, mps_wire.words("terminate", pid=pid))
            return child.pid
    control.say(f"Client {pid} not found")
    return None


def _partition_command(control: Control, plain: list[str], options: dict[str, str]) -> None:
    host = mps_host.read()
    gpus = [gpu.uuid for gpu in host.gpus] if host else []
    size = mps_inject.number("chunk_sms", 8)
    gpu, chunks = options.get("device", ""), options.get("chunks", "")
    free = mps_inject.number("sm_count", 132) // size - sum(control.partitions.of.get(gpu, {}).values())
    if len(plain) < 2 or _server(control, options.get("server", "")) is None:
        return
    if gpu not in gpus:
        control.say(f"Device {gpu} not found")
    elif not chunks.isdigit() or not 1 <= int(chunks) <= free:
        control.say(f"{chunks or 'No'} chunks are not to be had: {free} are free")
    else:
        control.say(f"{gpu}/{control.partitions.add(gpu, int(chunks))}")
        for child in control.servers.values():
            mps_wire.send(child.link, mps_wire.words("partitions", list=control.partitions.names()))


VERBS = {"server": ("create", "list", "get", "delete"), "client": ("list", "terminate"), "sm-partition": ("create",)}


def run(control: Control, names: Names, line: str) -> int | None:
    """Carry out one line; the pid of the server whose answer must come first, or None."""
    words = line.split()
    plain, options = _options(words[1:])
    if not words or not plain or plain[0] not in VERBS.get(words[0], ()):
        control.say(f'Unknown command "{line.strip()}"')
        return None
    if words[0] == "server":
        _server_command(control, names, plain, options)
    elif words[0] == "client":
        return _client_command(control, plain)
    else:
        _partition_command(control, plain, options)
    return None
