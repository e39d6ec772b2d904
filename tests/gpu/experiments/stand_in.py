"""A graph captured over stand-in pages, run on the kept memory that was swapped in below it: right bytes, in the right place (E25)?

As a standby would before and after its promotion: the kept memory is another process's, and comes as a descriptor.
"""

import os
from typing import Any

from tests.gpu.faults import MIB, drop, exported, region
from tests.gpu.findings import ExperimentFindings
from tests.gpu.rows import row
from tests.gpu.servers import Server
from tests.gpu.stage import Stage
from tests.gpu.swap import SEED

SIZE = 16 * MIB


def one_row(stage: Stage, entry: dict[str, Any], maker: Server | None, standby: Server | None) -> None:
    cast = stage.cast(maker=maker, standby=standby)
    entry["proof"], making = cast.proof, cast["maker"]
    other = region(making, SIZE)
    making.ask("fill", address=other["address"], size=SIZE, seed=SEED)
    entry["right_after"] = making.ask("digest", address=other["address"], size=SIZE).get("sha256")
    drop(other)
    kept = exported(making, SIZE)
    making.ask("fill", address=kept["address"], size=SIZE, seed=SEED + 1)
    entry["right_before"] = making.ask("digest", address=kept["address"], size=SIZE).get("sha256")
    try:
        entry["swap"] = cast["standby"].ask("swap", fds=(kept["fd"],), size=SIZE)
    finally:
        os.close(kept["fd"])
    entry["maker_sees"] = making.ask("digest", address=kept["address"], size=SIZE).get("sha256")


def run(stage: Stage, found: ExperimentFindings) -> None:
    with row(stage, found, "outside") as entry:
        one_row(stage, entry, None, None)
    if stage.mps:
        one, two = stage.open("one", "two")
        with row(stage, found, "mps") as entry:
            one_row(stage, entry, one, two)
