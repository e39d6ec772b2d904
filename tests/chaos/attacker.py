"""One attacker beside the agent, until its stdin ends: `attacker.py HOW PLACE [JOB]`, PLACE a log directory or a socket.

newlines, known, clients, torn: write into the own MPS logs without end; words, hellos, rights: talk to the agent without end;
knocks: connect to it without end; places (PLACE is a directory): fill it with files and deep directories.
"""

import os
import select
import socket
import sys
from collections.abc import Callable
from contextlib import suppress

_STAMP = b"[2026-01-01 00:00:00.000 Server 1] "
_FULL = 8 << 20
"""Less than a room holds: a writer that finds no room has to stop."""
_HELD = 500


def _going_on() -> bool:
    return not select.select([0], [], [], 0)[0]


def write(how: str, place: str) -> None:
    files = [
        os.open(f"{place}/{name}.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644) for name in ("server", "control")
    ]
    known = _STAMP + b"Client {PID: 1, Context: 1} connected\n"
    number = 1
    while _going_on():
        for fd in files:
            if how == "clients":
                lines = (
                    b"NEW CLIENT %d from user 1: Server already exists\n" % one for one in range(number, number + 500)
                )
                text, number = b"".join(_STAMP + line for line in lines), number % 30_000 + 500
            else:
                text = {"newlines": b"\n" * 262_144, "known": known * 4000}[how]
            os.write(fd, text)
            if os.fstat(fd).st_size > _FULL:
                os.ftruncate(fd, 0)


def torn(place: str, _job: str) -> None:
    """Lines in pieces, with orders to a terminal and NULs in them, in a file that is cut, moved away and made anew."""
    line = _STAMP + b"\x1b[2J\0\xff Client {PID: 1, Context: 1} connected\r"
    path, number = f"{place}/server.log", 0
    while _going_on():
        number += 1
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        with os.fdopen(fd, "wb", buffering=0) as file:
            for at in range(0, len(line), 3):
                file.write(line[at : at + 3])
            file.write(line * 2000 if number % 7 else b"\n")
            if number % 50 == 0:
                file.truncate(number % 4096)
        if number % 200 == 0:
            os.replace(path, f"{place}/moved.log")


def rights(path: str, job: str) -> None:
    """Descriptors with each packet, in packets as long as can be."""
    held = [os.open("/dev/null", os.O_RDONLY) for _ in range(250)]
    while _going_on():
        with suppress(OSError), _connected(path) as peer:
            socket.send_fds(peer, [_hello(job, 1)], held)
            while _going_on():
                socket.send_fds(peer, [b"x" * 65_000], held)


def _hello(job: str, task: int) -> bytes:
    return f"hello v=1 job={job} step=7 task={task} gpu=0 options=mps=on mpi=0 resumed=0 retries_used=0".encode()


def words(path: str, job: str) -> None:
    """A supervisor that comes back as soon as it is turned away."""
    while _going_on():
        with suppress(OSError), _connected(path) as peer:
            peer.send(_hello(job, 0))
            while _going_on():
                peer.send(b"keeper state=lost")


def hellos(path: str, job: str) -> None:
    number = 0
    while _going_on():
        number += 1
        with suppress(OSError), _connected(path) as peer:
            peer.send(_hello(job, number % 500))
            peer.send(b"exit role=active pid=1 status=256 told=0")


def knocks(path: str, job: str) -> None:
    """Connections that say nothing, as many as this process may have at once."""
    held: list[socket.socket] = []
    while _going_on():
        with suppress(OSError):
            held.append(_connected(path))
        if len(held) > _HELD:
            held.pop(0).close()


def places(path: str, job: str) -> None:
    """Files until there is no room for more, in a tree as deep as can be."""
    os.chdir(path)
    while _going_on():
        with suppress(OSError):
            for number in range(1000):
                os.mknod(f"file{number}")
            os.mkdir("deeper")
            os.chdir("deeper")


def _connected(path: str) -> socket.socket:
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    peer.setblocking(False)
    try:
        peer.connect(path)
    except OSError:
        peer.close()
        raise
    return peer


if __name__ == "__main__":
    talk: dict[str, Callable[[str, str], None]] = {
        "words": words, "hellos": hellos, "knocks": knocks, "places": places, "torn": torn, "rights": rights,
    }  # fmt: skip
    mode, target = sys.argv[1:3]
    if mode in talk:
        talk[mode](target, sys.argv[3])
    else:
        write(mode, target)
