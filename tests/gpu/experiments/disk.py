"""The requeue rung, with the state spilled to disk: how long to spill and to go on from the file, for 1 and 10 GB (E10)?

The product's own spiller and session; no time of Slurm's is in it. A size that the disk or the host's memory cannot hold is left out, and
said so.
"""

import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.gpu.experiments.rungs import ENDLESS, EVERY, SECONDS
from tests.gpu.faults import commit
from tests.gpu.findings import ExperimentFindings
from tests.gpu.ladder import PuppetProcess, PuppetTask
from tests.gpu.rows import row, without_mps
from tests.gpu.servers import Server
from tests.gpu.stage import Stage
from tests.gpu.strings import ROOT

SIZES_MIB = (1024, 10 * 1024)
ROOM = 2.5
"""Times its size that a state needs of host memory, and of the disk: two copies and some more."""


def available() -> int:
    """Bytes of host memory."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))


def spill(task: PuppetTask, server: Server, environ: dict[str, str]) -> dict[str, Any]:
    """What the supervisor does before it asks for a requeue."""
    begin = time.monotonic()
    words = {"MPSR_KEEPER": str(task.keeper_path), "MPSR_TOKEN": task.token}
    done = subprocess.run([sys.executable, "-m", "resilience.state.spill"], cwd=ROOT, check=False, timeout=SECONDS * task.stage.patience,
                          env={**task.stage.environ, **server.env, **words, **environ}, capture_output=True, text=True)  # fmt: skip
    return {
        "rc": done.returncode,
        "said": (done.stdout + done.stderr).strip()[-500:],
        "spill_s": time.monotonic() - begin,
    }


def restored(stage: Stage, server: Server, mib: int, environ: dict[str, str]) -> dict[str, Any]:
    """The job's next run: a new keeper, a new process, the state from the file."""
    task = PuppetTask(stage, "-m", "tests.gpu.rungs_program", mib, ENDLESS, EVERY)
    try:
        begin = time.monotonic()
        process = PuppetProcess(task, "active", server, **environ, SLURM_RESTART_COUNT="1")
        process.wait("session", SECONDS * stage.patience)
        session = time.monotonic() - begin
        return {
            "session_s": session,
            **process.wait("stepped", SECONDS * stage.patience),
            "first_step_s": time.monotonic() - begin,
        }
    finally:
        task.close()


def once(stage: Stage, entry: dict[str, Any], one: Server, two: Server, mib: int) -> None:
    folder = stage.folder / "spill"
    environ = {"MPSR_SPILL": str(folder), "SLURM_JOB_ID": "1"}
    task = PuppetTask(stage, "-m", "tests.gpu.rungs_program", mib, ENDLESS, EVERY)
    try:
        cast = stage.cast(culprit=one)
        entry["proof"] = cast.proof
        active = PuppetProcess(task, "active", one)
        active.read_line("committed")
        entry["fault"] = commit("trap", cast["culprit"])
        active.wait("fault", SECONDS * stage.patience)
        active.say("retire")
        active.process.wait()
        entry |= spill(task, two, environ)
        entry["file_bytes"] = sum(path.stat().st_size for path in folder.glob("*.state"))
        task.close()
        entry |= restored(stage, two, mib, environ)
    finally:
        task.close()
        shutil.rmtree(folder, ignore_errors=True)


def run(stage: Stage, found: ExperimentFindings) -> None:
    if without_mps(stage, found):
        return
    one, two = stage.open("one", "two")
    found["where"] = subprocess.run(
        ["df", "-hT", str(stage.folder)], capture_output=True, text=True, check=False
    ).stdout
    for size in SIZES_MIB[:1] if stage.small else SIZES_MIB:
        mib = stage.bytes(size) >> 20
        free = min(available(), shutil.disk_usage(stage.folder).free)
        one = stage.usable(one)
        with row(stage, found, f"{mib} MiB") as entry:
            if free < ROOM * (mib << 20):
                entry["skipped"] = f"{free >> 20} MiB of memory or disk are free"
            else:
                once(stage, entry, one, two, mib)
        one.wait_ready()
