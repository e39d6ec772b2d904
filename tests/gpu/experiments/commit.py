"""What does a commit cost, and what the session as a whole, against the same program without us?

Ratios within one run: with commits and without, alternating, on one MPS server.
"""

import json
from typing import Any

from tests.gpu.findings import ExperimentFindings
from tests.gpu.ladder import PuppetProcess, PuppetTask
from tests.gpu.rows import row, without_mps
from tests.gpu.servers import Server
from tests.gpu.stage import Stage

SIZES_MIB = (64, 1024, 10 * 1024)
STEPS = 200
EVERY = 50
ROUNDS = 2
SECONDS = 30.0


def once(stage: Stage, server: Server, mib: int, every: int) -> dict[str, Any]:
    task = PuppetTask(stage, "-m", "tests.gpu.rungs_program", mib, STEPS, every)
    try:
        out, _ = PuppetProcess(task, "active", server).process.communicate(timeout=SECONDS * stage.patience)
        told: dict[str, Any] = json.loads(out.splitlines()[-1])
        return told
    finally:
        task.close()


def run(stage: Stage, found: ExperimentFindings) -> None:
    if without_mps(stage, found):
        return
    server = stage.server("s")
    for size in SIZES_MIB[:1] if stage.small else SIZES_MIB:
        mib = stage.bytes(size) >> 20
        with row(stage, found, f"{mib} MiB") as entry:
            entry["proof"] = stage.cast(witness=server).proof
            rounds = entry["rounds"] = []
            for _ in range(ROUNDS):
                rounds.append({"with": once(stage, server, mib, EVERY), "without": once(stage, server, mib, 0)})
