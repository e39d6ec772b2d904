"""The keeper of one task's kept state: `python -E -m resilience.state.keeper --socket PATH [--limit-mib N]`.

It holds descriptors (device memory exported by the program, and the commit record) so that the memory outlives the
program. It maps nothing, loads no CUDA library and is no client of an MPS server, so no GPU fault can reach it.
Standard library only, small, one thread; nothing but poll() while idle.

Who may talk to it: a peer with the keeper's own uid that shows the token (MPSR_TOKEN) or, as a standby, the standby's
(MPSR_STANDBY_TOKEN). Everyone else gets `refused` and a line on the keeper's standard error, which the supervisor passes
to the recovery log. One connection at most is the writer.

A standby is told what is held and gets no descriptor but the table's: it cannot reach the memory that another process works
on. `take` gives it them, against the token that the supervisor sends with the word `promote` and not before.

It ends when its parent (the supervisor) has gone, on SIGTERM and SIGINT, and removes its socket. It may be SIGKILLed:
the program still holds the descriptors and deposits them with the next keeper. A supervisor that ends by itself has the
wiper (resilience/state/wipe.py) overwrite what is held; after one that was killed the keeper overwrites the part in host
memory, once the task's processes have gone.

Messages (JSON objects, resilience/state/wire.py), program → keeper and its answer:

    attach v token role            attached writer layout + descriptors (layout null: nothing is held yet)
    put layout + descriptors       held bytes                           writer only; replaces what was held
    drop                           dropped                              writer only: its program has ended well
    wait                           layout layout + descriptors          answered as soon as something is held
    take token expected            taken layout + descriptors           a standby that was promoted: it is the writer
    status                         status regions bytes limit_mib peers writer sequence step
    anything else, or not allowed  refused reason busy             busy: the old writer still lives, try again

`expected` true: something was held; while nothing is, the writer stays who it is. `role` is active, standby (the table
alone before `take`) or reader. A layout is an object with `name`, whose it is, and `regions`: the size in bytes of each
descriptor's memory, in order. Before those come two that are not among them: the table, which says what lies where and is
sealed (resilience/state/table.py), and the commit record. The keeper reads neither the table nor the name.
"""

import contextlib
import os
import select
import signal
import socket
import sys
import time
from typing import Any, NoReturn

from resilience.adapters.linux.readable import readable
from resilience.model.errors import ResilienceError, StateError, WireError
from resilience.parse import ucred
from resilience.state import record, table, wiping, wire
from resilience.state.names import EXIT_OK, EXIT_USAGE, STANDBY_TOKEN, STATE_VERSION, TOKEN

_MAX_PEERS = 64
"""Connections at once; a task has two or three."""
_MIB = 1 << 20
_FAREWELL = 2.0
"""Seconds for the task's processes to end when the supervisor has."""
_LOOK = 0.01
_ROLES = ("active", "standby", "reader")


class KeeperRefusal(Exception):
    """The peer asked for what it cannot have; str() is the reason it is told. `busy`: it may have it a little later."""

    busy = False


class Busy(KeeperRefusal):
    busy = True


class KeeperPeer:
    """One connection. `role` is empty until it has attached."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.pid, self.uid, _ = ucred.peer(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, ucred.SIZE))
        self.role = ""
        self.waits = False

    def lives(self) -> bool:
        """The process that connected has not ended (a child of it may still hold the connection)."""
        try:
            pidfd = os.pidfd_open(self.pid)
        except OSError:
            return False
        try:
            return not readable(pidfd, timeout=0)
        finally:
            os.close(pidfd)


class Holdings:
    """What is held: a layout and its descriptors. Empty before the first deposit."""

    def __init__(self, limit_mib: int) -> None:
        self.limit_mib = limit_mib
        self.layout: dict[str, Any] | None = None
        self.fds: list[int] = []
        self.total = 0

    def replace(self, layout: object, fds: list[int]) -> None:
        """Take a deposit in place of what was held. Raises Refused and then keeps what it had."""
        regions = layout.get("regions") if isinstance(layout, dict) else None
        if not isinstance(layout, dict) or not isinstance(regions, list):
            raise KeeperRefusal("layout has no list of regions")
        if not all(type(size) is int and size > 0 for size in regions):
            raise KeeperRefusal("sizes of regions must be whole numbers above 0")
        if len(fds) != len(regions) + 2:
            needed = f"{len(regions)} regions, a table and a record need {len(regions) + 2} descriptors"
            raise KeeperRefusal(f"{needed}, not {len(fds)}")
        total = sum(regions)
        if self.limit_mib and total > self.limit_mib * _MIB:
            raise KeeperRefusal(
                f"kept state of {total / _MIB:.0f} MiB is over the limit of {self.limit_mib} MiB (--mps-state); "
                "a kept array counts twice"
            )
        if not table.sealed(fds[0]):
            raise KeeperRefusal("the first descriptor is not a table")
        try:
            readable = len(os.pread(fds[1], record.SIZE, 0)) >= record.SMALLEST
        except OSError:
            readable = False
        if not readable:
            raise KeeperRefusal("the second descriptor is not a commit record")
        self.drop()
        self.layout, self.fds, self.total = layout, fds, total

    def overwrite(self) -> None:
        """The part in host memory; device memory needs a context."""
        wiping.overwrite([*self.fds[1:2], *(fd for fd in self.fds[2:] if wiping.of_host(fd))])

    def drop(self) -> None:
        wire.close_all(self.fds)
        self.layout, self.fds, self.total = None, [], 0


class Keeper:
    """The table of peers and what is held. `serve` runs until the parent has gone or a signal came."""

    def __init__(self, listener: socket.socket, *, token: str, standby_token: str, limit_mib: int) -> None:
        self._listener = listener
        self._token = token.encode()
        self._standby_token = standby_token.encode() or self._token
        self._held = Holdings(limit_mib)
        self._peers: dict[int, KeeperPeer] = {}
        self._writer: KeeperPeer | None = None
        self._refusals = 0
        self._poll = select.poll()

    def serve(self, parent: int) -> None:
        """`parent` is a pidfd of the process to live for."""
        self._poll.register(self._listener, select.POLLIN)
        self._poll.register(parent, select.POLLIN)
        while True:
            for fd, _ in self._poll.poll():
                if fd == parent:
                    return self._farewell()
                if fd == self._listener.fileno():
                    self._accept()
                elif fd in self._peers:
                    self._hear(self._peers[fd])

    def _farewell(self) -> None:
        """The supervisor was killed, and so are the task's processes: what they have left is overwritten. One that lives on
        may use it: it is left as it is then."""
        until = time.monotonic() + _FAREWELL
        while self._peers and time.monotonic() < until:
            for peer in list(self._peers.values()):
                if readable(peer.connection.fileno(), timeout=_LOOK):
                    self._hear(peer)
        if not self._peers:
            self._held.overwrite()

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return  # the peer has gone already, or no descriptor is left: poll says so again
        connection.setblocking(False)
        peer = KeeperPeer(connection)
        reason = ""
        if peer.uid != os.geteuid():
            reason = f"uid {peer.uid} is not the job's user"
        elif len(self._peers) >= _MAX_PEERS:
            reason = f"more than {_MAX_PEERS} connections"
        if reason:
            self._tell_refused(peer, reason)
            connection.close()
            return
        self._peers[connection.fileno()] = peer
        self._poll.register(connection, select.POLLIN)

    def _hear(self, peer: KeeperPeer) -> None:
        try:
            packet = wire.receive(peer.connection)
        except BlockingIOError:
            return None
        except WireError as error:
            self._tell_refused(peer, str(error))
            return self._drop(peer)
        except OSError:
            packet = None
        if packet is None:
            return self._drop(peer)
        message, fds = packet
        try:
            taken = self._answer(peer, message, fds)
        except KeeperRefusal as refusal:
            taken = False
            self._tell_refused(peer, str(refusal), busy=refusal.busy)
            if not peer.role:
                self._drop(peer)
        if not taken:
            wire.close_all(fds)
        return None

    def _answer(self, peer: KeeperPeer, message: wire.Message, fds: list[int]) -> bool:
        """Do what a message asks; True when its descriptors are now held."""
        op = message["op"]
        if op == "attach":
            self._attach(peer, message)
        elif not peer.role:
            raise KeeperRefusal("attach first")
        elif op == "put":
            if peer is not self._writer:
                raise KeeperRefusal("this connection is not the writer")
            self._held.replace(message.get("layout"), fds)
            self._send(peer, {"op": "held", "bytes": self._held.total})
            for other in list(self._peers.values()):
                if other.waits:
                    self._hand_out(other, {"op": "layout"})
            return True
        elif op == "wait" and self._held.layout is None:
            peer.waits = True
        elif op == "wait":
            self._hand_out(peer, {"op": "layout"})
        elif op == "take":
            self._take(peer, message)
        elif op == "drop":
            if peer is not self._writer:
                raise KeeperRefusal("this connection is not the writer")
            self._held.drop()
            self._send(peer, {"op": "dropped"})
        elif op == "status":
            self._send(peer, self._status())
        else:
            raise KeeperRefusal(f"unknown op {op[:40]!r}")
        return False

    def _attach(self, peer: KeeperPeer, message: wire.Message) -> None:
        if message.get("v") != STATE_VERSION:
            raise KeeperRefusal(f"speaks version {message.get('v')!r}, the keeper version {STATE_VERSION}")
        role = message.get("role")
        known = self._shows(message, self._token)
        if not known and not (role == "standby" and self._shows(message, self._standby_token)):
            raise KeeperRefusal("wrong token")
        if role not in _ROLES:
            raise KeeperRefusal(f"role {role!r:.40} is none of {', '.join(_ROLES)}")
        if role == "active":
            if self._writer not in (None, peer) and self._writer is not None and self._writer.lives():
                raise Busy(f"process {self._writer.pid} is the writer")
            self._writer = peer
        peer.role = role
        self._hand_out(peer, {"op": "attached", "writer": peer is self._writer})

    @staticmethod
    def _shows(message: wire.Message, secret: bytes) -> bool:
        token = message.get("token")
        return isinstance(token, str) and _same(token.encode(errors="replace"), secret)

    def _take(self, peer: KeeperPeer, message: wire.Message) -> None:
        if peer.role != "standby":
            raise KeeperRefusal(f"{peer.role} is no standby")
        if not self._shows(message, self._token):
            raise KeeperRefusal("a standby that was not promoted")
        if self._held.layout is None and message.get("expected") is True:
            return self._send(
                peer, {"op": "taken", "layout": None}
            )  # who has it is to come, and be the writer till then
        peer.role = "active"
        self._writer = peer
        return self._hand_out(peer, {"op": "taken"})

    def _hand_out(self, peer: KeeperPeer, answer: wire.Message) -> None:
        peer.waits = False
        shown = self._held.fds[:1] if peer.role == "standby" else self._held.fds
        self._send(peer, answer | {"layout": self._held.layout}, shown)

    def _status(self) -> wire.Message:
        commit = next(iter(record.read_fd(self._held.fds[1])), None) if self._held.fds else None
        return {
            "op": "status",
            "regions": len(self._held.layout["regions"]) if self._held.layout else 0,
            "bytes": self._held.total,
            "limit_mib": self._held.limit_mib,
            "peers": len(self._peers),
            "writer": self._writer.pid if self._writer else 0,
            "sequence": commit.sequence if commit else -1,
            "step": commit.step if commit else -1,
        }

    def _send(self, peer: KeeperPeer, message: wire.Message, fds: list[int] | None = None) -> None:
        try:
            wire.send(peer.connection, message, fds or ())
        except OSError:  # gone, or does not read its answers
            self._drop(peer)

    def _tell_refused(self, peer: KeeperPeer, reason: str, *, busy: bool = False) -> None:
        """Answer `refused`, and say so on stderr: the 1st, 2nd, 4th, 8th … time, so that nobody floods the log."""
        if not busy:
            self._refusals += 1
        if not busy and self._refusals & (self._refusals - 1) == 0:
            count = f" ({self._refusals} refusals so far)" if self._refusals > 1 else ""
            say(f"refused process {peer.pid} of uid {peer.uid}: {reason}{count}")
        with contextlib.suppress(OSError):
            wire.send(peer.connection, {"op": "refused", "reason": reason, "busy": busy})

    def _drop(self, peer: KeeperPeer) -> None:
        if self._peers.pop(peer.connection.fileno(), None) is None:
            return
        self._poll.unregister(peer.connection)
        if self._writer is peer:
            self._writer = None
        peer.connection.close()


def _same(left: bytes, right: bytes) -> bool:
    """Equality in a time that does not depend on where they differ (hmac would load OpenSSL)."""
    difference = len(left) ^ len(right)
    for a, b in zip(left, right, strict=False):
        difference |= a ^ b
    return difference == 0


def say(text: str) -> None:
    """A line on standard error; a closed one is no reason to end."""
    with contextlib.suppress(OSError):
        os.write(2, f"mpsr: keeper: {text}\n".encode())


def listen(path: str) -> socket.socket:
    """A listening socket at `path`, mode 0600. Clears away a dead one; raises StateError when a living one is there.

    It is bound beside and renamed, so that who finds it can connect at once.
    """
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    beside = f"{path}~"
    try:
        with probe, contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
            probe.connect(path)
            raise StateError("keeper", "another keeper listens there", path)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(beside)
        mask = os.umask(0o177)
        try:
            listener.bind(beside)
        finally:
            os.umask(mask)
        listener.listen(_MAX_PEERS)
        os.rename(beside, path)
    except OSError as error:
        raise StateError("keeper", f"cannot listen at {path}", error, hint="a path has at most 107 bytes") from None
    return listener


def arguments(words: list[str]) -> tuple[str, int]:
    """Path and limit in MiB (0: none) of the command line; argparse would be a tenth of the keeper's memory."""
    usage = "usage: python -E -m resilience.state.keeper --socket PATH [--limit-mib N]"
    given = dict(zip(words[::2], words[1::2], strict=False))
    if len(words) % 2 or "--socket" not in given or given.keys() - {"--socket", "--limit-mib"}:
        raise StateError("keeper", "bad arguments", " ".join(words), hint=usage)
    limit = given.get("--limit-mib", "0")
    if not (limit.isascii() and limit.isdigit() and len(limit) < 16):
        raise StateError("keeper", "--limit-mib is no whole number", limit, hint=usage)
    return given["--socket"], int(limit)


def _end(*_: object) -> NoReturn:
    raise SystemExit(EXIT_OK)


def main(argv: list[str] | None = None) -> int:
    """The program. Exit status 0 when it has served, 2 when it cannot start."""
    token = os.environ.get(TOKEN, "")
    try:
        path, limit_mib = arguments(sys.argv[1:] if argv is None else argv)
        if not token:
            raise StateError("keeper", "no token in the environment", TOKEN)
        parent = os.pidfd_open(os.getppid())
        signal.signal(signal.SIGTERM, _end)
        signal.signal(signal.SIGINT, _end)
        listener = listen(path)
    except (ResilienceError, OSError) as error:
        print(error.lines() if isinstance(error, ResilienceError) else f"mpsr: keeper: {error}", file=sys.stderr)
        return EXIT_USAGE
    own = os.stat(path).st_ino
    try:
        standby = os.environ.get(STANDBY_TOKEN, "")
        Keeper(listener, token=token, standby_token=standby, limit_mib=limit_mib).serve(parent)
    finally:
        with contextlib.suppress(OSError):  # a keeper started after us may have put its own there
            if os.stat(path).st_ino == own:
                os.unlink(path)
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
