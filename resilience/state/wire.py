"""Packets between a program and its keeper: one JSON object a packet, descriptors beside it (SCM_RIGHTS).

Relies on an AF_UNIX SOCK_SEQPACKET socket. Guarantees that whatever arrives is either one whole, bounded object with
its descriptors (close-on-exec) or a WireError with every descriptor of that packet closed. The keeper imports this:
standard library only. The messages themselves stand in resilience/state/keeper.py.
"""

import array
import contextlib
import json
import os
import socket
from collections.abc import Iterable, Sequence
from typing import Any

from resilience.model.errors import WireError
from resilience.state.names import MAX_FDS

MAX_BYTES = 65536
"""Longest packet: a layout with the sizes of 251 regions takes about 4 KiB."""
_INT = array.array("i").itemsize
Message = dict[str, Any]


def close_all(fds: Iterable[int]) -> None:
    """Close descriptors; one that is closed already is no error."""
    for fd in fds:
        with contextlib.suppress(OSError):
            os.close(fd)


def encode(message: Message) -> bytes:
    """The packet of a message. Raises WireError when it is too long or no JSON."""
    try:
        packet = json.dumps(message, separators=(",", ":")).encode("ascii")
    except (TypeError, ValueError, RecursionError) as error:
        raise WireError("keeper message", "cannot be written as JSON", error) from None
    if len(packet) > MAX_BYTES:
        raise WireError("keeper message", f"longer than {MAX_BYTES} bytes", len(packet))
    return packet


def decode(packet: bytes) -> Message:
    """The message of a packet: a JSON object with a text `op`. Raises WireError."""
    try:
        message = json.loads(packet)
    except (ValueError, RecursionError):
        raise WireError("keeper message", "not JSON", repr(packet[:40])) from None
    if not isinstance(message, dict) or not isinstance(message.get("op"), str):
        raise WireError("keeper message", "not an object with an op", repr(packet[:40]))
    return message


def send(peer: socket.socket, message: Message, fds: Sequence[int] = ()) -> None:
    """One packet. Raises WireError (too long, too many descriptors) or OSError (the peer has gone)."""
    if len(fds) > MAX_FDS:
        raise WireError("keeper message", f"more than {MAX_FDS} descriptors", len(fds))
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    peer.sendmsg([encode(message)], rights)


def receive(peer: socket.socket) -> tuple[Message, list[int]] | None:
    """The next packet, or None when the peer has gone. Raises WireError, or OSError as recvmsg does."""
    # One byte more than allowed, so that a longer packet shows as truncated and is not read as a shorter one.
    packet, ancillary, flags, _ = peer.recvmsg(MAX_BYTES + 1, socket.CMSG_LEN(MAX_FDS * _INT), socket.MSG_CMSG_CLOEXEC)
    fds = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % _INT])
    if not packet and not fds:
        return None
    try:
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC) or len(packet) > MAX_BYTES:
            raise WireError("keeper message", "longer than allowed", f"{len(packet)} bytes, {len(fds)} descriptors")
        return decode(packet), fds.tolist()
    except WireError:
        close_all(fds)
        raise
