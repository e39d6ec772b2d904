"""Does fresh memory hold bytes of its last owner (E9)?"""

from tests.gpu.faults import MIB, drop, region
from tests.gpu.findings import ExperimentFindings
from tests.gpu.rows import row
from tests.gpu.stage import Stage, Unhealthy

SIZE = 128 * MIB


def run(stage: Stage, found: ExperimentFindings) -> None:
    for where in ("outside", "mps") if stage.mps else ("outside",):
        server = stage.server("s") if where == "mps" else None
        with row(stage, found, where) as entry:
            cast = stage.cast(first=server, second=server)
            entry["proof"], first, second = cast.proof, cast["first"], cast["second"]
            old = region(first, SIZE)
            if code := first.ask("fill", address=old["address"], size=SIZE, seed=99)["code"]:
                raise Unhealthy(f"first does not write its memory: CUDA error {code}")
            first.kill()
            drop(old)
            new = region(second, SIZE)
            peeks = [second.ask("peek", address=new["address"] + at, size=4096) for at in range(0, SIZE, 8 * MIB)]
            dirty = sum(1 for peek in peeks if peek["hex"].strip("0"))
            entry |= {"peeks": len(peeks), "dirty": dirty, "codes": sorted({peek["code"] for peek in peeks}),
                      "vmm": new["handle"] != 0}  # fmt: skip
            drop(new)
