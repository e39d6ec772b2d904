"""The agent's sockets: supervisors connect here, one packet a message, the kernel vouching for who they are.

Each user with a lease has a socket of their own (0600), and so an own queue of connections that nobody else can fill. The
node's own (0666) is for those who ask whether there is an agent, and for leases of an older one. Nothing here blocks. A
peer that does not read what it is sent is dropped once its queue is full; more peers than the limit are turned away. What
each user's packets and connections cost is told to the agent, which has one who costs too much not heard for a while.
"""

import os
import select
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass

from resilience.adapters.linux.guarded_files import make_dirs
from resilience.contract import contract
from resilience.model.errors import ResilienceError
from resilience.parse import ucred
from resilience.ports import Packet, Peer

_MAX = int(contract()["wire"]["max_message_bytes"])
_PEERS = 4096
"""Connections at most: a node has at most some hundreds of tasks; thousands from one user must not cost us memory."""
_PEERS_OF_USER = 1024
"""Of one user at most: nobody can take all of them and shut the others' supervisors out."""
_QUEUE = 256
"""Packets that wait for one peer at most."""
_BURST = 8
"""Packets read from one peer at a time, so that none keeps the others waiting."""
_TURN = 16
"""Of one user."""
_KNOCKS = 32
"""Connections taken at a time at one socket: less than a millisecond."""
_QUEUED = 4096
"""Connections that may wait for that; the kernel allows no more than net.core.somaxconn."""
EVERYBODY = -1
"""The node's own socket, where no user is named: who is not heard and knocks there is charged to it."""


@dataclass(slots=True, kw_only=True)
class _Connected:
    peer: Peer
    socket: socket.socket
    waiting: deque[bytes]


class AgentSocket:
    """Supervisors port. `doors`: where the users' own sockets are, as a path with {uid}; empty: there are none."""

    def __init__(self, path: str, doors: str = "", cost: Callable[[], float] = time.thread_time) -> None:
        self._doors = doors
        self._cost = cost
        self._epoll = select.epoll()
        self._peers: dict[int, _Connected] = {}
        self._of_user: Counter[int] = Counter()
        self._gone: list[Peer] = []
        self._first = 0
        """Who of those that have something to say comes first: the next one each time."""
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._hushed: set[int] = set()
        self._costs: dict[int, float] = {}
        self._listeners: dict[int, socket.socket] = {}
        self._listening: dict[int, int] = {}
        """Whose each listening descriptor is."""
        self._epoll.register(self._wake, select.EPOLLIN)
        self._open(EVERYBODY, path)

    def _open(self, uid: int, path: str) -> None:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        made.setblocking(False)
        try:
            with suppress(FileNotFoundError):
                os.unlink(path)
            made.bind(path)
            if uid == EVERYBODY:
                os.chmod(path, 0o666)
            else:
                os.chmod(path, 0o600)
                os.chown(path, uid, -1)
            made.listen(_QUEUED)
        except OSError as error:
            made.close()
            raise ResilienceError(
                "agent socket",
                "cannot be opened",
                f"{path}: {error.strerror or error}",
                hint="the directory must exist and the path be shorter than 108 bytes",
            ) from error
        self._listeners[uid] = made
        self._listening[made.fileno()] = uid
        if uid not in self._hushed:
            self._epoll.register(made, select.EPOLLIN)

    def admit(self, uids: Collection[int]) -> None:
        for uid in [uid for uid in self._listeners if uid not in (*uids, EVERYBODY)]:
            self._shut(uid)
        wrong = None
        for uid in (uid for uid in uids if self._doors and uid not in self._listeners):
            try:
                make_dirs(os.path.dirname(self._doors))
                self._open(uid, self._doors.format(uid=uid))
            except (ResilienceError, OSError) as error:
                wrong = (
                    error if isinstance(error, ResilienceError) else ResilienceError("agent socket", str(error), uid)
                )
        if wrong is not None:
            raise wrong

    def _shut(self, uid: int) -> None:
        listener = self._listeners.pop(uid)
        del self._listening[listener.fileno()]
        if uid not in self._hushed:
            self._epoll.unregister(listener)
        with suppress(OSError):
            os.unlink(listener.getsockname())
        listener.close()

    def fileno(self) -> int:
        return self._epoll.fileno()

    def read(self, busy: Collection[int] = ()) -> tuple[Packet, ...]:
        packets: list[Packet] = []
        said: Counter[int] = Counter()
        ready = self._epoll.poll(0, _PEERS + len(self._listeners) + 8)
        self._first = (self._first + 1) % max(1, len(ready))
        for fd, events in [*ready[self._first :], *ready[: self._first]]:
            if fd in self._listening:
                self._accept(self._listening[fd])
            elif fd == self._wake:
                with suppress(BlockingIOError):
                    os.eventfd_read(self._wake)
            elif fd in self._peers:
                if events & select.EPOLLOUT:
                    self._flush(fd)
                uid = self._peers[fd].peer.uid
                if events & ~select.EPOLLOUT and said[uid] < _TURN and uid not in busy:
                    began = self._cost()
                    heard = self._receive(fd)
                    self._charge(uid, began)
                    said[uid] += len(heard)
                    packets += heard
        packets += [Packet(peer=peer, data=None) for peer in self._gone]
        self._gone.clear()
        return tuple(packets)

    def _charge(self, uid: int, began: float) -> None:
        self._costs[uid] = self._costs.get(uid, 0.0) + self._cost() - began

    def costs(self) -> Mapping[int, float]:
        costs, self._costs = self._costs, {}
        return costs

    def hush(self, uid: int) -> None:
        if uid in self._hushed:
            return
        self._hushed.add(uid)
        if uid in self._listeners:
            self._epoll.unregister(self._listeners[uid])
        for fd in self._of(uid):
            self._epoll.unregister(fd)

    def listen(self, uid: int) -> None:
        if uid not in self._hushed:
            return
        self._hushed.remove(uid)
        if uid in self._listeners:
            self._epoll.register(self._listeners[uid], select.EPOLLIN)
        for fd in self._of(uid):
            self._epoll.register(fd, _interest(self._peers[fd].waiting))

    def _of(self, uid: int) -> list[int]:
        return [fd for fd, one in self._peers.items() if one.peer.uid == uid] if uid in self._of_user else []

    def _accept(self, door: int) -> None:
        for _ in range(_KNOCKS):
            began = self._cost()
            try:
                connection, _address = self._listeners[door].accept()
            except OSError:
                return
            pid, uid, _gid = ucred.peer(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, ucred.SIZE))
            full = len(self._peers) >= _PEERS or self._of_user[uid] >= _PEERS_OF_USER
            if full or uid in self._hushed:
                connection.close()
            else:
                connection.setblocking(False)
                self._of_user[uid] += 1
                fd = connection.fileno()
                self._peers[fd] = _Connected(peer=Peer(id=fd, pid=pid, uid=uid), socket=connection, waiting=deque())
                self._epoll.register(fd, select.EPOLLIN)
            named = uid if door == EVERYBODY else door
            self._charge(EVERYBODY if named in self._hushed else named, began)

    def _receive(self, fd: int) -> list[Packet]:
        one = self._peers[fd]
        packets: list[Packet] = []
        for _ in range(_BURST):
            try:
                data = one.socket.recv(_MAX + 1)
            except BlockingIOError:
                return packets
            except OSError:
                data = b""
            if not data:
                self._forget(fd)
                return [*packets, Packet(peer=one.peer, data=None)]
            packets.append(Packet(peer=one.peer, data=data))
        return packets

    def send(self, peer: Peer, data: bytes) -> None:
        one = self._peers.get(peer.id)
        if one is None or one.peer is not peer:
            return
        if not one.waiting:
            try:
                one.socket.send(data)
                return
            except BlockingIOError:
                pass
            except OSError:
                return  # the peer has gone: reading will say so
        one.waiting.append(data)
        self._watch(peer.id)
        if len(one.waiting) > _QUEUE:
            self._forget(peer.id)
            self._gone.append(peer)
            os.eventfd_write(self._wake, 1)

    def _flush(self, fd: int) -> None:
        one = self._peers[fd]
        while one.waiting:
            try:
                one.socket.send(one.waiting[0])
            except BlockingIOError:
                return
            except OSError:
                one.waiting.clear()
                break
            one.waiting.popleft()
        self._watch(fd)

    def _watch(self, fd: int) -> None:
        one = self._peers[fd]
        if one.peer.uid not in self._hushed:
            self._epoll.modify(fd, _interest(one.waiting))

    def drop(self, peer: Peer) -> None:
        one = self._peers.get(peer.id)
        if one is not None and one.peer is peer:
            self._flush(peer.id)
            self._forget(peer.id)

    def _forget(self, fd: int) -> None:
        one = self._peers.pop(fd)
        uid = one.peer.uid
        self._of_user[uid] -= 1
        if not self._of_user[uid]:
            del self._of_user[uid]
        if uid not in self._hushed:
            self._epoll.unregister(fd)
        _hang_up(one.socket)

    def close(self) -> None:
        for fd in list(self._peers):
            self._forget(fd)
        for uid in list(self._listeners):
            self._shut(uid)
        self._epoll.close()
        os.close(self._wake)


def _interest(waiting: deque[bytes]) -> int:
    return select.EPOLLIN | select.EPOLLOUT if waiting else select.EPOLLIN


def _hang_up(connection: socket.socket) -> None:
    """Close it so that the peer can still read what it was told: unread packets of the peer's would make its next read fail
    with ECONNRESET (unix(7)); after SHUT_RD it can add none."""
    with connection, suppress(OSError):
        connection.shutdown(socket.SHUT_RD)
        while connection.recv(1):
            pass
