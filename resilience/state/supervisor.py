"""A program's side of the socket to its supervisor (docs/reference/protocols.md §7), and a standby's parked streams.

A supervisor that has gone shows as the verb `gone`; every method then does nothing, so that a program outlives it.
"""

import contextlib
import ctypes
import os
import socket
import sys

from resilience.adapters.linux.readable import readable
from resilience.model.errors import WireError
from resilience.parse.packet import MAX_BYTES, pack, unpack
from resilience.state.names import EXIT_OK, PROTOCOL_VERSION

GONE = "gone"
_LIBC = ctypes.CDLL(None)
_MAX_TEXT = 300
"""Characters of an error text that are passed on."""


class Supervisor:
    """`fd` is the number in MPSR_FD."""

    def __init__(self, fd: int) -> None:
        self._socket = socket.socket(fileno=fd)
        os.set_inheritable(fd, False)
        self._socket.setblocking(True)

    def fileno(self) -> int:
        return self._socket.fileno()

    def say(self, verb: str, **values: object) -> None:
        with contextlib.suppress(OSError):
            self._socket.send(pack(verb, **values))

    def session(self, role: str) -> None:
        self.say("session", v=PROTOCOL_VERSION, role=role)

    def report_fault(self, *, cuda: int, call: str, sequence: int, text: str) -> None:
        """Tell of a fault and do what is said then. Returns when the program is to fail: why, the supervisor says."""
        self.say("fault", cuda=cuda, call=call, seq=sequence, text=text[:_MAX_TEXT])
        while word := self.heard():
            if word[0] == "retire":
                os._exit(EXIT_OK)
            if word[0] in ("fail", GONE):
                return

    def asks_to_spill(self) -> bool:
        """Whether a commit is wanted on disk at once; takes in all that has been said."""
        asked = False
        while word := self.heard(timeout=0):
            if word[0] == GONE:
                break
            asked = asked or word[0] == "spill"
        return asked

    def heard(self, timeout: float | None = None) -> tuple[str, dict[str, str]] | None:
        """The next message, waiting at most `timeout` seconds (None: for ever); None when there was none.

        A message that cannot be read is skipped with a line on stderr.
        """
        while readable(self._socket, timeout=timeout):
            try:
                packet = self._socket.recv(MAX_BYTES + 1)
            except OSError:
                packet = b""
            if not packet:
                return GONE, {}
            try:
                return unpack(packet)
            except WireError as error:
                print(f"mpsr: supervisor: {error}", file=sys.stderr)
        return None


def flush_streams() -> None:
    """Send on what Python and the C library hold back of standard output and error."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
    _LIBC.fflush(None)


class Streams:
    """The real standard streams of a standby, parked at the numbers in MPSR_STDIO ("in,out,err"; "" for none)."""

    def __init__(self, numbers: str) -> None:
        self._parked = [int(number) for number in numbers.split(",")] if numbers else []
        for fd in self._parked:
            os.set_inheritable(fd, False)

    def put_back(self) -> None:
        """From now on 0, 1 and 2 are the real ones. What was written before goes where it was meant to go then."""
        flush_streams()
        for number, fd in enumerate(self._parked):
            os.dup2(fd, number)
            os.close(fd)
        self._parked = []
