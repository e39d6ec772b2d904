"""Does a fault in one MPS server leave a client of another server on the same GPU alone (E4, H4)?

Each kind of fault is a row with a culprit on server one, a bystander on server two, whose results are compared with those of before, and a
process outside MPS.
"""

import time
from typing import Any

from tests.gpu.faults import KINDS, commit, drop, region
from tests.gpu.findings import ExperimentFindings
from tests.gpu.rows import row, without_mps
from tests.gpu.stage import Stage
from tests.gpu.strings import Puppet, PuppetGone

SIZE_MIB = 64
WATCH_SECONDS = 1.5
"""How long the bystander goes on working after the fault: later than any watchdog line seen in public logs of a fault."""
FIRST = ("trap", "illegal-write")
"""An SM fault and a memory fault decide; the other kinds come after them."""


def work(puppet: Puppet, address: int, seconds: float, size: int) -> dict[str, Any]:
    """Fill again and again; how often it went well, what stopped it, and the digest of one last fill, always the same one."""
    rounds, end, slowest = 0, time.monotonic() + seconds, 0.0
    try:
        while not rounds or time.monotonic() < end:
            filled = puppet.ask("fill", address=address, size=size, seed=rounds)
            if filled["code"]:
                return {"rounds": rounds, "stopped_by": filled}
            slowest = max(slowest, filled["us"])
            rounds += 1
        last = puppet.ask("fill", address=address, size=size, seed=0)
        digest = last if last["code"] else puppet.ask("digest", address=address, size=size)
    except PuppetGone as gone:
        return {"rounds": rounds, "stopped_by": {"gone": gone.how}}
    if digest["code"]:
        return {"rounds": rounds, "stopped_by": digest}
    return {"rounds": rounds, "slowest_us": slowest, "digest": digest["sha256"]}


def run(stage: Stage, found: ExperimentFindings) -> None:
    if without_mps(stage, found):
        return
    one, two = stage.open("one", "two")
    found["servers"] = [one.start, two.start]
    for kind in stage.kinds((*FIRST, *(each for each in KINDS if each not in FIRST))):
        one = stage.usable(one)
        with row(stage, found, kind) as entry:
            cast = stage.cast(culprit=one, bystander=two, watcher=None)
            entry["proof"] = cast.proof
            bystander, watcher = cast["bystander"], cast["watcher"]
            size = stage.bytes(SIZE_MIB)
            mine, watched = region(bystander, size), region(watcher, size)
            drop(mine)
            drop(watched)
            entry["before"] = work(bystander, mine["address"], 0.2, size)
            entry["fault"] = commit(kind, cast["culprit"])
            entry["bystander_on_other_server"] = work(
                bystander, mine["address"], 0.2 if stage.small else WATCH_SECONDS, size
            )
            entry["process_outside_mps"] = work(watcher, watched["address"], 0.2, size)
            entry["states"] = [one.state(), two.state()]
            cast["culprit"].kill()
            gone = time.monotonic()
            entry["faulted_server_after_exit"] = one.wait_ready()
            entry["ready_after_exit"] = one.ready(entry["faulted_server_after_exit"])
            entry["seconds_until_active"] = time.monotonic() - gone
