"""How fast can a standby on a spare server take over state that it has mapped beforehand, and what does it cost while idle (E11)?"""

import time

from tests.gpu.faults import MIB, commit, heard, region
from tests.gpu.findings import Findings
from tests.gpu.stage import Stage

SIZES_MIB = (64, 1024)


def run(stage: Stage, found: Findings) -> None:
    if not stage.mps:
        found["skipped"] = "no nvidia-cuda-mps-control on this machine"
        return
    one, two = stage.server("one"), stage.server("two")
    for size in map(stage.bytes, SIZES_MIB):
        active, standby, culprit = (
            stage.puppet("active", one),
            stage.puppet("standby", two),
            stage.puppet("culprit", one),
        )
        starts = [heard(each, "start") for each in (active, standby, culprit)]
        work, kept = region(active, size), region(active, size)
        alone = [heard(active, "fill", address=work["address"], size=size, seed=3)["us"] for _ in range(20)]
        addresses = []
        for kind in (work, kept):
            imported = standby.ask("import", fds=(kind["fd"],))
            addresses.append(standby.ask("map", handle=imported["value"], size=size, hint=kind["address"])["value"])
        beside = [heard(active, "fill", address=work["address"], size=size, seed=3)["us"] for _ in range(20)]
        heard(active, "copy", target=kept["address"], source=work["address"], size=size)
        before = heard(active, "digest", address=kept["address"], size=size).get("sha256")
        fault = commit("trap", culprit)
        begin = time.monotonic()
        hit = heard(active, "sync")
        noticed = time.monotonic()
        copied = heard(standby, "copy", target=addresses[0], source=addresses[1], size=size)
        stepped = heard(standby, "fill", address=addresses[0], size=MIB, seed=4)
        found[f"{size // MIB} MiB"] = {
            "start_ms": [sum(call["us"] for call in start["calls"].values()) / 1000 for start in starts if "calls" in start],
            "same_addresses": addresses == [work["address"], kept["address"]],
            "step_us_without_standby": alone, "step_us_beside_idle_standby": beside, "fault": fault, "active_heard": hit,
            "ms_fault_to_notice": (noticed - fault.get("ended", begin)) * 1000, "copy": copied, "first_step": stepped,
            "ms_notice_to_first_step": (time.monotonic() - noticed) * 1000,
            "kept_bytes_same": heard(standby, "digest", address=addresses[1], size=size).get("sha256") == before,
        }  # fmt: skip
        for each in (active, standby, culprit):
            each.kill()
        one.wait("ACTIVE", 15)
