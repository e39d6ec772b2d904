"""The parent's side of one GPU process: numbered orders, an answer each, and a death or a hang told as `Gone`."""

import contextlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
ANSWER_SECONDS = 20.0


class PuppetGone(Exception):
    """A puppet ended or did not answer in time; `how` says which."""

    def __init__(self, name: str, how: str) -> None:
        super().__init__(f"{name}: {how}")
        self.how = how


class Puppet:
    """One GPU process; `module` is the program that it runs. `patience` multiplies every wait for it."""

    def __init__(
        self, name: str, env: dict[str, str], uid: int | None = None, *, module: str = "puppet", patience: float = 1.0
    ) -> None:
        self.name, self.patience, self.orders = name, patience, 0
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            argv = [sys.executable, "-m", f"tests.gpu.{module}", str(theirs.fileno()), *([str(uid)] if uid else [])]
            self.process = subprocess.Popen(
                argv, env=env, cwd=ROOT, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL
            )

    def send(self, verb: str, *, fds: tuple[int, ...] = (), **values: Any) -> None:
        """One order, to be followed by `hear`. A process that is dead is Gone."""
        self.orders += 1
        order = json.dumps({"do": verb, "order": self.orders, **values}).encode()
        self.socket.settimeout(ANSWER_SECONDS * self.patience)
        try:
            socket.send_fds(self.socket, [order], list(fds))
        except OSError as error:
            raise PuppetGone(self.name, self.ended(str(error))) from None

    def hear(self, timeout: float = ANSWER_SECONDS) -> dict[str, Any]:
        """The answer to the last order; descriptors that came along stand under "fds". Late answers to orders before it are dropped."""
        self.socket.settimeout(timeout * self.patience)
        while True:
            try:
                packet, fds, _, _ = socket.recv_fds(self.socket, 1 << 20, 8)
            except TimeoutError:
                raise PuppetGone(self.name, f"no answer in {timeout * self.patience:.0f} s") from None
            except OSError:
                packet, fds = b"", []
            if not packet:
                raise PuppetGone(self.name, self.ended("closed its socket"))
            answer: dict[str, Any] = json.loads(packet)
            if answer.pop("order", None) == self.orders:
                return {**answer, "fds": fds}
            for fd in fds:
                os.close(fd)

    def ask(
        self, verb: str, *, timeout: float = ANSWER_SECONDS, fds: tuple[int, ...] = (), **values: Any
    ) -> dict[str, Any]:
        self.send(verb, fds=fds, **values)
        return self.hear(timeout)

    def ended(self, sign: str) -> str:
        """How the process ended, or the sign of its end where it is still there."""
        try:
            return f"ended with status {self.process.wait(5 * self.patience)}"
        except subprocess.TimeoutExpired:
            return sign

    def kill(self) -> None:
        """A process that the driver does not let go is left after a while: its death is not ours to force."""
        self.process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        self.socket.close()
