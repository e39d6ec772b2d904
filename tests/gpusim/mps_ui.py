"""The front end of the simulated control daemon: `echo get_server_list | nvidia-cuda-mps-control`.

Job: commands from standard input, one a line, to the daemon; its answers to standard output.

Guarantees (recorded): exit status 0 for every command that reached the daemon, whatever it said; 1 and one line on
standard error when there is no daemon, or when the daemon is lost. While another front end is open the answer
is one of BUSY, at random.
"""

from __future__ import annotations

import os
import sys

from . import mps_wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Iterable

NO_DAEMON = "Cannot find MPS control daemon process"
LOST = "Cannot send command to MPS control daemon process"
BUSY = {"1": (0, ""), "2": (1, ""), "3": (1, f"{LOST}\n"), "4": (0, f"{LOST}\n")}
"""Exit status and standard error while another front end is open; the fourth was seen with 535 only."""


def run(pipe: str, lines: Iterable[str]) -> int:
    """Say the lines, standard input's to its end; the exit status."""
    try:
        sock = mps_wire.connect(os.path.join(pipe, "control"))
    except OSError:
        print(NO_DAEMON, file=sys.stderr)
        return 1
    mps_wire.send(sock, mps_wire.words("ui", v=1))
    verb, values = mps_wire.parse(mps_wire.receive(sock))
    if verb == "busy":
        status, text = BUSY[values["style"]]
        sys.stderr.write(text)
        return status
    if verb != "welcome":
        print(LOST, file=sys.stderr)
        return 1
    for line in lines:
        if not _command(sock, line.rstrip("\n")):
            if line.split()[:1] == ["quit"]:
                return 0
            print(LOST, file=sys.stderr)
            return 1
    return 0


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
