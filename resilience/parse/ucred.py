"""What SO_PEERCRED says of the peer of a Unix socket. Pure.

`struct ucred` of unix(7): pid_t is signed, uid_t and gid_t are not. Directory services (AD, winbind) give out uids of
2^31 and more.
"""

import struct
from typing import NamedTuple

_UCRED = struct.Struct("iII")
SIZE = _UCRED.size
"""Bytes to ask getsockopt for."""


class Credentials(NamedTuple):
    pid: int
    uid: int
    gid: int


def peer(raw: bytes) -> Credentials:
    """The credentials behind the bytes of getsockopt(SOL_SOCKET, SO_PEERCRED, SIZE)."""
    return Credentials(*_UCRED.unpack(raw))
