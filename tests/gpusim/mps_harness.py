"""What a test needs to drive simulated MPS: start a daemon, talk to it, run clients, wait for a condition, clean up.

Guarantees: every wait has a bound and says what it waited for; `close` ends exactly the processes that belong to this
place, found through the pid file, the server list and our own children.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tests.gpusim.host import SimHost

LIMIT = 10.0
"""Seconds that any wait may take; the machine may be busy."""
Value = TypeVar("Value")


def wait_for(what: str, probe: Callable[[], Value | None], limit: float = LIMIT) -> Value:
    """The first true value of `probe`; AssertionError naming `what` when none comes within `limit` seconds."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        value = probe()
        if value:
            return value
        select.select([], [], [], 0.002)
    raise AssertionError(f"waited {limit} s for {what}")


class Client:
    """One gpusim-mps-client process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.pid = process.pid
        self.hello = self.read()

    def read(self) -> str:
        """Its next line, within the limit."""
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], LIMIT)
        assert ready, f"client {self.pid} said nothing for {LIMIT} s"
        return self.process.stdout.readline().strip()

    def tell(self, line: str) -> None:
        """Send one line."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def ask(self, line: str) -> str:
        """Send one line, return the answer."""
        self.tell(line)
        return self.read()

    def end(self) -> None:
        """Let it exit."""
        self.process.communicate(timeout=LIMIT)

    def kill(self) -> None:
        """SIGKILL and reap."""
        self.process.kill()
        self.process.communicate(timeout=LIMIT)


class Mps:
    """One pipe directory with its log directory on a simulated host."""

    def __init__(self, sim: SimHost, name: str = "mps") -> None:
        self.sim = sim
        self.pipe = sim.path / f"{name}-pipe"
        self.logs = sim.path / f"{name}-log"
        self.clients: list[Client] = []
        self.env = sim.env(CUDA_MPS_PIPE_DIRECTORY=str(self.pipe), CUDA_MPS_LOG_DIRECTORY=str(self.logs))

    def start(self, *options: str, user: int | None = None, **more: str) -> subprocess.CompletedProcess[str]:
        """`nvidia-cuda-mps-control -d`, by `user`."""
        return self.run(["nvidia-cuda-mps-control", "-d", *options], user=user, **more)

    def run(
        self, argv: list[str], text: str = "", user: int | None = None, **more: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a program on the host; `text` is its standard input."""
        env = self.env | more
        argv = [str(self.sim.build / "bin" / argv[0]), *argv[1:]]
        return subprocess.run(
            argv,
            input=text,
            capture_output=True,
            text=True,
            env=env,
            user=user,
            timeout=LIMIT,
            check=False,
            extra_groups=None,
        )

    def command(self, *lines: str, user: int | None = None) -> list[str]:
        """Lines to the daemon's front end, its output lines back; the exit status must be 0."""
        done = self.run(["nvidia-cuda-mps-control"], "\n".join(lines) + "\n", user=user)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    def server(self) -> int:
        """The pid of the one server, waited for."""
        return int(wait_for("a server in get_server_list", lambda: self.command("get_server_list"))[0])

    def client(self, user: int | None = None, **more: str) -> Client:
        """A new client, with `more` in its environment; its `hello` says how it was received."""
        process = subprocess.Popen(
            [str(self.sim.build / "bin" / "gpusim-mps-client")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=self.env | more,
            user=user,
        )
        made = Client(process)
        self.clients.append(made)
        return made

    def log(self, name: str) -> list[str]:
        """The texts of control.log or server.log, without their stamps."""
        return [line.split("] ", 1)[1] for line in (self.logs / name).read_text().splitlines()]

    def wait_log(self, name: str, text: str) -> None:
        """Wait for a line of exactly this text."""
        wait_for(f"{text!r} in {name}", lambda: text in self.log(name) or None)

    def daemon(self) -> int | None:
        """The pid of the living control daemon here."""
        return _living(self.pipe, "nvidia-cuda-mps-control")

    def close(self) -> None:
        """End everything that lives in this place."""
        for client in self.clients:
            if client.process.poll() is None:
                client.kill()
        end(self.pipe)


def processes(place: Path) -> list[int]:
    """Processes whose environment names this pipe directory, or one below it: ours alone, since the name is unique."""
    name = b"CUDA_MPS_PIPE_DIRECTORY="
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            words = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        pipes = [Path(os.fsdecode(word[len(name) :])) for word in words if word.startswith(name)]
        if any(pipe == place or place in pipe.parents for pipe in pipes):
            found.append(int(entry.name))
    return found


def end(place: Path) -> None:
    """SIGKILL whatever belongs to this pipe directory."""
    for pid in processes(place):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _living(pipe: Path, name: str) -> int | None:
    for pid in processes(pipe):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if any(Path(os.fsdecode(word)).name == name for word in words):
            return pid
    return None
