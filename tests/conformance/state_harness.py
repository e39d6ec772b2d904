"""What tests of the session need around a program: two simulated MPS servers, a keeper, a supervisor with a script.

All of it is the real thing but the supervisor, whose words each test chooses, and the GPU. Every wait has a bound.
"""

import os
import secrets
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from resilience.parse.packet import pack, unpack
from resilience.state.identity import base_name
from tests.gpusim.host import SimHost
from tests.gpusim.mps_harness import Mps

ROOT = Path(__file__).resolve().parents[2]
HEAT = ROOT / "docs/tutorial/heat2d/heat2d.py"
CULPRIT = ROOT / "resilience/drill/culprit.py"
LIMIT = 20.0
"""Seconds that anything may take."""


def eventually(what: str, true: Callable[[], Any]) -> Any:
    """The first true value of a condition."""
    end = time.monotonic() + LIMIT
    while not (value := true()):
        assert time.monotonic() < end, f"waited {LIMIT} s for {what}"
        select.select([], [], [], 0.002)
    return value


class Program:
    """A process with a supervisor's socket, standard output and error."""

    def __init__(self, process: subprocess.Popen[str], supervisor: socket.socket) -> None:
        self.process = process
        self.supervisor = supervisor

    def heard(self, verb: str) -> dict[str, str]:
        """The values of the next message, which must be `verb`."""
        assert select.select([self.supervisor], [], [], LIMIT)[0], f"waited {LIMIT} s for {verb}"
        packet = self.supervisor.recv(9999)
        if not packet:
            raise AssertionError(f"ended instead of saying {verb}: {self.ended()}")
        said, values = unpack(packet)
        assert said == verb, f"{said} {values}"
        return values

    def quiet(self) -> bool:
        return not select.select([self.supervisor], [], [], 0)[0]

    def tell(self, verb: str, **values: object) -> None:
        self.supervisor.send(pack(verb, **values))

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.ended()

    def ended(self) -> tuple[int, str, str]:
        """Exit status, standard output and error."""
        out, err = self.process.communicate(timeout=LIMIT)
        return self.process.returncode, out, err


class Task:
    """One task of a job on a host with servers `a` and `b`, its keeper and its directories. Close it."""

    def __init__(self, sim: SimHost, directory: Path) -> None:
        self.directory = directory
        self.spill = directory / "spill"
        self.keeper_path = directory / "k0.0"
        self.token = secrets.token_hex(8)
        self.standby_token = secrets.token_hex(8)
        self.servers = {color: Mps(sim, color) for color in "ab"}
        for server in self.servers.values():
            started = server.start()
            assert started.returncode == 0, started
        self.keeper: subprocess.Popen[bytes] | None = None
        self.programs: list[Program] = []

    def start_keeper(self, *extra: str) -> None:
        command = [sys.executable, "-E", "-m", "resilience.state.keeper", "--socket", str(self.keeper_path), *extra]
        self.keeper = subprocess.Popen(
            command, cwd=ROOT, env={"MPSR_TOKEN": self.token, "MPSR_STANDBY_TOKEN": self.standby_token}
        )

    def kill_keeper(self) -> None:
        assert self.keeper is not None
        self.keeper.kill()
        self.keeper.wait(LIMIT)

    def environ(self, color: str, **more: str) -> dict[str, str]:
        return {
            **self.servers[color].env,
            "PYTHONPATH": str(ROOT),
            "MPSR_KEEPER": str(self.keeper_path),
            "MPSR_TOKEN": self.token,
            "MPSR_SPILL": str(self.spill),
            "SLURM_JOB_ID": "77",
            "SLURM_STEP_ID": "0",
            "SLURM_PROCID": "0",
            **more,
        }

    def start(self, argv: Sequence[object], *, role: str = "active", color: str = "a", **more: str) -> Program:
        """Start a Python program under the supervisor's socket. A standby gets /dev/null and parked streams."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        token = self.standby_token if role == "standby" else self.token
        environ = self.environ(color, MPSR_FD=str(theirs.fileno()), MPSR_ROLE=role, MPSR_TOKEN=token) | more
        pass_fds = [theirs.fileno()]
        command = [sys.executable, *map(str, argv)]
        if role == "active":
            process = subprocess.Popen(
                command, env=environ, pass_fds=pass_fds, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        else:
            # The real streams at numbers of their own; 0, 1 and 2 away, as the supervisor does it.
            shell = 'exec 7<&0 8>&1 9>&2 </dev/null >/dev/null 2>>"$LOG"; exec "$@"'
            process = subprocess.Popen(
                ["/bin/bash", "-c", shell, "standby", *command],
                env=environ | {"MPSR_STDIO": "7,8,9", "LOG": str(self.directory / "standby.err")},
                pass_fds=pass_fds,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        theirs.close()
        program = Program(process, ours)
        self.programs.append(program)
        return program

    def fault(self, kind: str = "trap", color: str = "a") -> None:
        """Have a neighbour on that server make a GPU fault."""
        environ = self.servers[color].env | {"PYTHONPATH": str(ROOT)}
        command = [sys.executable, str(CULPRIT), kind]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=LIMIT, check=False)
        assert done.returncode == 1, done

    def close(self) -> None:
        for program in self.programs:
            program.supervisor.close()
            if program.process.poll() is None:
                program.process.kill()
                program.process.communicate()
        if self.keeper is not None:
            self.keeper.kill()
            self.keeper.wait(LIMIT)
        for server in self.servers.values():
            server.close()


def spilled(task: Task, name: str = "") -> Path:
    """The file of the task's state on disk, of a session without a name or with one."""
    return task.spill / f"77.{base_name({}, name)}.0.state"


def undisturbed(directory: Path, *arguments: object) -> tuple[str, str, str]:
    """Log, checksum and standard output of the solver without any GPU: numpy, nothing of ours in the environment."""
    log, out = directory / "reference.log", directory / "reference.out"
    command = [sys.executable, str(HEAT), *map(str, arguments), "--log", str(log), "--out", str(out)]
    done = subprocess.run(
        command, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True, timeout=LIMIT, cwd=os.sep
    )
    return log.read_text(), out.read_text(), done.stdout
