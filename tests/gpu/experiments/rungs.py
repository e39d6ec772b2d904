"""How long from a fault to the next step on each rung, for a cupy program with 1, 10 and 40 GB of state (E10, E11)?

The product's own session, keeper and kept state; this experiment plays the supervisor, so no time of Slurm's is in it. `standby`: promote a
process that waits on the other server. `restore`: a new process on the other server takes the kept state. `relaunch`: a new process starts
from nothing.
"""

import time
from collections.abc import Callable
from typing import Any

from tests.gpu.faults import commit
from tests.gpu.findings import ExperimentFindings
from tests.gpu.ladder import PuppetProcess, PuppetTask
from tests.gpu.rows import row, without_mps
from tests.gpu.servers import Server
from tests.gpu.stage import Stage

SIZES_MIB = (1024, 10 * 1024, 40 * 1024)
ENDLESS = 1 << 30
EVERY = 20
SECONDS = 60.0


def standby(task: PuppetTask, active: PuppetProcess, spare: Server) -> Callable[[], PuppetProcess]:
    waiting = PuppetProcess(task, "standby", spare)
    waiting.wait("ready", SECONDS)

    def promote() -> PuppetProcess:
        waiting.say("promote", incident="hw", token=task.token)
        active.say("retire")
        return waiting

    return promote


def restore(task: PuppetTask, active: PuppetProcess, spare: Server) -> Callable[[], PuppetProcess]:
    def again() -> PuppetProcess:
        active.say("retire")
        active.process.wait()
        return PuppetProcess(task, "active", spare)

    return again


def relaunch(task: PuppetTask, active: PuppetProcess, spare: Server) -> Callable[[], PuppetProcess]:
    def afresh() -> PuppetProcess:
        active.say("retire")
        active.process.wait()
        task.argv[-1] = "1"  # a commit after each step, so that the first one shows
        return PuppetProcess(task, "active", spare, MPSR_KEEPER="")

    return afresh


def climb(
    stage: Stage,
    entry: dict[str, Any],
    one: Server,
    two: Server,
    mib: int,
    rung: Callable[..., Callable[[], PuppetProcess]],
) -> None:
    task = PuppetTask(stage, "-m", "tests.gpu.rungs_program", mib, ENDLESS, EVERY)
    seconds = SECONDS * stage.patience
    try:
        cast = stage.cast(culprit=one)
        entry["proof"] = cast.proof
        begin = time.monotonic()
        active = PuppetProcess(task, "active", one)
        active.wait("session", seconds)
        entry["session_s"] = time.monotonic() - begin
        active.read_line("committed")
        entry["listed"] = str(active.process.pid) in one.clients()
        recover = rung(task, active, two)
        fault = entry["fault"] = commit("trap", cast["culprit"])
        entry["heard"] = active.wait("fault", seconds)
        noticed = time.monotonic()
        replacement = recover()
        entry["notice_ms"] = (noticed - fault["ended"]) * 1000
        if rung is relaunch:
            replacement.read_line("committed")
        else:
            entry["stepped"] = replacement.wait("stepped", seconds)
        entry["recovery_ms"] = (time.monotonic() - fault["ended"]) * 1000
    finally:
        task.close()


def run(stage: Stage, found: ExperimentFindings) -> None:
    if without_mps(stage, found):
        return
    one, two = stage.open("one", "two")
    for size in SIZES_MIB[:1] if stage.small else SIZES_MIB:
        mib = stage.bytes(size) >> 20
        for rung in (standby, restore, relaunch):
            one = stage.usable(one)
            with row(stage, found, f"{rung.__name__} {mib} MiB") as entry:
                climb(stage, entry, one, two, mib, rung)
            one.wait_ready()
