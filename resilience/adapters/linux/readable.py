"""Waiting until descriptors can be read, whatever their numbers: select(2) knows none from 1024 (FD_SETSIZE) on, and a program
with many open files, or an agent with many users, has those."""

import math
import select
import socket

Waited = int | socket.socket


def readable(*waited: Waited, timeout: float | None = None) -> list[Waited]:
    """Those that can be read or have been hung up, within `timeout` seconds (None: for ever)."""
    poll = select.poll()
    of = {one if isinstance(one, int) else one.fileno(): one for one in waited}
    for fd in of:
        poll.register(fd, select.POLLIN)
    return [of[fd] for fd, _ in poll.poll(None if timeout is None else math.ceil(max(0.0, timeout) * 1000))]
