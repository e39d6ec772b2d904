"""Does fresh memory hold bytes of its last owner (E9)?"""

from tests.gpu.faults import MIB, heard, region
from tests.gpu.findings import Findings
from tests.gpu.stage import Stage

SIZE = 128 * MIB


def run(stage: Stage, found: Findings) -> None:
    servers = {"outside": None, "mps": stage.server("s")} if stage.mps else {"outside": None}
    for where, server in servers.items():
        first = stage.puppet("first", server)
        heard(first, "start")
        old = region(first, SIZE)
        heard(first, "fill", address=old["address"], size=SIZE, seed=99)
        first.kill()
        second = stage.puppet("second", server)
        heard(second, "start")
        new = region(second, SIZE)
        peeks = [heard(second, "peek", address=new["address"] + at, size=4096) for at in range(0, SIZE, 8 * MIB)]
        dirty = sum(1 for peek in peeks if peek.get("hex", "").strip("0"))
        found[where] = {"peeks": len(peeks), "dirty": dirty, "codes": sorted({peek.get("code", -2) for peek in peeks})}
        second.kill()
