"""What do stores in flight at a fault leave behind, and does anything still write after the error was heard (E12, H11)?

An innocent client has a long queue of fills of kept memory when its neighbour faults. Sampled words then tell from how many different fills
they are; a second look later tells whether somebody went on writing.
"""

import os
import time
from typing import Any

from tests.gpu.faults import commit, heard, region
from tests.gpu.findings import Findings
from tests.gpu.stage import Puppet, Stage

SIZE_MIB = 2048
FILLS = 60
SAMPLES = 64
LATER_SECONDS = 0.2
MASK = (1 << 64) - 1


def word(index: int, seed: int) -> int:
    """The word that fill_pattern writes at an index (resilience/drill/faults.cu)."""
    value = (seed + (index + 1) * 0x9E3779B97F4A7C15) & MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


def samples(reader: Puppet, address: int, size: int) -> list[int]:
    """For words spread over the region: the seed of the fill that wrote them, 0 for none, -1 for a word that no fill writes."""
    seeds = []
    for n in range(SAMPLES):
        index = n * (size // 8 // SAMPLES)
        peeked = heard(reader, "peek", address=address + 8 * index, size=8)
        value = int.from_bytes(bytes.fromhex(peeked.get("hex", "")), "little")
        table = {word(index, seed): seed for seed in range(FILLS + 1)}
        seeds.append(table.get(value, -1))
    return seeds


def run(stage: Stage, found: Findings) -> None:
    if not stage.mps:
        found["skipped"] = "no nvidia-cuda-mps-control on this machine"
        return
    one, two, size = stage.server("one"), stage.server("two"), stage.bytes(SIZE_MIB)
    for kind in ("illegal-write", "trap"):
        victim, culprit, reader = stage.puppet("victim", one), stage.puppet("culprit", one), stage.puppet("reader", two)
        for each in (victim, culprit, reader):
            heard(each, "start")
        kept = region(victim, size)
        heard(victim, "fill", address=kept["address"], size=size, seed=0)
        imported = reader.ask("import", fds=(kept["fd"],))
        at = reader.ask("map", handle=imported["value"], size=size)["value"]
        launched = heard(victim, "queue", address=kept["address"], size=size, count=FILLS)
        fault = commit(kind, culprit)
        told = heard(victim, "sync")
        first = samples(reader, at, size)
        time.sleep(LATER_SECONDS)
        row: dict[str, Any] = {"launched": launched, "fault": fault, "victim_heard": told.get("code", told.get("gone")),
                               "seeds": sorted(set(first)), "wrote_later": samples(reader, at, size) != first}  # fmt: skip
        found[kind] = row
        for each in (victim, culprit, reader):
            each.kill()
        os.close(kept["fd"])
        one.wait("ACTIVE", 10)
