"""What do stores in flight at a fault leave behind, and does anything still write after the error was heard (E12, H11)?

An innocent client has a long queue of fills of kept memory when its neighbour faults. Sampled words then tell from how many different fills
they are; a second look later tells whether somebody went on writing.
"""

import os
import time

from tests.gpu.faults import commit, exported, heard, taken
from tests.gpu.findings import ExperimentFindings
from tests.gpu.health import word
from tests.gpu.rows import row, without_mps
from tests.gpu.stage import Stage
from tests.gpu.strings import Puppet

SIZE_MIB = 2048
FILLS = 60
SAMPLES = 64
LATER_SECONDS = 0.2


def samples(reader: Puppet, address: int, size: int) -> list[int]:
    """For words spread over the region: the seed of the fill that wrote them, 0 for none, -1 for a word that no fill writes."""
    seeds = []
    for n in range(SAMPLES):
        index = n * (size // 8 // SAMPLES)
        peeked = reader.ask("peek", address=address + 8 * index, size=8)
        value = int.from_bytes(bytes.fromhex(peeked["hex"]), "little")
        table = {word(index, seed): seed for seed in range(FILLS + 1)}
        seeds.append(table.get(value, -1))
    return seeds


def run(stage: Stage, found: ExperimentFindings) -> None:
    if without_mps(stage, found):
        return
    one, two = stage.open("one", "two")
    size = stage.bytes(SIZE_MIB)
    for kind in ("illegal-write", "trap"):
        one = stage.usable(one)
        with row(stage, found, kind) as entry:
            cast = stage.cast(victim=one, culprit=one, reader=two)
            entry["proof"], victim, reader = cast.proof, cast["victim"], cast["reader"]
            kept = exported(victim, size)
            victim.ask("fill", address=kept["address"], size=size, seed=0)
            try:
                at = taken(reader, kept["fd"], size)
            finally:
                os.close(kept["fd"])
            entry["seeds_before"] = sorted(set(samples(reader, at, size)))
            entry["launched"] = victim.ask("queue", address=kept["address"], size=size, count=FILLS)
            entry["fault"] = commit(kind, cast["culprit"])
            told = heard(victim, "sync")
            entry["victim_heard"] = told.get("code", told.get("gone"))
            first = samples(reader, at, size)
            time.sleep(LATER_SECONDS)
            entry |= {"seeds": sorted(set(first)), "wrote_later": samples(reader, at, size) != first}
        one.wait_ready()
