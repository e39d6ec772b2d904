"""Packets between the simulated MPS processes and their clients.

Job: one place that opens, accepts, sends and parses. The wire is text, `verb key=value ...`, one packet of an `AF_UNIX`
`SOCK_SEQPACKET` socket each; values hold no blanks. It is the simulator's own: the real one is private to the driver.

Relies on: `_socket`, the C half of the standard library's `socket`. Importing `socket` itself costs 8 ms here (it
builds enums), as much as the bare interpreter, and every command of an administrator starts one process of ours.

On failure: OSError goes through to the caller, who knows what the peer's silence means.
"""

from __future__ import annotations

import _socket
import os
import struct

PACKET_BYTES = 65536
"""Longest packet that we read: far above a command line, far below the kernel's limit for one packet (about 200 kB)."""

BACKLOG = 128
PATH_BYTES = 107
"""sun_path without its final NUL."""


def _new() -> _socket.socket:
    return _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)


def listen(path: str, mode: int) -> _socket.socket:
    """Bind anew at `path` (whatever lay there is removed) and listen without blocking."""
    sock = _new()
    if os.path.lexists(path):
        os.unlink(path)
    sock.bind(path)
    os.chmod(path, mode)
    sock.listen(BACKLOG)
    sock.setblocking(False)
    return sock


def adopt(descriptor: int) -> _socket.socket:
    """The socket that was inherited as `descriptor`."""
    os.set_inheritable(descriptor, False)
    return _socket.socket(fileno=descriptor)


def pair() -> tuple[_socket.socket, _socket.socket]:
    """Two connected sockets for a parent and its child."""
    return _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)


def connect(path: str) -> _socket.socket:
    """Raises OSError when nobody listens at `path`."""
    sock = _new()
    try:
        sock.connect(path)
    except OSError:
        sock.close()
        raise
    return sock


def accept(listener: _socket.socket) -> _socket.socket | None:
    """The next connection, or None when the peer has already gone."""
    try:
        descriptor, _ = listener._accept()  # type: ignore[attr-defined]  # the stubs lack it
    except (BlockingIOError, ConnectionError):
        return None
    os.set_inheritable(descriptor, False)
    sock = _socket.socket(fileno=descriptor)
    sock.setblocking(True)
    return sock


def credentials(sock: _socket.socket) -> tuple[int, int]:
    """(pid, uid) of the peer, as the kernel knows them."""
    raw = sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, struct.calcsize("iII"))
    pid, uid, _ = struct.unpack("iII", raw)
    return pid, uid


def words(verb: str, **values: object) -> bytes:
    """`words("error", code=807)` is `error code=807`."""
    return " ".join([verb, *(f"{key}={value}" for key, value in values.items())]).encode()


def parse(packet: bytes) -> tuple[str, dict[str, str]]:
    """Verb and values; words without `=` are ignored, and an empty packet has the verb ''."""
    verb, _, rest = packet.decode(errors="replace").partition(" ")
    return verb, dict(word.split("=", 1) for word in rest.split(" ") if "=" in word)


def send(sock: _socket.socket, packet: bytes, descriptor: int | None = None) -> bool:
    """False when the peer has gone; a packet is never half sent."""
    try:
        if descriptor is None:
            sock.send(packet, _socket.MSG_NOSIGNAL)
        else:
            rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack("i", descriptor))
            sock.sendmsg([packet], [rights], _socket.MSG_NOSIGNAL)
    except OSError:
        return False
    return True


def receive(sock: _socket.socket) -> bytes:
    """One packet; b'' when the peer has gone."""
    try:
        return sock.recv(PACKET_BYTES)
    except OSError:
        return b""
