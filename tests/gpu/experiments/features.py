"""CUDA graphs, cooperative launches, green contexts and cuda-checkpoint under MPS: do they start, whom does a fault in one hit (E14)?

`again`: the same by a new process once the server is ACTIVE. Where the library lacks a function, `works` says which is not there.
"""

import shutil
import subprocess
from typing import Any

from tests.gpu import features
from tests.gpu.faults import drop, heard, region
from tests.gpu.findings import ExperimentFindings
from tests.gpu.rows import row
from tests.gpu.servers import Server
from tests.gpu.stage import Cast, Stage
from tests.gpu.strings import Puppet

CHECKPOINT = "cuda-checkpoint"
CHECKPOINT_SECONDS = 10.0


def made(stage: Stage, server: Server | None, *names: str) -> tuple[Cast, list[dict[str, Any]]]:
    """Processes there, each with memory of its own."""
    cast = stage.cast(**dict.fromkeys(names, server))
    memory = [region(cast[name], features.SIZE) for name in names]
    for each in memory:
        drop(each)
    return cast, memory


def once(puppet: Puppet, way: str, mine: dict[str, Any], *, fault: bool = False) -> dict[str, Any]:
    """That way of working; without a fault also what the memory holds then."""
    row = heard(puppet, "feature", name=way, address=mine["address"], fault=fault)
    if not fault and row.get("code") == 0 and "met" not in row:
        row["digest"] = heard(puppet, "digest", address=mine["address"], size=8 * features.WORDS).get("sha256")
    return row


def faulty(stage: Stage, server: Server, way: str) -> dict[str, Any]:
    """The same with a trap in it, and the way back."""
    cast, (bad, mine) = made(stage, server, "culprit", "innocent")
    told: dict[str, Any] = {"proof": cast.proof, "fault": once(cast["culprit"], way, bad, fault=True)}
    answer = heard(cast["innocent"], "fill", address=mine["address"], size=features.SIZE, seed=1)
    told["innocent_heard"] = answer.get("code", answer.get("gone"))
    cast.kill()
    told["server_after"] = server.wait_ready()
    cast, (fresh,) = made(stage, server, "late")
    told["again"] = once(cast["late"], way, fresh)
    return told


def checkpoint(stage: Stage, server: Server | None) -> dict[str, Any]:
    """cuda-checkpoint suspends a process and lets it go on; what it says of each step, and what the process can do then."""
    program = shutil.which(CHECKPOINT, path=stage.environ.get("PATH"))
    if not program:
        return {"not there": f"program {CHECKPOINT} is not there"}
    cast, (mine,) = made(stage, server, "checkpointed")
    told: dict[str, Any] = {"proof": cast.proof}
    for step in ("suspend", "resume"):
        try:
            done = subprocess.run([program, "--toggle", "--pid", str(cast["checkpointed"].process.pid)], env=stage.environ,
                                  capture_output=True, text=True, check=False, timeout=CHECKPOINT_SECONDS)  # fmt: skip
            told[step] = f"rc {done.returncode}: {(done.stdout + done.stderr).strip()[:300]}"
        except subprocess.TimeoutExpired:
            told[step] = f"no end in {CHECKPOINT_SECONDS:.0f} s"
    told["works"] = heard(cast["checkpointed"], "fill", address=mine["address"], size=features.SIZE, seed=1, timeout=5)
    return told


def works(stage: Stage, server: Server | None, way: str) -> dict[str, Any]:
    cast, (mine,) = made(stage, server, "worker")
    worker, size = cast["worker"], 8 * features.WORDS
    plain = worker.ask("fill", address=mine["address"], size=size, seed=5)
    right = worker.ask("digest", address=mine["address"], size=size).get("sha256")
    worker.ask("fill", address=mine["address"], size=size, seed=6)
    told = once(worker, way, mine)
    done = told.get("code") == 0
    cast.kill()  # a client that stays would be hit by the next fault
    return {"proof": cast.proof, "plain": plain["code"], "works": told,
            "right": done and told.get("digest", right) == right and told.get("met", True)}  # fmt: skip


def run(stage: Stage, found: ExperimentFindings) -> None:
    places: tuple[str, ...] = ("outside", "mps") if stage.mps else ("outside",)
    server = stage.server("s") if stage.mps else None
    for way in features.WAYS:
        with row(stage, found, way) as entry:
            for where in places:
                entry[where] = works(stage, server if where == "mps" else None, way)
            if server is not None and entry["mps"]["works"].get("code") == 0:
                entry["fault"] = faulty(stage, server, way)
        server = stage.usable(server) if server else None
    with row(stage, found, CHECKPOINT) as entry:
        for where in places:
            entry[where] = checkpoint(stage, server if where == "mps" else None)
