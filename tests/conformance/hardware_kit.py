"""The hardware run on a simulated GPU that refuses: wrappers round the MPS programs, rules for the driver, and what came out.

Budget, limits and waits are multiplied (`--patience`), so that no test depends on how fast the machine is; a test of a limit sets that
one itself.
"""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.gpu.strings import ROOT
from tests.gpu.verdicts import ExperimentOutcome, outcomes
from tests.gpusim.host import SimHost
from tests.gpusim.inject import Injector

CONTROL = "nvidia-cuda-mps-control"
PATIENCE = 10
RUN_SECONDS = 900
TWO_KINDS = ("--kinds", "trap,illegal-write")
"""An SM fault and a memory fault: enough where the machine is in question; test_hardware_run.py commits each kind."""
CALLS = 60
"""As many calls of a function in one process as an experiment makes, and more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """What a run left behind."""

    results: dict[str, Any]
    said: str

    def found(self, experiment: str) -> dict[str, Any]:
        told: dict[str, Any] = self.results["experiments"][experiment].get("found", {})
        return told

    def how(self, experiment: str) -> str:
        return str(self.results["experiments"][experiment]["how"])

    def verdict(self, name: str) -> ExperimentOutcome:
        return next(one for one in outcomes(self.results["experiments"]) if one.name == name)

    def agrees(self, *names: str) -> dict[str, bool | None]:
        return {name: self.verdict(name).agrees for name in names}


def environ(host: SimHost, *first: Path, **more: str) -> dict[str, str]:
    """Of a run on that host; `first`: directories before the others of its PATH."""
    env = {**os.environ, **host.env(LANG="C.UTF-8"), **more}
    return env | {"PATH": ":".join([*map(str, first), env["PATH"]])}


def run_argv(out: Path, *argv: str) -> list[str]:
    return [sys.executable, "-m", "tests.gpu.run", "--out", str(out), "--small", "--patience", str(PATIENCE), *argv]


def told(out: Path, said: str = "") -> Told:
    return Told(results=json.loads((out / "results.json").read_text()), said=said)


def asked(out: Path, env: dict[str, str], *names: str, argv: tuple[str, ...] = ()) -> Told:
    """A run of these experiments."""
    words = run_argv(out, "--only", ",".join(names), *argv)
    done = subprocess.run(words, env=env, cwd=ROOT, capture_output=True, text=True, check=False, timeout=RUN_SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    return told(out, done.stdout)


def script(folder: Path, name: str, body: str) -> Path:
    """A program of that name in a directory of its own; the directory."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return folder


def control(host: SimHost, folder: Path, body: str) -> Path:
    """A control program that runs `body` first; `"$REAL"` is the one of the host."""
    return script(folder, CONTROL, f"REAL={host.build}/bin/{CONTROL}\n{body}")


SECOND_REFUSED = (
    'case "$CUDA_MPS_PIPE_DIRECTORY" in */two*.pipe) echo "already running"; exit 1;; esac\nexec "$REAL" "$@"'
)
OTHER_WORDS = 'if [ -n "$1" ]; then exec "$REAL" "$@"; fi\n"$REAL" | sed -e s/ACTIVE/Serving/ -e s/FAULT/Recovering/'


NO_TIMEOUT = 'while [ "${1#-}" != "$1" ]; do shift 2; done\nshift\nexec "$@"'
"""A `timeout` that sets none: what a command line allows on a GPU must not count on a busy machine without one."""
NOMINAL_SECONDS = 0.1


def scaled(seconds: float) -> float:
    """As many seconds as this machine needs now for what takes so many on an idle one: by the start of a process of the run."""
    begin = time.monotonic()
    subprocess.run([sys.executable, "-c", "import tests.gpu.stage"], cwd=ROOT, check=True)
    return round(seconds * max(1.0, (time.monotonic() - begin) / NOMINAL_SECONDS), 1)


def refuse(host: SimHost, function: str, code: int) -> None:
    """Every call of it."""
    for call in range(1, CALLS + 1):
        Injector(host.path).fail(function, call, code)


def alive(mark: str) -> list[str]:
    """Command lines of the processes with that word in their environment."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (entry / "environ").read_bytes().split(b"\0") and int(entry.name) != os.getpid():
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip())
        except OSError:
            continue
    return found
