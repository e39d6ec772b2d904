"""The rarer kinds of fault: shared memory out of range, stack overflow, bad branch, write to a read-only mapping (E1, E17).

What culprit, client of the same server, kernel log and NVML hear of each, with MPS and without; whether another server's client goes on.
"""

from tests.gpu.experiments.sightings import watch
from tests.gpu.experiments.two_servers import SIZE, work
from tests.gpu.faults import RARE, drop, heard, region
from tests.gpu.findings import Findings
from tests.gpu.stage import Stage

WORK_SECONDS = 0.3


def run(stage: Stage, found: Findings) -> None:
    for kind in RARE:
        found[f"outside/{kind}"] = watch(stage, None, kind)
    if not stage.mps:
        return
    one, two = stage.server("one"), stage.server("two")
    for kind in RARE:
        other = stage.puppet("other", two)
        heard(other, "start")
        mine = region(other, SIZE)
        row = watch(stage, one, kind)
        row["other_server"] = work(other, mine["address"], WORK_SECONDS)
        row["faulted_server_after_exit"] = one.wait("ACTIVE", 10)
        found[f"mps/{kind}"] = row
        other.kill()
        drop(mine)
