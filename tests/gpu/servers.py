"""One MPS control daemon in directories of its own, with a server for this user.

That a server can be used is told by a client, not by a word: a state whose word is unknown counts as ready once a process got
CU_DEVICE_ATTRIBUTE_MPS_ENABLED = 1 from it. `ACTIVE` is the documented word, never yet seen from a live server by us. A control program
that cannot be run, hangs or refuses is a finding like any other (`start`), never an error here.
"""

import contextlib
import math
import os
import re
import subprocess
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tests.gpu.leftovers import end_leftovers, leftovers

if TYPE_CHECKING:
    from tests.gpu.stage import Stage

QUIT_SECONDS = 3.0
COMMAND_SECONDS = 10.0
"""For one answer of the control program."""
UNREADY = re.compile(r"init|fault|busy|not found|teardown|^none$|^$", re.IGNORECASE)
"""States, and answers in place of one, that no client needs to be sent to."""


class Server:
    def __init__(self, stage: "Stage", name: str, *, options: tuple[str, ...] = (), private: bool = True) -> None:
        """`private`: its directories are for nobody else; otherwise the daemon makes them as it would by itself."""
        self.stage, self.name, self.options, self.private = stage, name, options, private
        self.pipe, self.log = stage.folder / f"{name}.pipe", stage.folder / f"{name}.log"
        for folder in (self.pipe, self.log) if private else ():
            folder.mkdir(mode=0o700)
        self.env = {"CUDA_MPS_PIPE_DIRECTORY": str(self.pipe), "CUDA_MPS_LOG_DIRECTORY": str(self.log)}
        self.begun = time.monotonic()
        self.start: dict[str, Any] = self.run(stage.ready_seconds, "-d", *options)
        self.command(f"start_server -uid {os.getuid()}")

    def run(self, seconds: float, *argv: str, line: str = "") -> dict[str, Any]:
        """The control program's status and words; -1 where it could not be run, or did not end in time."""
        try:
            done = subprocess.run([self.stage.mps, *argv], input=line, env={**self.stage.environ, **self.env}, check=False,
                                  timeout=seconds * self.stage.patience, capture_output=True, text=True)  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            return {"rc": -1, "out": str(error)[-500:]}
        return {"rc": done.returncode, "out": (done.stdout + done.stderr)[-500:]} | (
            {"said": done.stdout} if line else {}
        )

    def command(self, line: str) -> str:
        """What one command prints. No other UI uses these directories, so the answer is whole."""
        return str(self.run(COMMAND_SECONDS, line=line + "\n").get("said", "")).strip()

    def started(self) -> dict[str, Any]:
        """Wait until it is ready, or has died; how it went."""
        seconds = self.stage.ready_seconds if self.start["rc"] == 0 else 0.0
        state = self.wait(self.ready, seconds, until=self.died)
        self.start |= {
            "state": state,
            "ready": self.ready(state),
            "pid": self.pid(),
            "seconds": time.monotonic() - self.begun,
        }
        return self.start

    def pid(self) -> int:
        """The server's process id, 0 without one."""
        words = self.command("get_server_list").split()
        return int(words[0]) if words and words[0].isdigit() else 0

    def state(self) -> str:
        pid = self.pid()
        return self.command(f"get_server_status {pid}") if pid else "none"

    def clients(self) -> list[str]:
        """The process ids that it lists, as it prints them."""
        return self.command(f"get_client_list {self.pid()}").split()

    def ready(self, state: str) -> bool:
        """Does that word mean that clients are served? An unknown one is asked of a client, once."""
        if state not in self.stage.ready_words and not UNREADY.search(state) and self.serves():
            self.stage.ready_words.add(state)
        return state in self.stage.ready_words

    def serves(self) -> bool:
        """Does a process that is sent here become a client?"""
        return bool(self.stage.begun("asks", self).get("mps") == 1)

    def wait(self, good: Callable[[str], bool], seconds: float, until: Callable[[], bool] = lambda: False) -> str:
        """The state after at most that time; waits no longer once `until` says so."""
        end = time.monotonic() + seconds * self.stage.patience
        while not good(seen := self.state()) and time.monotonic() < end and not until():
            time.sleep(0.005)
        return seen

    def wait_ready(self, seconds: float = math.inf) -> str:
        """The state once it serves clients again, or after that time. A machine whose servers do not come back is not waited for again
        and again."""
        seen = self.wait(self.ready, min(seconds, self.stage.recovery_seconds))
        if not self.ready(seen):
            self.stage.give_up()
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
        with contextlib.suppress(OSError, ValueError):
            return int((self.pipe / "nvidia-cuda-mps-control.pid").read_text())
        return 0
