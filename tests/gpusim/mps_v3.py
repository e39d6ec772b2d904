"""Protocol 3 of the MPS control daemon (driver 615, `-p 3` or CUDA_MPS_PROTOCOL_VERSION=3): named servers at once, with namespaces.

Job: the book of servers and namespaces, and the way of a client to them: by the directory `<pipe>/<server>/<namespace>`, by
`<pipe>/<server>` to the namespace `default`, or from `<pipe>` to the server `uid_<uid>`, which is made when it is missed. The commands
are in mps_v3_commands.py, the file that `--apply` names in mps_v3_config.py.

Source: **documented, not recorded**: directories, the `log` pipe of a server and routing follow NVIDIA's MPS document for 615. A
namespace's limit and percentage are what a client is told when it attaches; they change for those who come later. Of a server's locality
domains and of the features it is only kept how they are set: what they do is not simulated.

A server is known from its creation to the end of its process, and runs from its first `Ready` on: our reading of the document, which
speaks of servers that are "not yet running" and does not say when that is. Its examples use a server right after `server create`, so that
command answers when the server is there; what is left are the servers of the configuration file and those made for a client, while they
initialise.

On failure: a server that cannot start is gone with its directories, and its clients then run without MPS, silently: documented as a trap.
"""

from __future__ import annotations

import contextlib
import os

from . import mps_log, mps_wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket

    from .mps_daemon import Control
    from .mps_spawn import Child

MODULES = ("server", "namespace", "client", "device", "sm-partition", "feature", "memacct", "context-share")
FEATURES = ("memacct", "context-share")
"""All enabled at the start (documented)."""
NAMESPACE = "default"
PIPE_OF_ROOT = "/run/nvidia-mps"
LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_")
LONGEST_NAME = 64
UNITS = {"K": 10, "M": 20, "G": 30}


def good_name(name: str) -> bool:
    """Names are lowercase letters, digits and underscores (documented)."""
    return 0 < len(name) <= LONGEST_NAME and LETTERS.issuperset(name)


class Space:
    """A namespace: its limits as they were given (empty: none), and its socket."""

    __slots__ = ("limit", "percentage", "priority", "sock")

    def __init__(self, sock: socket) -> None:
        self.sock = sock
        self.limit = self.percentage = self.priority = ""


class Server:
    """A named server: whose it is, which devices it may use, its own socket, its namespaces, whether it has locality domains."""

    __slots__ = ("devices", "locality", "sock", "spaces", "uid")

    def __init__(self, uid: int, devices: str, sock: socket, locality: bool) -> None:
        self.uid = uid
        self.devices = devices
        self.locality = locality
        self.sock = sock
        self.spaces: dict[str, Space] = {}


class Partition:
    """A static SM partition: what was asked for, and its id once it is on the GPU (empty: configured)."""

    __slots__ = ("chunks", "ident", "remainder")

    def __init__(self, chunks: int, remainder: bool) -> None:
        self.chunks = chunks
        self.remainder = remainder
        self.ident = ""


class Names:
    """All of them, and who came in by which door: `asked` by descriptor, `space_of` by process.

    `partitions` by server, device and name; `enabled` are the features, `audit_log` is the one setting of memacct.
    """

    def __init__(self, pipe: str, logs: str) -> None:
        self.pipe = pipe
        self.logs = logs
        self.servers: dict[str, Server] = {}
        self.partitions: dict[tuple[str, str, str], Partition] = {}
        self.enabled = dict.fromkeys(FEATURES, True)
        self.audit_log = False
        self.asked: dict[int, tuple[str, str]] = {}
        self.space_of: dict[int, str] = {}

    def folder(self, server: str, space: str = "") -> str:
        return os.path.join(self.pipe, server, space).rstrip("/")

    def listen(self, server: str, space: str = "") -> socket:
        """A new socket in a directory of its own, for a server beside a fifo `log`; OSError where that cannot be."""
        folder = self.folder(server, space)
        os.makedirs(folder, exist_ok=True)
        try:
            sock = mps_wire.listen(os.path.join(folder, "control"), 0o666)
        except OSError:
            with contextlib.suppress(OSError):
                os.rmdir(folder)
            raise
        fifo = os.path.join(folder, "log")
        if not space and not os.path.lexists(fifo):
            os.mkfifo(fifo)
            os.chmod(fifo, 0o777)  # as the daemon's own
        return sock

    def log(self, server: str) -> int | None:
        """The descriptor of its server.log, None where that cannot be written."""
        folder = os.path.join(self.logs, server)
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
        except OSError:
            return None
        return mps_log.append(os.path.join(folder, "server.log"))

    def accepted(self, listener: socket, fresh: socket) -> None:
        """Remember by which socket somebody came."""
        for name, server in self.servers.items():
            for space, held in ((NAMESPACE, server.sock), *((one, it.sock) for one, it in server.spaces.items())):
                if held is listener:
                    self.asked[fresh.fileno()] = (name, space)
                    return
        self.asked.pop(fresh.fileno(), None)

    def close(self, server: str, space: str = "") -> None:
        """Remove a socket and its directory."""
        folder = self.folder(server, space)
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(folder, "control"))
            if not space:
                os.unlink(os.path.join(folder, "log"))
            os.rmdir(folder)


def _open(control: Control, names: Names, server: str, space: str = "") -> socket:
    sock = names.listen(server, space)
    control.listeners.append(sock)
    control.watch(sock)
    return sock


def _shut(control: Control, names: Names, sock: socket, server: str, space: str = "") -> None:
    control.listeners.remove(sock)
    control.forget(sock)
    names.close(server, space)


def create(control: Control, names: Names, name: str, uid: int, devices: str = "", *, locality: bool = False) -> Child:
    """A named server with everything that it needs; OSError where its directory cannot be made."""
    names.servers[name] = Server(uid, devices, _open(control, names, name), locality)
    try:
        create_space(control, names, name, NAMESPACE)
    except OSError:
        _shut(control, names, names.servers.pop(name).sock, name)
        raise
    return control.start_server(uid, name)


def create_space(control: Control, names: Names, server: str, space: str) -> None:
    names.servers[server].spaces[space] = Space(_open(control, names, server, space))


def delete_space(control: Control, names: Names, server: str, space: str) -> None:
    """Nobody comes in by it any more; who is in stays."""
    _shut(control, names, names.servers[server].spaces.pop(space).sock, server, space)


def gone(control: Control, names: Names, name: str) -> None:
    """Its process has ended."""
    for space in list(names.servers[name].spaces):
        delete_space(control, names, name, space)
    _shut(control, names, names.servers.pop(name).sock, name)
    for key in [one for one in names.partitions if one[0] == name]:
        control.partitions.of.get(key[1], {}).pop(names.partitions.pop(key).ident, None)


def wanted(control: Control, names: Names, sock: socket, pid: int, uid: int) -> str:
    """The server that a client's door leads to; the one of its user, made on demand, without a door of its own."""
    name, space = names.asked.pop(sock.fileno(), (f"uid_{uid}", NAMESPACE))
    if name not in names.servers:
        create(control, names, name, uid)
    names.space_of[pid] = space
    return name


def size(text: str) -> int | None:
    """`4G`, `512M` or `1024K` in bytes, else None."""
    number, unit = text[:-1], text[-1:].upper()
    return int(number) << UNITS[unit] if number.isdigit() and unit in UNITS else None


def admit(names: Names, child: Child, pid: int) -> None:
    """Tell a server, before its client learns where it is, what the client's namespace allows."""
    space = names.servers[child.name].spaces.get(names.space_of.get(pid, NAMESPACE))
    limit = size(space.limit) if space else None
    percentage = space.percentage if space else ""
    mps_wire.send(child.link, mps_wire.words("admit", pid=pid, limit=limit or 0, percentage=percentage or 100))
