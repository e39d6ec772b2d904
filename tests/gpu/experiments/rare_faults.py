"""The rarer kinds of fault: shared memory out of range, stack overflow, bad branch, write to a read-only mapping (E1, E17).

What culprit, client of the same server, kernel log and NVML hear of each, with MPS and without; whether another server's client goes on.
"""

from tests.gpu.experiments.sightings import watch
from tests.gpu.experiments.two_servers import SIZE_MIB, work
from tests.gpu.faults import RARE, drop, region
from tests.gpu.findings import ExperimentFindings
from tests.gpu.rows import row
from tests.gpu.stage import Stage

WORK_SECONDS = 0.3


def run(stage: Stage, found: ExperimentFindings) -> None:
    for kind in RARE:
        with row(stage, found, f"outside/{kind}") as entry:
            watch(stage, entry, None, kind)
    if not stage.mps:
        return
    one, two = stage.open("one", "two")
    for kind in RARE:
        one = stage.usable(one)
        with row(stage, found, f"mps/{kind}") as entry:
            other = stage.cast(other=two)["other"]
            size = stage.bytes(SIZE_MIB)
            mine = region(other, size)
            drop(mine)
            watch(stage, entry, one, kind)
            entry["other_server"] = work(other, mine["address"], WORK_SECONDS, size)
            entry["faulted_server_after_exit"] = one.wait_ready()
