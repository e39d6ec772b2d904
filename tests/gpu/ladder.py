"""A supervisor's part for one task, small enough to time every rung without Slurm (docs/reference/protocols.md §7, §8)."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from resilience.parse.packet import pack, unpack
from tests.gpu.servers import Server
from tests.gpu.stage import Stage
from tests.gpu.strings import ROOT


class PuppetProcess:
    """One process of the task and our end of its socket."""

    def __init__(self, task: "PuppetTask", role: str, server: Server | None, **environment: str) -> None:
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pipe = server.env if server else {}
        words = {
            "PYTHONPATH": str(ROOT),
            "MPSR_FD": str(theirs.fileno()),
            "MPSR_ROLE": role,
            "MPSR_KEEPER": str(task.keeper_path),
            "MPSR_TOKEN": task.standby_token if role == "standby" else task.token,
        }
        with theirs:
            self.process = subprocess.Popen(
                task.argv, env={**task.stage.environ, **pipe, **words, **environment}, cwd=ROOT, pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
        task.processes.append(self)

    def wait(self, verb: str, seconds: float) -> dict[str, str]:
        """The values of that word; other words that come before are passed over."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.socket.settimeout(left)
            packet = self.socket.recv(4096)
            if not packet:
                raise RuntimeError(f"program ended with {self.process.wait()} before it said {verb}")
            heard, values = unpack(packet)
            if heard == verb:
                return values
        raise RuntimeError(f"program did not say {verb} in {seconds:.0f} s")

    def read_line(self, line: str) -> None:
        """Until the program prints that line; the experiment's own time limit bounds the wait."""
        assert self.process.stdout is not None
        for printed in self.process.stdout:
            if printed.rstrip() == line:
                return
        raise RuntimeError(f"program ended before it printed {line}")

    def say(self, verb: str, **values: Any) -> None:
        self.socket.send(pack(verb, **values))


class PuppetTask:
    """A keeper and the processes that take turns with its state."""

    def __init__(self, stage: Stage, *program: object) -> None:
        """`program`: the words after `python3`."""
        self.stage, self.argv = stage, [sys.executable, *map(str, program)]
        self.token, self.standby_token = os.urandom(16).hex(), os.urandom(16).hex()
        self.processes = list[PuppetProcess]()
        folder = stage.folder / f"task.{time.monotonic_ns()}"
        folder.mkdir(0o700)  # of one run of one job: the product counts a command's sessions there
        self.keeper_path = folder / "k0.0"
        self.keeper = subprocess.Popen(
            [sys.executable, "-m", "resilience.state.keeper", "--socket", str(self.keeper_path)], cwd=ROOT,
            env={**stage.environ, "MPSR_TOKEN": self.token, "MPSR_STANDBY_TOKEN": self.standby_token},
        )  # fmt: skip
        wait_for(self.keeper_path)

    def close(self) -> None:
        for each in self.processes:
            each.process.kill()
            each.process.wait()
            each.socket.close()
        self.processes.clear()
        self.keeper.terminate()
        self.keeper.wait()


def wait_for(path: Path, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not path.exists() and time.monotonic() < end:
        time.sleep(0.001)
