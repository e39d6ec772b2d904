"""The simulated control daemon: one loop over its sockets, its servers and its one administrator.

Job: bring CUDA clients to a server of their uid (one active uid unless multi-user), start and end servers, serve one
administrator's front end at a time.

Guarantees: messages of servers are read before anything else in a round, so an administrator never sees a state older
than what a client has been told. Output of a command also stands in control.log, as with the real daemon.

On failure: a server that dies is logged and forgotten; one that cannot start is tried six times, then its clients get
805. The daemon itself may be killed at any time: it leaves its sockets and its pid file, and the next one starts over
them.
"""

from __future__ import annotations

import os
import select
import time

from . import mps_commands, mps_inject, mps_partitions, mps_spawn, mps_v3, mps_v3_commands, mps_v3_partitions, mps_wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket

    from .dialect import Dialect
    from .mps_log import Log
    from .mps_spawn import Child

ATTEMPTS = 6
"""Servers that the real daemon starts for one client's request before it gives up (gpusim.md, trap 6)."""
CUDA_SERVER_NOT_READY, CUDA_CONNECTION_FAILED = 807, 805


class Options:
    """How the daemon was started: flags, the descriptor of server.log (or None).

    `names` are the named servers of protocol 3, None with protocol 2.
    """

    __slots__ = ("multiuser", "names", "partitioned", "server_log")

    def __init__(self, multiuser: bool, partitioned: bool, server_log: int | None, names: mps_v3.Names | None) -> None:
        self.names = names
        self.multiuser = multiuser
        self.partitioned = partitioned
        self.server_log = server_log


class Control:
    """All of the daemon's state. `ui` is the front end that is being served, `pending` the clients that wait for
    a server."""

    def __init__(self, dialect: Dialect, log: Log, pipe: str, listeners: list[socket], options: Options) -> None:
        self.dialect = dialect
        self.log = log
        self.pipe = pipe
        self.multiuser = options.multiuser
        self.partitioned = options.partitioned
        self.partitions = mps_partitions.Partitions()
        self.server_log = options.server_log
        self.names = options.names
        self.listeners = listeners
        self.servers: dict[int, Child] = {}
        self.pending: list[tuple[socket, int, int, str]] = []
        self.ui: socket | None = None
        self.ui_uid = 0
        self.waiting: int | None = None
        self.wanted: int | None = None
        self.failures = 0
        self.clean = True
        self.quitting: float | None = None
        self.defaults = mps_commands.Defaults.from_environment()
        self.peers: dict[int, socket] = {}
        self.poll = select.poll()
        for sock in listeners:
            self.watch(sock)

    def watch(self, sock: socket) -> None:
        self.peers[sock.fileno()] = sock
        self.poll.register(sock.fileno(), select.POLLIN)

    def forget(self, sock: socket) -> None:
        if self.peers.pop(sock.fileno(), None) is not None:
            self.poll.unregister(sock.fileno())
        sock.close()

    # -- servers ---

    def start_server(self, uid: int, name: str = "") -> Child:
        """Fork a server for `uid`; one that the kernel does not let become that user dies at once."""
        child = mps_spawn.start(self, os.geteuid() if self.multiuser else uid, name)
        self.servers[child.pid] = child
        self.watch(child.link)
        return child

    def server_of(self, uid: int, name: str = "") -> Child | None:
        """The living server that clients of `uid` join; with protocol 3 the one of that name."""
        named = self.names is not None
        fit = (
            one for one in self.servers.values() if (one.name == name if named else self.multiuser or one.uid == uid)
        )
        return next((one for one in fit if not one.retiring), None)

    def retire(self, child: Child) -> None:
        """Tell a server to take nobody in and to end with its last client."""
        child.retiring = True
        mps_wire.send(child.link, mps_wire.words("shutdown", force=0, retire=1))

    def retire_others(self, uid: int) -> None:
        """Make room for a server of `uid`: only one uid is served at a time."""
        for child in self.servers.values():
            if child.uid != uid and not child.retiring:
                self.retire(child)

    def hear_server(self, child: Child) -> None:
        """A packet of a server, or its end."""
        packet = mps_wire.receive(child.link)
        if not packet:
            self.bury(child)
            return
        verb, values = mps_wire.parse(packet)
        if verb == "state":
            first = child.state == "INITIALIZING"
            child.state = values["name"]
            if child.state == "ACTIVE":
                self.failures = 0
                self.log.note(f"NEW SERVER {child.pid}: Ready")
                if first and self.names is not None:
                    mps_v3_partitions.apply(self, self.names, child)
                    if self.waiting == child.pid:  # for `server create`
                        self.end_command()
                self.settle()
        elif verb == "hello":
            self.log.note("Accepting connection...")
        elif verb == "clients":
            child.count = int(values["count"])
            child.clients = [
                (int(p), int(c)) for p, c in (word.split(":") for word in values["list"].split(",") if word)
            ]
            if child.unwanted and not child.count:
                self.retire(child)
        elif verb == "failed":
            self.log.note("Server encountered a fatal exception. Shutting down")
        elif verb == "terminated" and self.waiting == child.pid:
            self.say(values["result"])
            self.end_command()

    def bury(self, child: Child) -> None:
        """A server's link has ended: reap it, tidy up, answer who waited for it."""
        self.forget(child.link)
        del self.servers[child.pid]
        _, raw = os.waitpid(child.pid, 0)
        status = os.waitstatus_to_exitcode(raw)
        self.log.note(f"Server {child.pid} exited with status {abs(status)}")
        self.clean = self.clean and status == 0
        if not self.dialect.lazy and not self.servers and self.last_attempt(child):
            self.log.note("Removed Shm file at ")
        if os.path.lexists(child.path):
            os.unlink(child.path)
        if self.waiting == child.pid:
            self.end_command()
        if self.names is not None:
            mps_v3.gone(self, self.names, child.name)
            self.refuse_pending(child.name)
        elif child.state == "INITIALIZING" and self.pending:
            self.failures += 1
            if self.failures >= ATTEMPTS:
                self.failures = 0
                self.refuse_pending()
        self.settle()

    def last_attempt(self, child: Child) -> bool:
        """Will no further server be tried for those who wait?"""
        return not self.pending or child.state != "INITIALIZING" or self.failures >= ATTEMPTS - 1

    def refuse_pending(self, name: str | None = None) -> None:
        """Send those away who wait; only for one server with `name`."""
        for sock, _, _, wanted in self.pending:
            if name in (None, wanted):
                mps_wire.send(sock, mps_wire.words("error", code=CUDA_CONNECTION_FAILED))
                self.forget(sock)
        self.pending = [entry for entry in self.pending if name not in (None, entry[3])]

    # -- clients ---

    def new_client(self, sock: socket) -> None:
        """A CUDA program asks for a server."""
        pid, uid = mps_wire.credentials(sock)
        if self.quitting is not None:
            self.answer(sock, CUDA_CONNECTION_FAILED)
            return
        name = mps_v3.wanted(self, self.names, sock, pid, uid) if self.names is not None else ""
        child = self.server_of(uid, name)
        if child is not None and child.state == "FAULT":
            self.answer(sock, CUDA_SERVER_NOT_READY)
            return
        ready = child is not None and child.state == "ACTIVE"
        outcome = "Server already exists" if ready else "Server is not ready, push client to pending list"
        self.log.note(f"NEW CLIENT {pid} from user {uid}: {outcome}")
        self.pending.append((sock, pid, uid, name))
        if child is None and self.names is None:
            self.retire_others(uid)
            if any(other.count for other in self.servers.values()) and not mps_inject.number("other_uid_waits", 0):
                self.pending.pop()
                self.answer(sock, CUDA_SERVER_NOT_READY)
        self.settle()

    def answer(self, sock: socket, code: int) -> None:
        """Refuse one client."""
        mps_wire.send(sock, mps_wire.words("error", code=code))
        self.forget(sock)

    def settle(self) -> None:
        """Bring waiting clients to ready servers; start a server for the first who has none when nobody
        else's is left."""
        waiting = []
        for sock, pid, uid, name in self.pending:
            child = self.server_of(uid, name)
            if child is not None and child.state == "FAULT":
                self.answer(sock, CUDA_SERVER_NOT_READY)
            elif child is not None and child.state == "ACTIVE":
                if self.names is not None:
                    mps_v3.admit(self.names, child, pid)
                mps_wire.send(sock, mps_wire.words("server", pid=child.pid, path=child.path))
                self.forget(sock)
            else:
                waiting.append((sock, pid, uid, name))
        self.pending = waiting
        if self.servers or self.names is not None:
            return
        if waiting:
            self.start_server(waiting[0][2])
        elif self.wanted is not None:
            self.start_server(self.wanted)
        self.wanted = None

    # -- the administrator ---

    def say(self, text: str) -> None:
        """A line for the administrator, and into control.log."""
        self.log.note(text)
        if self.ui is not None:
            mps_wire.send(self.ui, b"out " + text.encode())

    def blank(self) -> None:
        """An empty line for the administrator; the log has none."""
        if self.ui is not None:
            mps_wire.send(self.ui, b"out ")

    def end_command(self) -> None:
        """The command is done: the front end may send its next line."""
        self.waiting = None
        if self.ui is not None:
            mps_wire.send(self.ui, b"end")

    def new_ui(self, sock: socket) -> None:
        """A front end; while another is open it gets nothing, in one of several ways at random (trap 1)."""
        if self.ui is not None:
            style = mps_inject.number("ui_busy", 0) or 1 + os.urandom(1)[0] % self.dialect.busy_ways
            mps_wire.send(sock, mps_wire.words("busy", style=style))
            self.forget(sock)
            return
        self.ui = sock
        self.ui_uid = mps_wire.credentials(sock)[1]
        self.log.note("Accepting connection...")
        self.log.note("NEW UI")
        mps_wire.send(sock, b"welcome")

    def hear_ui(self, sock: socket) -> None:
        """One command line, or the end of the front end."""
        packet = mps_wire.receive(sock)
        if not packet.startswith(b"cmd "):
            self.log.note("UI closed")
            self.ui = None
            self.waiting = None
            self.forget(sock)
            return
        line = packet[4:].decode(errors="replace")
        self.log.note(f"Cmd:{line}")
        if self.names is not None and line.split()[:1] != ["quit"]:
            self.waiting = mps_v3_commands.run(self, self.names, line)
        else:
            self.waiting = mps_commands.run(self, line)
        if self.waiting is None and self.quitting is None:
            self.end_command()
        if self.dialect.line_bytes and len(packet) - 4 >= self.dialect.line_bytes:
            os.kill(os.getpid(), 9)  # trap 5: the real daemon dies of it, too

    # -- the loop ---

    def quit(self, seconds: float | None) -> None:
        """No new clients; servers go when their clients have left, or by force after `seconds`."""
        self.quitting = float("inf") if seconds is None else time.monotonic() + seconds
        self.refuse_pending()
        self.wanted = None
        for child in self.servers.values():
            self.retire(child)

    def tick(self) -> float | None:
        """Milliseconds until something is due, or None; forces the servers down when `quit -t` says so."""
        if self.quitting is None or self.quitting == float("inf"):
            return None
        left = self.quitting - time.monotonic()
        if left > 0:
            return left * 1000 + 1
        self.quitting = float("inf")
        for child in self.servers.values():
            self.log.note(f"Force shutting down server {child.pid}")
            mps_wire.send(child.link, mps_wire.words("shutdown", force=1, retire=1))
        return None

    def first_packet(self, sock: socket) -> None:
        """Who has connected? A client says `client`, a front end `ui`; whoever says anything else is dropped."""
        verb, _ = mps_wire.parse(mps_wire.receive(sock))
        if verb == "ui":
            self.new_ui(sock)
        elif verb == "client":
            self.log.note("Accepting connection...")
            self.log.note("User did not send valid credentials")
            self.log.note("Accepting connection...")
            self.new_client(sock)
        else:
            self.forget(sock)

    def round(self, ready: set[int]) -> None:
        """One round over the ready descriptors: servers first."""
        for child in [one for one in self.servers.values() if one.link.fileno() in ready]:
            self.hear_server(child)
        waiting = {sock.fileno(): entry for entry in self.pending for sock in (entry[0],)}
        for descriptor in ready:
            sock = self.peers.get(descriptor)
            if sock is None or any(one.link is sock for one in self.servers.values()):
                continue
            if sock in self.listeners:
                fresh = mps_wire.accept(sock)
                if fresh is not None:
                    self.watch(fresh)
                    if self.names is not None:
                        self.names.accepted(sock, fresh)
            elif sock is self.ui:
                self.hear_ui(sock)
            elif descriptor in waiting:
                self.pending.remove(waiting[descriptor])
                self.forget(sock)
            else:
                self.first_packet(sock)

    def run(self) -> None:
        """Serve until `quit` and the end of the last server."""
        while self.quitting is None or self.servers:
            self.round({descriptor for descriptor, _ in self.poll.poll(self.tick())})
        self.log.note(f"Exit with status {0 if self.clean else 1}")
