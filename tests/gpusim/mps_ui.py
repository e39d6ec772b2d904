"""The front end of the simulated control daemon: `echo get_server_list | nvidia-cuda-mps-control`.

Job: commands from standard input, one a line, to the daemon; its answers to standard output.

Guarantees (recorded): exit status 0 for every command that reached the daemon, whatever it said; 1 and one line on
standard error when there is no daemon, or when the daemon is lost. While another front end is open: status 0 and
nothing at all, or status 1.
"""

from __future__ import annotations

import os
import sys

from . import mps_wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket

NO_DAEMON = "Cannot find MPS control daemon process"
LOST = "Cannot send command to MPS control daemon process"


def run(pipe: str) -> int:
    """Serve standard input to its end; the exit status."""
    try:
        sock = mps_wire.connect(os.path.join(pipe, "control"))
    except OSError:
        print(NO_DAEMON, file=sys.stderr)
        return 1
    mps_wire.send(sock, mps_wire.words("ui", v=1))
    verb, values = mps_wire.parse(mps_wire.receive(sock))
    if verb == "busy" and values["style"] == "empty":
        return 0
    if verb != "welcome":
        print(LOST, file=sys.stderr)
        return 1
    for line in sys.stdin:
        if not _command(sock, line.rstrip("\n")):
            return 0 if line.split()[:1] == ["quit"] else _lost()
    return 0


def _lost() -> int:
    print(LOST, file=sys.stderr)
    return 1


def _command(sock: socket, line: str) -> bool:
    """Send one line and print its answer; False when the daemon has gone."""
    if not mps_wire.send(sock, b"cmd " + line.encode(errors="replace")):
        return False
    while True:
        packet = mps_wire.receive(sock)
        if not packet:
            return False
        if packet == b"end":
            return True
        sys.stdout.write(packet[4:].decode(errors="replace") + "\n")
        sys.stdout.flush()
