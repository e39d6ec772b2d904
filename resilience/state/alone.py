"""A supervisor where there is no Slurm: `mpsr run PROGRAM` on a laptop or a node without MPS.

It holds the program's kept state by a keeper and starts the program again when a signal has ended it, or a GPU fault, after
it had opened a session. Nothing else is recovered: no agent judges, no standby waits, no server is replaced.

Guarantees: the exit status is the program's, a signal included; SIGTERM, SIGINT and SIGHUP are passed on and end the
program for good; one that dies three times more without a commit in between is not started again. Keeper, socket and
directory go when it ends.
"""

import contextlib
import hashlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import NoReturn

from resilience.adapters.linux.readable import Waited, readable
from resilience.model.errors import StateError, WireError
from resilience.parse.packet import MAX_BYTES, pack, unpack
from resilience.state import names, wire
from resilience.state.link import KeeperLink

_TRIES = 3
"""Deaths without a commit in between."""
_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_OURS = (names.BROUGHT, names.ARGV0, names.SPILL, names.STDIO)


class Alone:
    """One program. `run` returns its exit status, negative for a signal."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str], directory: str) -> None:
        self._command = command
        self._token, self._keeper_path = secrets.token_hex(16), os.path.join(directory, "k0.0")
        digest = hashlib.sha256("\0".join((os.getcwd(), *command)).encode(errors="surrogateescape"))
        self._environ = {key: value for key, value in environ.items() if key not in _OURS} | {
            names.ALONE: "1",
            names.ROLE: "active",
            names.KEEPER: self._keeper_path,
            names.TOKEN: self._token,
            names.PROGRAM: digest.hexdigest()[:16],
        }
        self._keeper: subprocess.Popen[bytes] | None = None
        self._program: subprocess.Popen[bytes] | None = None
        self._told = self._session = self._faulted = False

    def run(self) -> int:
        """Raises OSError when the program cannot be run."""
        tries, committed = _TRIES, -1
        try:
            while True:
                status = self._once()
                if self._told or not self._session or not (self._faulted or status < 0):
                    return status
                sequence = self._sequence()
                tries = _TRIES if sequence > committed else tries - 1
                committed = max(sequence, committed)
                if tries == 0:
                    _say(f"{self._command[0]}: died {_TRIES} times more without a commit in between: not started again")
                    return status
                ended = "after a GPU fault" if self._faulted else f"by {signal.Signals(-status).name}"
                _say(f"{self._command[0]}: ended {ended}: started again from commit {sequence}")
        finally:
            if self._keeper:
                self._keeper.kill()
                self._keeper.wait()

    def pass_on(self, number: int, _: object) -> None:
        """A signal handler: the program is to end, and not to be started again."""
        self._told = True
        if self._program:
            self._program.send_signal(number)

    def _once(self) -> int:
        """Start the program and serve it until it ends."""
        self._session = self._faulted = False
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours:
            environ = self._environ | {names.FD: str(theirs.fileno())}
            self._program = subprocess.Popen(self._command, env=environ, pass_fds=[theirs.fileno()])
            theirs.close()
            ended = os.pidfd_open(self._program.pid)
            try:
                self._serve(ours, ended)
            finally:
                os.close(ended)
            return self._program.wait()

    def _serve(self, program: socket.socket, ended: int) -> None:
        waited: list[Waited] = [program, ended]
        while True:
            ready = readable(*waited, timeout=1.0)  # a keeper that has died is seen within a second
            if self._keeper and self._keeper.poll() is not None:
                self._start_keeper()
            if program in ready and not self._heard(program):
                waited.remove(program)
            elif ended in ready and program not in ready:
                return

    def _heard(self, program: socket.socket) -> bool:
        """One message; False when there will be no more."""
        with contextlib.suppress(OSError, WireError):
            packet = program.recv(MAX_BYTES + 1)
            if not packet:
                return False
            verb, _ = unpack(packet)
            if verb == "session":
                self._session = True
                if self._keeper is None:
                    self._start_keeper()
            elif verb == "fault":
                self._faulted = True
                program.send(pack("fail", reason="it is started again"))
        return True

    def _start_keeper(self) -> None:
        command = [sys.executable, "-P", "-m", "resilience.state.keeper", "--socket", self._keeper_path]
        self._keeper = subprocess.Popen(command, env=self._environ, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def _sequence(self) -> int:
        """The commit that the keeper has; -1 for none."""
        with contextlib.suppress(StateError, OSError):
            link = KeeperLink(self._keeper_path, self._token, "reader")
            wire.close_all(link.first[1] if link.first else [])
            sequence = int(link.status()["sequence"])
            link.close()
            return sequence
        return -1


def run(command: Sequence[str], environ: Mapping[str, str]) -> NoReturn:
    """Run a program and end as it does. Raises OSError when it cannot be run."""
    with tempfile.TemporaryDirectory(prefix="mpsr-", dir=environ.get("XDG_RUNTIME_DIR") or None) as directory:
        alone = Alone(command, environ, directory)
        for number in _PASSED_ON:
            signal.signal(number, alone.pass_on)
        status = alone.run()
    if status < 0:
        if -status != signal.SIGKILL:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    raise SystemExit(status)


def _say(text: str) -> None:
    print(f"mpsr: {text}", file=sys.stderr, flush=True)
