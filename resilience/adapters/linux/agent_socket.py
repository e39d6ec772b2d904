"""The agent's socket: supervisors connect here, one packet a message, the kernel vouching for who they are.

The socket is open to everyone (0666): the agent checks each peer's uid against its job's lease. Nothing here blocks. A
peer that does not read what it is sent is dropped once its queue is full; more peers than the limit are turned away.
Users take turns: a bounded number of packets of each at a time, in turn. One who says or knocks too much is not listened to for
a second (turns.py).
"""

import os
import select
import socket
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from itertools import zip_longest

from resilience.adapters.linux.alarm import Alarm
from resilience.adapters.linux.turns import Turns
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
_KNOCKS = 128
"""Connections taken at a time: some 3 ms, when they are closed at once."""
_QUEUED = 4096
"""Connections that may wait for that; the kernel allows no more than net.core.somaxconn."""
MOST = 3000
"""Units of one user in a second: a packet is one. 256 tasks that start at once, or recover, come to some 1500."""
_KNOCK = 2


class AgentSocket:
    """Supervisors port."""

    def __init__(self, path: str, now: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._epoll = select.epoll()
        self._peers: dict[int, tuple[Peer, socket.socket, deque[bytes]]] = {}
        self._of_user: Counter[int] = Counter()
        self._gone: list[Peer] = []
        self._now = now
        self._turns: Turns[int] = Turns(MOST)
        self._alarm = Alarm()
        self._first = 0
        """Who of those that have something to say comes first: the next one each time."""
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.setblocking(False)
        try:
            with suppress(FileNotFoundError):
                os.unlink(path)
            self._listener.bind(path)
            os.chmod(path, 0o666)
            self._listener.listen(_QUEUED)
        except OSError as error:
            raise ResilienceError(
                "agent socket",
                "cannot be opened",
                f"{path}: {error.strerror or error}",
                hint="the directory must exist and the path be shorter than 108 bytes",
            ) from error
        self._epoll.register(self._listener, select.EPOLLIN)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._epoll.register(self._alarm.fd, select.EPOLLIN)

    def fileno(self) -> int:
        return self._epoll.fileno()

    def read(self) -> tuple[Packet, ...]:
        now = self._now()
        self._alarm.read()
        self._listen_again(now)
        said: dict[int, list[Packet]] = {}
        ready = self._epoll.poll(0, _PEERS + 8)
        self._first = (self._first + 1) % max(1, len(ready))
        for fd, events in [*ready[self._first :], *ready[: self._first]]:
            if fd == self._listener.fileno():
                self._accept(now)
            elif fd == self._wake:
                with suppress(BlockingIOError):
                    os.eventfd_read(self._wake)
            elif fd in self._peers:
                if events & select.EPOLLOUT:
                    self._flush(fd)
                mine = said.setdefault(self._peers[fd][0].uid, [])
                if events & ~select.EPOLLOUT and len(mine) < _TURN:
                    mine += self._receive(fd)
        for uid, mine in said.items():
            if self._turns.spend(uid, len(mine), now):
                self._hush(uid)
        if (seconds := self._turns.wait(now)) is not None:
            self._alarm.set(seconds)
        packets = [packet for turn in zip_longest(*said.values()) for packet in turn if packet is not None]
        packets += [Packet(peer=peer, data=None) for peer in self._gone]
        self._gone.clear()
        return tuple(packets)

    def _hush(self, uid: int) -> None:
        """Not even woken by one who rests."""
        for fd, (peer, _, _) in self._peers.items():
            if peer.uid == uid:
                self._epoll.unregister(fd)

    def _listen_again(self, now: float) -> None:
        woken = self._turns.woken(now)
        for fd, (peer, _, waiting) in self._peers.items() if woken else ():
            if peer.uid in woken:
                self._epoll.register(fd, _interest(waiting))

    def _accept(self, now: float) -> None:
        for _ in range(_KNOCKS):
            try:
                connection, _address = self._listener.accept()
            except OSError:
                return
            pid, uid, _gid = ucred.peer(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, ucred.SIZE))
            if self._turns.spend(uid, _KNOCK, now):
                self._hush(uid)
            if self._turns.rests(uid):
                connection.close()
                continue
            if len(self._peers) >= _PEERS or self._of_user[uid] >= _PEERS_OF_USER:
                connection.close()
                continue
            connection.setblocking(False)
            self._of_user[uid] += 1
            fd = connection.fileno()
            self._peers[fd] = (Peer(id=fd, pid=pid, uid=uid), connection, deque())
            self._epoll.register(fd, select.EPOLLIN)

    def _receive(self, fd: int) -> list[Packet]:
        peer, connection, _ = self._peers[fd]
        packets: list[Packet] = []
        for _ in range(_BURST):
            try:
                data = connection.recv(_MAX + 1)
            except BlockingIOError:
                return packets
            except OSError:
                data = b""
            if not data:
                self._forget(fd)
                return [*packets, Packet(peer=peer, data=None)]
            packets.append(Packet(peer=peer, data=data))
        return packets

    def send(self, peer: Peer, data: bytes) -> None:
        entry = self._peers.get(peer.id)
        if entry is None or entry[0] is not peer:
            return
        _, connection, waiting = entry
        if not waiting:
            try:
                connection.send(data)
                return
            except BlockingIOError:
                pass
            except OSError:
                return  # the peer has gone: reading will say so
        waiting.append(data)
        self._watch(peer.id)
        if len(waiting) > _QUEUE:
            self._forget(peer.id)
            self._gone.append(peer)
            os.eventfd_write(self._wake, 1)

    def _flush(self, fd: int) -> None:
        _, connection, waiting = self._peers[fd]
        while waiting:
            try:
                connection.send(waiting[0])
            except BlockingIOError:
                return
            except OSError:
                waiting.clear()
                break
            waiting.popleft()
        self._watch(fd)

    def _watch(self, fd: int) -> None:
        peer, _, waiting = self._peers[fd]
        if not self._turns.rests(peer.uid):
            self._epoll.modify(fd, _interest(waiting))

    def drop(self, peer: Peer) -> None:
        entry = self._peers.get(peer.id)
        if entry is not None and entry[0] is peer:
            self._flush(peer.id)
            self._forget(peer.id)

    def _forget(self, fd: int) -> None:
        peer, connection, _ = self._peers.pop(fd)
        self._of_user[peer.uid] -= 1
        if not self._of_user[peer.uid]:
            del self._of_user[peer.uid]
        if not self._turns.rests(peer.uid):
            self._epoll.unregister(fd)
        _hang_up(connection)

    def close(self) -> None:
        for fd in list(self._peers):
            self._forget(fd)
        self._listener.close()
        self._epoll.close()
        self._alarm.close()
        os.close(self._wake)
        with suppress(OSError):
            os.unlink(self._path)


def _interest(waiting: deque[bytes]) -> int:
    return select.EPOLLIN | select.EPOLLOUT if waiting else select.EPOLLIN


def _hang_up(connection: socket.socket) -> None:
    """Close it so that the peer can still read what it was told: unread packets of the peer's would make its next read fail
    with ECONNRESET (unix(7)); after SHUT_RD it can add none."""
    with connection, suppress(OSError):
        connection.shutdown(socket.SHUT_RD)
        while connection.recv(1):
            pass
