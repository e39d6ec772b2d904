"""How fast can a standby take over state that it has mapped beforehand, and what does it cost while idle (E11)?

It waits on a spare server, or outside MPS, and a neighbour of the active process faults. Where nothing is in MPS, the active process faults
itself.
"""

import os
import time
from typing import Any

from tests.gpu.faults import MIB, commit, exported, heard, taken
from tests.gpu.findings import Findings
from tests.gpu.rows import row
from tests.gpu.servers import Server
from tests.gpu.stage import Stage, Unhealthy

SIZES_MIB = (64, 1024)
STEPS = 20


def one_row(stage: Stage, entry: dict[str, Any], size: int, one: Server | None, spare: Server | None) -> None:
    """`one`: server of the active process and of the culprit; `spare`: that of the standby."""
    cast = stage.cast(active=one, standby=spare, **({"culprit": one} if one else {}))
    entry["proof"] = cast.proof
    active, standby = cast["active"], cast["standby"]
    work, kept = exported(active, size), exported(active, size)
    try:
        entry["step_us_without_standby"] = [
            active.ask("fill", address=work["address"], size=size, seed=3)["us"] for _ in range(STEPS)
        ]
        addresses = [taken(standby, each["fd"], size, each["address"]) for each in (work, kept)]
    finally:
        os.close(work["fd"])
        os.close(kept["fd"])
    entry["same_addresses"] = addresses == [work["address"], kept["address"]]
    entry["step_us_beside_idle_standby"] = [
        active.ask("fill", address=work["address"], size=size, seed=3)["us"] for _ in range(STEPS)
    ]
    copied = active.ask("copy", target=kept["address"], source=work["address"], size=size)
    digest = active.ask("digest", address=kept["address"], size=size)
    if copied["code"] or digest["code"]:
        raise Unhealthy(f"active does not work: CUDA error {copied['code'] or digest['code']}")
    entry["before"] = digest["sha256"]
    fault = entry["fault"] = commit("trap", cast["culprit"] if one else active)
    begin = time.monotonic()
    entry["active_heard"] = heard(active, "sync")
    noticed = time.monotonic()
    entry["copy"] = heard(standby, "copy", target=addresses[0], source=addresses[1], size=size)
    entry["first_step"] = heard(standby, "fill", address=addresses[0], size=MIB, seed=4)
    entry["ms_notice_to_first_step"] = (time.monotonic() - noticed) * 1000
    entry["ms_fault_to_notice"] = (noticed - fault.get("ended", begin)) * 1000
    after = heard(standby, "digest", address=addresses[1], size=size)
    entry["kept_bytes_same"] = after.get("sha256") == entry["before"]


def run(stage: Stage, found: Findings) -> None:
    sizes = list(map(stage.bytes, SIZES_MIB))
    with row(stage, found, f"no MPS/{sizes[0] // MIB} MiB") as entry:
        one_row(stage, entry, sizes[0], None, None)
    if not stage.mps:
        return
    one, two = stage.open("one", "two")
    found["servers"] = [one.start, two.start]
    for size, place, spare in (
        (sizes[0], "spare server", two),
        (sizes[0], "outside MPS", None),
        (sizes[1], "spare server", two),
    ):
        one = stage.usable(one)
        with row(stage, found, f"{place}/{size // MIB} MiB") as entry:
            one_row(stage, entry, size, one, spare)
        one.wait_ready()
