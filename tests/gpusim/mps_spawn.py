"""Starting a simulated MPS server: fork, become the client's user, exec `nvidia-cuda-mps-server`.

Job: everything between the control daemon's decision and the server's own code. The child binds the server's socket
while it is still the daemon's user, because the pipe directory may be closed to the server's.

Guarantees: the server holds exactly descriptors 3 (link to the control daemon), 4 (its listening socket) and 5
(server.log, where there is one). The end of the link is the end of the server.

On failure: a child that cannot become the user exits with status 1, which the daemon sees like any other death.
"""

from __future__ import annotations

import os

from . import mps_wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket

    from .mps_daemon import Control

SERVER = "nvidia-cuda-mps-server"


class Child:
    """A server as its control daemon knows it.

    `count` counts attached contexts, `clients` lists (pid, context) of those not terminated; `retiring` has been told
    to end, `unwanted` will be told when its last client has left. `name`: protocol 3 alone.
    """

    __slots__ = (
        "clients",
        "count",
        "limits",
        "link",
        "name",
        "path",
        "percentage",
        "pid",
        "retiring",
        "state",
        "uid",
        "unwanted",
    )

    def __init__(
        self, pid: int, uid: int, link: socket, path: str, percentage: float, limits: dict[int, int], name: str
    ) -> None:
        self.name = name
        self.pid = pid
        self.uid = uid
        self.link = link
        self.path = path
        self.state = "INITIALIZING"
        self.clients: list[tuple[int, int]] = []
        self.count = 0
        self.retiring = False
        self.unwanted = False
        self.percentage = percentage
        self.limits = limits


def start(control: Control, uid: int, name: str = "") -> Child:
    """Fork the server; returns at once, while it initialises."""
    ours, theirs = mps_wire.pair()
    pid = os.fork()
    if not pid:
        try:
            _child(control, uid, theirs, name)
        finally:
            os._exit(1)
    theirs.close()
    if not control.dialect.pid_file:
        control.log.note(f"Starting new server {pid} for user {uid}")
    defaults = control.defaults
    config = mps_wire.words(
        "config",
        dialect=control.dialect.name,
        pipe=control.pipe,
        multiuser=int(control.multiuser),
        percentage=defaults.percentage,
        priority=defaults.priority,
        limits=limits_text(defaults.limits),
        partitions=control.partitions.names(),
        static=int(control.partitioned),
        log=int(control.server_log is not None or control.names is not None),
    )
    mps_wire.send(ours, config)
    return Child(pid, uid, ours, _path(control, pid), defaults.percentage, dict(defaults.limits), name)


def limits_text(limits: dict[int, int]) -> str:
    """`device:bytes` pairs, the wire's form of pinned memory limits."""
    return ",".join(f"{device}:{size}" for device, size in sorted(limits.items()))


def _path(control: Control, pid: int) -> str:
    return os.path.join(control.pipe, f"server.{pid}.sock")


def _child(control: Control, uid: int, link: socket, name: str) -> None:
    if control.dialect.pid_file:
        control.log.note(f"Starting new server {os.getpid()} for user {uid}")
    if os.geteuid() not in (0, uid):
        if control.dialect.pid_file:
            control.log.note(control.dialect.say("start_failed", uid=uid))
        return
    listener = mps_wire.listen(_path(control, os.getpid()), 0o666)
    log = control.server_log
    if control.names is not None:
        log = control.names.log(name)
        if devices := control.names.servers[name].devices:
            os.environ["CUDA_VISIBLE_DEVICES"] = devices
    # First out of the way of 3, 4 and 5, then into place.
    sources = [os.dup(link.fileno()), os.dup(listener.fileno())] + ([os.dup(log)] if log is not None else [])
    high = [os.dup2(source, 200 + place) for place, source in enumerate(sources)]
    os.closerange(3, 200)
    for place, source in enumerate(high):
        os.dup2(source, 3 + place)
    os.closerange(200, 200 + len(high))
    if uid != os.geteuid():
        import pwd

        try:
            entry = pwd.getpwuid(uid)
            os.initgroups(entry.pw_name, entry.pw_gid)
            os.setgid(entry.pw_gid)
        except KeyError:
            os.setgroups([])
            os.setgid(uid)
        os.setuid(uid)
    os.execvp(SERVER, [SERVER])  # on PATH alone, as the real daemons look for it
