"""The processes that pyslurm is kept in (pyslurm_calls.py), and a deadline for each call to them.

One process a caller at a time: who waits for a silent slurmctld holds up nobody else. A process that does not answer in
time, or ends, is ended for good; the next call starts another. Raises SlurmAway when there was no answer in time, SlurmError
when there is no pyslurm to be had.
"""

import json
import os
import socket
import subprocess
import sys
from contextlib import suppress
from typing import Any

from resilience.adapters.slurm.pyslurm_calls import PACKET
from resilience.model.errors import SlurmAway, SlurmError

_SAID = 4096
"""Bytes that are kept of what a process said before it ended."""


class _Process:
    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._link = ours
        ours.settimeout(timeout)
        command = [sys.executable, "-P", "-m", "resilience.adapters.slurm.pyslurm_calls", str(theirs.fileno())]
        with theirs:
            self._child = subprocess.Popen(
                command,
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )

    def read(self, what: str) -> dict[str, Any]:
        """Its next answer. After an error it is not to be used any more."""
        try:
            data = self._link.recv(PACKET)
        except TimeoutError as error:
            self.end()
            raise SlurmAway("pyslurm", f"gave no answer within {self._timeout:g} s", what) from error
        except ConnectionError:
            data = b""
        if not data:
            raise SlurmError("pyslurm", "ended its process", self.end())
        found: dict[str, Any] = json.loads(data)
        return found

    def ask(self, call: str, words: dict[str, Any]) -> dict[str, Any]:
        with suppress(OSError):  # that it has gone is seen by reading
            self._link.send(json.dumps({"call": call, "words": words}).encode())
        return self.read(call)

    def end(self) -> str:
        """End it; what it said last, or its exit status."""
        self._link.close()
        with suppress(subprocess.TimeoutExpired):
            self._child.wait(0.2)  # one that ends by itself says why
        self._child.kill()
        status = self._child.wait()
        assert self._child.stderr is not None
        with self._child.stderr as stream:
            os.set_blocking(stream.fileno(), False)
            said = (stream.read(_SAID) or b"").decode(errors="replace").split("\n")
        return next((line.strip() for line in reversed(said) if line.strip()), f"exit status {status}")


class Processes:
    """pyslurm, in processes of its own. `timeout` is in seconds."""

    def __init__(self, *, timeout: float) -> None:
        self._timeout = timeout
        self._idle: list[_Process] = []

    def releases(self) -> dict[str, str]:
        """Of pyslurm and of the slurmctld that answers it, in a process that is new."""
        process, first = self._start()
        self._idle.append(process)
        found: dict[str, str] = first
        return found

    def ask(self, call: str, **words: Any) -> dict[str, Any]:
        """What pyslurm_calls.answer says."""
        try:
            process = self._idle.pop()
        except IndexError:
            process, _ = self._start()
        found = process.ask(call, words)
        self._idle.append(process)
        return found

    def close(self) -> None:
        while self._idle:
            self._idle.pop().end()

    def _start(self) -> tuple[_Process, dict[str, Any]]:
        process = _Process(self._timeout)
        first = process.read("releases")
        if "ok" not in first:
            process.end()
            kind = SlurmAway if "refused" in first else SlurmError
            raise kind("pyslurm", "cannot be used", first.get("refused") or first.get("failed"))
        return process, first["ok"]
