"""The stage on which an experiment happens: MPS servers of its own and GPU processes on strings, all gone afterwards.

Relies on `python3` and the driver's library; on `nvidia-cuda-mps-control` for servers (`Stage.mps` is empty where there is none, or
where the run has seen that no server starts: `WITHOUT_MPS` is set).
Guarantees that every process and directory that it started is ended at `close`, hung ones included. Never changes a setting of the GPU.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).parent.parent.parent
QUIT_SECONDS = 3.0
WITHOUT_MPS = "MPSR_RUN_WITHOUT_MPS"
READY_SECONDS = 30.0
"""Longest wait for a server: NVIDIA's own example shows seconds on machines without the persistence daemon."""


def leftovers(folder: Path) -> dict[int, str]:
    """Processes whose environment names this folder or what is in it, by id; our own children and their daemons alone have its name."""
    mark, found = f"CUDA_MPS_PIPE_DIRECTORY={folder}".encode(), dict[int, str]()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                words = (entry / "environ").read_bytes().split(b"\0")
                if any(word == mark or word.startswith(mark + b"/") for word in words):
                    found[int(entry.name)] = (entry / "comm").read_text().strip()
    return found


def end_leftovers(folder: Path) -> list[str]:
    """SIGKILL them; what they were. A daemon of an experiment that was killed lives in a session of its own and is found only here."""
    found = leftovers(folder)
    for pid in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return sorted(found.values())


class Gone(Exception):
    """A puppet ended or did not answer in time; `how` says which."""

    def __init__(self, name: str, how: str) -> None:
        super().__init__(f"{name}: {how}")
        self.how = how


class Puppet:
    """The parent's side of one GPU process."""

    def __init__(self, name: str, env: dict[str, str], uid: int | None = None) -> None:
        self.name = name
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            argv = [sys.executable, "-m", "tests.gpu.puppet", str(theirs.fileno()), *([str(uid)] if uid else [])]
            self.process = subprocess.Popen(
                argv, env=env, cwd=ROOT, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL
            )

    def send(self, verb: str, *, fds: tuple[int, ...] = (), **values: Any) -> None:
        socket.send_fds(self.socket, [json.dumps({"do": verb, **values}).encode()], list(fds))

    def hear(self, timeout: float = 20.0) -> dict[str, Any]:
        """The answer; descriptors that came along stand under "fds"."""
        self.socket.settimeout(timeout)
        try:
            packet, fds, _, _ = socket.recv_fds(self.socket, 1 << 20, 8)
        except TimeoutError:
            raise Gone(self.name, f"no answer in {timeout:.0f} s") from None
        except ConnectionError:
            packet, fds = b"", []
        if not packet:
            raise Gone(self.name, f"ended with status {self.process.wait(5)}")
        return {**json.loads(packet), "fds": fds}

    def ask(self, verb: str, *, timeout: float = 20.0, fds: tuple[int, ...] = (), **values: Any) -> dict[str, Any]:
        self.send(verb, fds=fds, **values)
        return self.hear(timeout)

    def kill(self) -> None:
        """A process that the driver does not let go is left after a while: its death is not ours to force."""
        self.process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        self.socket.close()


class Server:
    """A control daemon in directories of its own, with a server for this user."""

    def __init__(self, stage: "Stage", name: str, *, options: tuple[str, ...] = (), private: bool = True) -> None:
        """`private`: its directories are for nobody else; otherwise the daemon makes them as it would by itself."""
        self.stage = stage
        self.pipe, self.log = stage.folder / f"{name}.pipe", stage.folder / f"{name}.log"
        for folder in (self.pipe, self.log) if private else ():
            folder.mkdir(mode=0o700)
        self.env = {"CUDA_MPS_PIPE_DIRECTORY": str(self.pipe), "CUDA_MPS_LOG_DIRECTORY": str(self.log)}
        begin = time.monotonic()
        started = subprocess.run([stage.mps, "-d", *options], env={**stage.environ, **self.env}, timeout=READY_SECONDS, check=False,
                                 capture_output=True, text=True)  # fmt: skip
        self.start = {"rc": started.returncode, "out": (started.stdout + started.stderr)[-500:]}
        self.command(f"start_server -uid {os.getuid()}")
        self.start["state"] = self.wait("ACTIVE", READY_SECONDS if started.returncode == 0 else 0.0, until=self.died)
        self.start["seconds"] = time.monotonic() - begin

    def command(self, line: str) -> str:
        """What one command prints. No other UI uses these directories, so the answer is whole."""
        asked = subprocess.run([self.stage.mps], input=line + "\n", env={**self.stage.environ, **self.env}, timeout=READY_SECONDS,
                               check=False, capture_output=True, text=True)  # fmt: skip
        return asked.stdout.strip()

    def pid(self) -> int:
        """The server's process id, 0 without one."""
        words = self.command("get_server_list").split()
        return int(words[0]) if words and words[0].isdigit() else 0

    def state(self) -> str:
        pid = self.pid()
        return self.command(f"get_server_status {pid}") if pid else "none"

    def wait(self, state: str, seconds: float, until: Callable[[], bool] = lambda: False) -> str:
        """The state after at most that time; waits no longer once `until` says so."""
        end = time.monotonic() + seconds
        while (seen := self.state()) != state and time.monotonic() < end and not until():
            time.sleep(0.005)
        return seen

    def died(self) -> bool:
        """A server that was started has ended: the daemon starts no other by itself."""
        return any(re.search(r"Server \d+ exited with status", line) for line in self.log_lines("control.log"))

    def logged(self) -> str:
        """Both logs, whole."""
        return "\n".join(
            f"--- {path.name}\n{path.read_text(errors='replace')}" for path in sorted(self.log.glob("*.log"))
        )

    def log_lines(self, name: str) -> list[str]:
        path = self.log / name
        return path.read_text(errors="replace").splitlines() if path.exists() else []

    def close(self) -> None:
        """Ask it to end, wait, end it."""
        self.command("quit -t 1")
        end = time.monotonic() + QUIT_SECONDS
        while leftovers(self.pipe) and time.monotonic() < end:
            time.sleep(0.02)
        end_leftovers(self.pipe)

    def daemon(self) -> int:
        """The control daemon's process id, 0 where it wrote none (535)."""
        file = self.pipe / "nvidia-cuda-mps-control.pid"
        text = file.read_text().strip() if file.exists() else ""
        return int(text) if text.isdigit() else 0


class Stage:
    def __init__(self, *, small: bool, environ: Mapping[str, str] = os.environ, folder: Path | None = None) -> None:
        """`folder`: an empty one that exists already; its name must be nobody else's."""
        self.small = small
        self.environ = dict(environ)
        without = self.environ.get(WITHOUT_MPS)
        self.mps = "" if without else shutil.which("nvidia-cuda-mps-control", path=self.environ.get("PATH")) or ""
        self.folder = folder or Path(tempfile.mkdtemp(prefix="hw", dir="/tmp"))
        self.servers: list[Server] = []
        self.puppets: list[Puppet] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for puppet in self.puppets:
            if puppet.process.poll() is None:
                puppet.kill()
        for server in self.servers:
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.close()
        end_leftovers(self.folder)
        shutil.rmtree(self.folder, ignore_errors=True)

    def server(self, name: str, *, options: tuple[str, ...] = (), private: bool = True) -> Server:
        self.servers.append(Server(self, name, options=options, private=private))
        return self.servers[-1]

    def puppet(self, name: str, server: Server | None = None, uid: int | None = None) -> Puppet:
        """A process that is a client of `server`, or of none (its pipe directory does not exist); `uid`: of another user than root."""
        outside = {"CUDA_MPS_PIPE_DIRECTORY": str(self.folder / "nowhere")}
        self.puppets.append(Puppet(name, {**self.environ, **(server.env if server else outside)}, uid))
        return self.puppets[-1]

    def bytes(self, mib: int) -> int:
        """A size of an experiment; a thirty-second of it on a small stage (a simulated GPU lives in host memory)."""
        return max(2, mib // 32 if self.small else mib) << 20

    def logs(self) -> str:
        return "\n".join(server.logged() for server in self.servers)
