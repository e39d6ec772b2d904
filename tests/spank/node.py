"""A node for one supervisor, without Slurm: a run directory with a lease, and an agent that follows a test's script.

The agent is a real SOCK_SEQPACKET server that speaks through resilience.parse.packet; what it answers is for the test to
say. Every wait has a bound and fails naming what did not come.
"""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from resilience.model.ids import Color, DomainKey, GpuMinor, GpuUuid, JobId, NodeName
from resilience.model.lease import Isolation, Lease, LeaseState
from resilience.model.options import JobOptions
from resilience.parse import lease as lease_text
from resilience.parse import packet

ROOT = Path(__file__).resolve().parents[2]
LAUNCHER = ROOT / "build/mpsr-launch"
BOUND = 30.0
GPUS = (
    "mpsr: gpus: each task sees one of its 2 GPUs, which have MPS servers of their own (sbatch --mps-servers=job: one "
    "over all of them)\n"
)
"""What a task is told whose lease has two GPUs with servers each."""
Words = dict[str, str]


def lease(run: Path, job: int = 7, **changes: object) -> Lease:
    """An open lease with two GPUs of this process's user."""
    values: dict[str, object] = {
        "job": JobId(job),
        "uid": os.getuid(),
        "gid": os.getgid(),
        "user": "root",
        "node": NodeName("n0"),
        "restart": 0,
        "state": LeaseState.OPEN,
        "reason": "",
        "options": JobOptions(mps=True),
        "domain": DomainKey("u0"),
        "isolation": Isolation.DOMAINS,
        "slots": (),
        "colors": (Color("a"), Color("b")),
        "gpus": ((GpuMinor(0), GpuUuid("GPU-aaaa")), (GpuMinor(3), GpuUuid("GPU-bbbb"))),
        "run": str(run),
        "log": str(run / "log"),
        "agent": str(run / "n0/agent.sock"),
        "python": sys.executable,
        "spill": "",
        "opened": 1.0,
    }
    return Lease(**(values | changes))  # type: ignore[arg-type]


def write_lease(it: Lease) -> Path:
    """The lease and what the prolog makes beside it: job directory and the `active` files, colour a."""
    node = Path(it.run) / it.node
    (node / "jobs" / str(it.job)).mkdir(parents=True, exist_ok=True)
    for minor, _ in it.gpus:
        gpu = node / "d" / it.domain / f"g{minor}"
        gpu.mkdir(parents=True, exist_ok=True)
        (gpu / "active").write_text("a\n")
    path = node / "jobs" / f"{it.job}.lease"
    path.write_text(lease_text.render(it))
    return path


@dataclass(slots=True)
class Connection:
    """The agent's end of one supervisor."""

    socket: socket.socket
    heard: list[tuple[str, Words]] = field(default_factory=list)
    ends_clients: bool = True
    """Answers that clients have been ended, as soon as it hears the question."""

    def send(self, verb: str, **values: object) -> None:
        self.socket.send(packet.pack(verb, **values))

    def expect(self, verb: str, **values: str) -> Words:
        """The next message with this verb and these values; others before it are kept in `heard`."""
        while True:
            try:
                received = self.socket.recv(packet.MAX_BYTES + 1)
            except TimeoutError:
                raise AssertionError(f"no {verb} {values}; heard {self.heard}") from None
            if not received:
                raise AssertionError(f"hung up before {verb} {values}; heard {self.heard}")
            got, found = packet.unpack(received)
            self.heard.append((got, found))
            if got == "end" and self.ends_clients:
                self.send("ended", n=found["n"])
            if got == verb and values.items() <= found.items():
                return found

    def place(self, **values: object) -> Words:
        """Hear hello, answer with a place on colour a (and a standby on b when asked for)."""
        hello = self.expect("hello")
        times = {"grace_ms": 1000, "restore_ms": 30000, "requeue_ms": 60000, "spill_ms": 45000}
        self.send("place", **({"color": "a", "pipe": "/pipes/a", "standby": "", "standby_pipe": ""} | times | values))
        return hello

    def verdict(self, action: str, **values: object) -> None:
        self.send("verdict", **({"incident": "i1", "action": action, "part": "bystander", "reason": ""} | values))

    def close(self) -> None:
        self.socket.close()


@dataclass(slots=True)
class ScriptedAgent:
    """Listens where the lease says."""

    path: Path
    listener: socket.socket

    @classmethod
    def at(cls, path: Path) -> "ScriptedAgent":
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(str(path))
        listener.listen(8)
        listener.settimeout(BOUND)
        return cls(path, listener)

    def accept(self) -> Connection:
        connection, _ = self.listener.accept()
        connection.settimeout(BOUND)
        return Connection(connection)

    def close(self) -> None:
        self.listener.close()


@dataclass(slots=True)
class Supervised:
    """A running mpsr-launch with its output collected."""

    process: subprocess.Popen[str]

    def end(self, seconds: float = BOUND, stdin: str | None = None) -> tuple[int, str, str]:
        """Wait for its end: returncode (negative for a signal), output, errors."""
        timer = threading.Timer(seconds, self.process.kill)
        timer.start()
        try:
            out, errors = self.process.communicate(stdin)
        finally:
            timer.cancel()
        return self.process.returncode, out, errors


def launch(
    it: Lease,
    *command: str,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    launcher: Path = LAUNCHER,
    fds: tuple[int, ...] = (),
) -> Supervised:
    """Start the supervisor as Slurm would have it in a step, without the plugin."""
    environment = {
        "PATH": os.environ["PATH"],
        "SLURM_JOB_ID": str(it.job),
        "SLURMD_NODENAME": str(it.node),
        "SLURM_STEP_ID": "2",
        "SLURM_PROCID": "5",
        "SLURM_LOCALID": "1",
        "MPSR_LEASE": f"{it.run}/{it.node}/jobs/{it.job}.lease",
    }
    process = subprocess.Popen(
        [str(launcher), *command],
        env=environment | dict(env or {}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        pass_fds=fds,
    )
    return Supervised(process)
