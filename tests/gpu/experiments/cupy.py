"""cupy arrays over kept memory, with a raw kernel: are the bytes right, for another process, too (E24)?"""

import hashlib
import os
from array import array
from typing import Any

from tests.gpu.experiments.torch import SECONDS, missing
from tests.gpu.faults import MIB, exported, taken
from tests.gpu.findings import ExperimentFindings
from tests.gpu.rows import row
from tests.gpu.servers import Server
from tests.gpu.stage import Program, Stage

SIZE = 4 * MIB
CUPY = Program("cupy_program", "cupy", SECONDS)


def right(size: int) -> str:
    """The digest of x = 2 * 1 + i."""
    return hashlib.sha256(array("d", (2.0 + i for i in range(size // 8))).tobytes()).hexdigest()


def one_row(stage: Stage, entry: dict[str, Any], one: Server | None, two: Server | None) -> None:
    cast, other = stage.cast(CUPY, program=one), stage.cast(reader=two)
    entry |= {"proof": cast.proof, "reader": other.proof}
    kept = exported(cast["program"], SIZE)
    try:
        entry["kernel"] = cast["program"].ask("kernel", address=kept["address"], size=SIZE, timeout=SECONDS)
        address = taken(other["reader"], kept["fd"], SIZE)
    finally:
        os.close(kept["fd"])
    entry |= {"digest": other["reader"].ask("digest", address=address, size=SIZE).get("sha256"), "right": right(SIZE)}


def run(stage: Stage, found: ExperimentFindings) -> None:
    if why := missing(stage, CUPY):
        found["skipped"] = why
        return
    with row(stage, found, "outside") as entry:
        one_row(stage, entry, None, None)
    if stage.mps:
        one, two = stage.open("one", "two")
        with row(stage, found, "mps") as entry:
            one_row(stage, entry, one, two)
