"""CUDA graphs, cooperative launches, green contexts and cuda-checkpoint under MPS: do they start, whom does a fault in one hit (E14)?

`again`: the same by a new process once the server is ACTIVE. Where the library lacks a function, `works` says which is not there.
"""

import shutil
import subprocess
from typing import Any

from tests.gpu import features
from tests.gpu.faults import drop, heard, region
from tests.gpu.findings import Findings
from tests.gpu.stage import Puppet, Server, Stage

CHECKPOINT = "cuda-checkpoint"
CHECKPOINT_SECONDS = 10.0


def made(stage: Stage, server: Server | None, name: str) -> tuple[Puppet, dict[str, Any]]:
    puppet = stage.puppet(name, server)
    heard(puppet, "start")
    return puppet, region(puppet, features.SIZE)


def once(puppet: Puppet, way: str, mine: dict[str, Any], *, fault: bool = False) -> dict[str, Any]:
    """That way of working; without a fault also what the memory holds then."""
    row = heard(puppet, "feature", name=way, address=mine["address"], fault=fault)
    if not fault and row.get("code") == 0 and "met" not in row:
        row["digest"] = heard(puppet, "digest", address=mine["address"], size=8 * features.WORDS).get("sha256")
    return row


def faulty(stage: Stage, server: Server, way: str) -> dict[str, Any]:
    """The same with a trap in it, and the way back."""
    (culprit, bad), (innocent, mine) = made(stage, server, "culprit"), made(stage, server, "innocent")
    row: dict[str, Any] = {"fault": once(culprit, way, bad, fault=True)}
    answer = heard(innocent, "fill", address=mine["address"], size=features.SIZE, seed=1)
    row["innocent_heard"] = answer.get("code", answer.get("gone"))
    for each, memory in ((culprit, bad), (innocent, mine)):
        each.kill()
        drop(memory)
    row["server_after"] = server.wait("ACTIVE", 10)
    late, fresh = made(stage, server, "late")
    row["again"] = once(late, way, fresh)
    late.kill()
    drop(fresh)
    return row


def checkpoint(stage: Stage, server: Server | None) -> dict[str, Any]:
    """cuda-checkpoint suspends a process and lets it go on; what it says of each step, and what the process can do then."""
    program = shutil.which(CHECKPOINT, path=stage.environ.get("PATH"))
    if not program:
        return {"not there": f"program {CHECKPOINT} is not there"}
    puppet, mine = made(stage, server, "checkpointed")
    row: dict[str, Any] = {}
    for step in ("suspend", "resume"):
        try:
            done = subprocess.run([program, "--toggle", "--pid", str(puppet.process.pid)], env=stage.environ, capture_output=True,
                                  text=True, check=False, timeout=CHECKPOINT_SECONDS)  # fmt: skip
            row[step] = f"rc {done.returncode}: {(done.stdout + done.stderr).strip()[:300]}"
        except subprocess.TimeoutExpired:
            row[step] = f"no end in {CHECKPOINT_SECONDS:.0f} s"
    row["works"] = heard(puppet, "fill", address=mine["address"], size=features.SIZE, seed=1, timeout=5)
    puppet.kill()
    drop(mine)
    return row


def run(stage: Stage, found: Findings) -> None:
    server = stage.server("s") if stage.mps else None
    for way in features.WAYS:
        row: dict[str, Any] = {}
        for where, on in {"outside": None, "mps": server}.items():
            if where == "outside" or on is not None:
                puppet, mine = made(stage, on, where)
                plain = heard(puppet, "fill", address=mine["address"], size=8 * features.WORDS, seed=5)
                right = heard(puppet, "digest", address=mine["address"], size=8 * features.WORDS).get("sha256")
                heard(puppet, "fill", address=mine["address"], size=8 * features.WORDS, seed=6)
                works = once(puppet, way, mine)
                done = works.get("code") == 0
                row[where] = {"plain": plain.get("code"), "works": works,
                              "right": done and works.get("digest", right) == right and works.get("met", True)}  # fmt: skip
                puppet.kill()
                drop(mine)
        if server is not None and row["mps"]["works"].get("code") == 0:
            row["fault"] = faulty(stage, server, way)
        found[way] = row
    found[CHECKPOINT] = {
        where: checkpoint(stage, on)
        for where, on in {"outside": None, "mps": server}.items()
        if where == "outside" or on is not None
    }
