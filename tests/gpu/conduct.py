"""One experiment in a process and a folder of its own, with a time limit; afterwards nothing of it is left."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.gpu.leftovers import end_leftovers, leftovers
from tests.gpu.strings import ROOT

STUCK_SECONDS = 3.0
MOST_LOG = 256 << 10
"""Characters of one experiment's logs: the beginning and the end are kept."""


def conduct(
    name: str, seconds: float, out: Path, small: bool, folder: Path | None = None
) -> tuple[dict[str, Any], str]:
    """Findings and log text of one experiment, ended with everything it started when its time is over. `folder`: where its own one is
    made. What it found lies in `out` while it runs, and is good after each entry."""
    findings = out / f"{name}.found"
    whole = Path(tempfile.mkdtemp(prefix="hw", dir=folder or "/tmp"))
    whole.chmod(0o711)  # a process of another user goes through it to its server
    own, log, stderr = whole / "s", whole / "mps", whole / "stderr"
    own.mkdir(mode=0o700)
    environ = {**os.environ, "CUDA_MPS_PIPE_DIRECTORY": str(whole / "nowhere")}  # by which all of it is found
    begin = time.monotonic()
    with stderr.open("wb") as errors:
        argv = [sys.executable, "-m", "tests.gpu.one", name, str(findings), str(log), str(own)]
        process = subprocess.Popen(
            argv + ["--small"] * small,
            cwd=ROOT,
            env=environ,
            stdout=errors,
            stderr=errors,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            process.wait(seconds)
            how = f"ended with status {process.returncode}"
        except subprocess.TimeoutExpired:
            how = f"stopped after {seconds:.0f} s"
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # also what a crashed experiment left in its group
    result: dict[str, Any] = {"how": how, "seconds": round(time.monotonic() - begin, 3)}
    texts = [
        path.read_text(errors="replace") for path in (log, *sorted(own.glob("*.log/*.log")), stderr) if path.exists()
    ]
    result["ended_after_it"] = clear(process, whole)
    if findings.exists():
        result["found"] = json.loads(findings.read_text())
    return result, "".join(f"##### {name}\n{bounded(text)}\n" for text in texts if text)


def bounded(text: str) -> str:
    half = MOST_LOG // 2
    return (
        text
        if len(text) <= MOST_LOG
        else f"{text[:half]}\n… {len(text) - MOST_LOG} characters left out …\n{text[-half:]}"
    )


def clear(process: subprocess.Popen[bytes], folder: Path) -> list[str]:
    """End what an experiment left, its MPS daemons above all: the next one begins on a GPU without them. What had to be ended.

    A process that the driver does not let go is waited for `STUCK_SECONDS` and then left: it must not take the others' time.
    """
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STUCK_SECONDS)
    ended = end_leftovers(folder, process.pid)
    end = time.monotonic() + STUCK_SECONDS
    while leftovers(folder) and time.monotonic() < end:
        time.sleep(0.02)
    ended += [f"{name} stays" for name in leftovers(folder).values()]
    shutil.rmtree(folder, ignore_errors=True)
    return ended
