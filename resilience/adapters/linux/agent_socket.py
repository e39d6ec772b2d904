"""The agent's socket: supervisors connect here, one packet a message, the kernel vouching for who they are.

The socket is open to everyone (0666): the agent checks each peer's uid against its job's lease. Nothing here blocks. A
peer that does not read what it is sent is dropped once its queue is full; more peers than the limit are turned away.
"""

import os
import select
import socket
from collections import Counter, deque
from contextlib import suppress

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
_BURST = 64
"""Packets read from one peer at a time, so that none keeps the others waiting."""


class AgentSocket:
    """Supervisors port."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._epoll = select.epoll()
        self._peers: dict[int, tuple[Peer, socket.socket, deque[bytes]]] = {}
        self._of_user: Counter[int] = Counter()
        self._gone: list[Peer] = []
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.setblocking(False)
        try:
            with suppress(FileNotFoundError):
                os.unlink(path)
            self._listener.bind(path)
            os.chmod(path, 0o666)
            self._listener.listen(512)
        except OSError as error:
            raise ResilienceError(
                "agent socket",
                "cannot be opened",
                f"{path}: {error.strerror or error}",
                hint="the directory must exist and the path be shorter than 108 bytes",
            ) from error
        self._epoll.register(self._listener, select.EPOLLIN)
        self._epoll.register(self._wake, select.EPOLLIN)

    def fileno(self) -> int:
        return self._epoll.fileno()

    def read(self) -> tuple[Packet, ...]:
        packets: list[Packet] = []
        for fd, events in self._epoll.poll(0):
            if fd == self._listener.fileno():
                self._accept()
            elif fd == self._wake:
                with suppress(BlockingIOError):
                    os.eventfd_read(self._wake)
            elif fd in self._peers:
                if events & select.EPOLLOUT:
                    self._flush(fd)
                if events & ~select.EPOLLOUT:
                    packets += self._receive(fd)
        packets += [Packet(peer=peer, data=None) for peer in self._gone]
        self._gone.clear()
        return tuple(packets)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            pid, uid, _ = ucred.peer(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, ucred.SIZE))
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
        self._epoll.modify(peer.id, select.EPOLLIN | select.EPOLLOUT)
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
        self._epoll.modify(fd, select.EPOLLIN)

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
        self._epoll.unregister(fd)
        _hang_up(connection)

    def close(self) -> None:
        for fd in list(self._peers):
            self._forget(fd)
        self._listener.close()
        self._epoll.close()
        os.close(self._wake)
        with suppress(OSError):
            os.unlink(self._path)


def _hang_up(connection: socket.socket) -> None:
    """Close it so that the peer can still read what it was told: unread packets of the peer's would make its next read fail
    with ECONNRESET (unix(7)); after SHUT_RD it can add none."""
    with connection, suppress(OSError):
        connection.shutdown(socket.SHUT_RD)
        while connection.recv(1):
            pass
