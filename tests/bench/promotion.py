"""How long a standby's promotion takes by the size of its state: our own part, without the device's copy of the state.

A process holds one array of that size with a keeper, a standby has its stand-ins; then it takes the descriptors and puts the memory
in their place. The copy `kept` → `work` that follows is the device's time and is left out: on the simulated GPU it would be the
host's memcpy. For the same reason nobody writes to the memory, so that 8 GiB cost the machine nothing. Sizes take turns; compare
them within one run only.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.bench.figures import figures
from tests.cluster.sandbox import ROOT
from tests.gpusim.host import SimHost

SIZES_MIB = (2, 64, 1024, 8192)
_TOKENS = {"MPSR_TOKEN": "the-programs", "MPSR_STANDBY_TOKEN": "the-standbys"}
_HOLDS = """
import sys
from resilience.state import layout, table
from resilience.state.driver import CudaGpu
from resilience.state.link import KeeperLink
from resilience.state.record import HELD, Commit, CommitRecord
from resilience.state.stores import KeptStore
size = int(sys.argv[2]) << 20
gpu = CudaGpu()
gpu.zero = lambda address, size: None
store = KeptStore(gpu, cupy=False)
store.add(layout.spec("u", size, "uint8"), kept=True)
store.close()
record = CommitRecord.create()
record.write(Commit(0, HELD, 0, {}))
there = store.layout
fds = [table.make(layout.render(there)), record.fd, *store.fds]
KeeperLink(sys.argv[1], "the-programs", "active").put({"regions": there.sizes}, fds)
print("held", flush=True)
sys.stdin.read()
"""
_STANDS_BY = """
import gc, json, sys, time
from resilience.state import layout, table
from resilience.state.driver import CudaGpu
from resilience.state.link import KeeperLink
from resilience.state.stores import KeptStore
store = KeptStore(CudaGpu(), cupy=False)
link = KeeperLink(sys.argv[1], "the-standbys", "standby")
began = time.monotonic()
store.stand_in(layout.parse(table.read(link.first[1][0])))
ready = time.monotonic()
store.warm(sums=False)
link.watch()
gc.collect()
word = time.monotonic()
_, fds = link.take("the-programs", expected=True)
taken = time.monotonic()
store.give_way(layout.parse(table.read(fds[0])), fds[2:])
end = time.monotonic()
times = {"promotion": end - word, "memory": end - taken, "stand_ins": ready - began}
print(json.dumps({name: 1000 * spent for name, spent in times.items()}))
"""


def promotion(runs: int, *, real: bool) -> dict[str, Any]:
    """Milliseconds by size: `promotion` from the word to the memory in place, `memory` that part of it which the keeper's answer is not
    in (that one waits for a processor, too), `stand_ins` of the standby's start; ratios of the medians."""
    found: dict[int, dict[str, list[float]]] = {
        size: {"promotion": [], "memory": [], "stand_ins": []} for size in SIZES_MIB
    }
    with ExitStack() as stack:
        environ = os.environ if real else stack.enter_context(SimHost(memory=2 * max(SIZES_MIB) + 64)).env()
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for run in range(runs):
            for size in SIZES_MIB:
                times = once(folder / f"k{run}.{size}", size, {**environ, **_TOKENS, "PYTHONPATH": str(ROOT)})
                for name, values in found[size].items():
                    values.append(times[name])
    rows = {str(size): {name: figures(values) for name, values in found[size].items()} for size in SIZES_MIB}
    smallest, largest = (rows[str(size)] for size in (SIZES_MIB[0], SIZES_MIB[-1]))
    ratios = {name: round(largest[name]["p50"] / smallest[name]["p50"], 2) for name in ("promotion", "memory")}
    return {"by_mib": rows, "largest_to_smallest": ratios}


def once(keeper: Path, size: int, environ: Mapping[str, str]) -> dict[str, float]:
    def start(*argv: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, *argv], env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )

    with start("-m", "resilience.state.keeper", "--socket", str(keeper)) as keeps:
        with start("-c", _HOLDS, str(keeper), str(size)) as holds:
            assert holds.stdout is not None
            assert holds.stdout.readline() == "held\n"
            with start("-c", _STANDS_BY, str(keeper)) as standby:
                out, _ = standby.communicate()
            holds.communicate()
        keeps.terminate()
    times: dict[str, float] = json.loads(out)
    return times


if __name__ == "__main__":
    print(json.dumps(promotion(int(sys.argv[1]), real=False), indent=1))
