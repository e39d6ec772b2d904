"""Does a fault in one MPS server leave a client of another server on the same GPU alone (E4, H4)?"""

import time
from typing import Any

from tests.gpu.faults import KINDS, MIB, commit, heard, region
from tests.gpu.findings import Findings
from tests.gpu.stage import Puppet, Stage

SIZE = 64 * MIB
WATCH_SECONDS = 1.5
"""How long the bystander goes on working after the fault: later than any watchdog line seen in public logs of a fault."""


def work(puppet: Puppet, address: int, seconds: float) -> dict[str, Any]:
    """Fill and verify again and again; how often it went well, and what stopped it."""
    rounds, end, slowest = 0, time.monotonic() + seconds, 0.0
    while time.monotonic() < end:
        filled = heard(puppet, "fill", address=address, size=SIZE, seed=rounds)
        if filled.get("code") != 0:
            return {"rounds": rounds, "stopped_by": filled}
        slowest = max(slowest, filled["us"])
        rounds += 1
    digest = heard(puppet, "digest", address=address, size=SIZE)
    return {"rounds": rounds, "slowest_us": slowest, "digest": digest.get("sha256"), "last_seed": rounds - 1}


def run(stage: Stage, found: Findings) -> None:
    if not stage.mps:
        found["skipped"] = "no nvidia-cuda-mps-control on this machine"
        return
    one, two = stage.server("one"), stage.server("two")
    found["servers"] = [one.start, two.start]
    watcher = stage.puppet("outside")
    found["outside_start"] = heard(watcher, "start")["code"]
    watched = region(watcher, SIZE)
    for kind in KINDS:
        bystander, culprit = stage.puppet("bystander", two), stage.puppet("culprit", one)
        starts = [heard(bystander, "start"), heard(culprit, "start")]
        mine = region(bystander, SIZE)
        before = work(bystander, mine["address"], 0.2)
        fault = commit(kind, culprit)
        after = work(bystander, mine["address"], 0.2 if stage.small else WATCH_SECONDS)
        outside = work(watcher, watched["address"], 0.2)
        states = [one.state(), two.state()]
        culprit.kill()
        gone = time.monotonic()
        recovered = one.wait("ACTIVE", 15)
        found[kind] = {"starts": [{key: start.get(key) for key in ("code", "mps")} for start in starts], "before": before,
                       "fault": fault, "bystander_on_other_server": after, "process_outside_mps": outside, "states": states,
                       "faulted_server_after_exit": recovered, "seconds_until_active": time.monotonic() - gone}  # fmt: skip
        bystander.kill()
