"""What a model's state costs: 576 tensors of 18 MiB in all, as a transformer of twelve layers with AdamW has them.

In one process, in turns: `adopt` declares all arrays, `blob` writes a mebibyte of bytes on the host, `commit` is a commit of it
all. Beside each commit is one of a single array of as many bytes, and one with the content's sums (`verify`). Compare within one
run only: on the simulated GPU copies and sums are the CPU's.
"""

import json
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.bench.figures import figures
from tests.cluster.sandbox import ROOT
from tests.gpusim.host import SimHost

TENSORS = 576
_PROGRAM = """
import json, sys, time
from resilience.state import layout
from resilience.state.driver import CudaGpu
from resilience.state.record import COPYING, HELD, Commit, CommitRecord
from resilience.state.stores import KeptStore
tensors, commits, total = int(sys.argv[1]), int(sys.argv[2]), 18 << 20
gpu = CudaGpu()
times = {name: [] for name in ("adopt", "blob", "commit", "commit_one", "commit_verify")}
def timed(name, do):
    began = time.monotonic()
    result = do()
    times[name].append(1000 * (time.monotonic() - began))
    return result
def declared(count, name):
    store = KeptStore(gpu, cupy=False)
    each = total // count
    def do():
        for n in range(count):
            store.add(layout.spec(f"layer.{n}", each, "uint8"), kept=True)
    timed(name, do) if name else do()
    return store
def ready(store):
    store.close()
    return store, CommitRecord.create()
def commit(kept, number, verify=False):
    store, record = kept
    store.synchronize()
    sums = store.sums({}, work=True) if verify else ()
    record.write(Commit(number, COPYING, number, {}, (), sums))
    store.save()
    record.write(Commit(number, HELD, number, {}, (), sums))
many = declared(tensors, "adopt")
blob = many.add(layout.bytes_spec("blob", 1 << 20), kept=True)
many, one = ready(many), ready(declared(1, ""))
content = bytes(range(256)) * 4096
commit(many, 0); commit(one, 0); commit(many, 1, True)
for number in range(2, commits + 2):
    timed("blob", lambda: blob.write(content))
    timed("commit", lambda: commit(many, number))
    timed("commit_one", lambda: commit(one, number))
    timed("commit_verify", lambda: commit(many, number, True))
print(json.dumps(times))
"""


def model(runs: int, *, real: bool) -> dict[str, Any]:
    """Milliseconds: adopt, blob, commit, commit_one, commit_verify; ratios of the medians of commits."""
    found: dict[str, list[float]] = {}
    with ExitStack() as stack:
        environ = dict(os.environ) if real else stack.enter_context(SimHost(memory=512)).env()
        cwd = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for _ in range(max(3, runs // 4)):
            command = [sys.executable, "-c", _PROGRAM, str(TENSORS), "10"]
            done = subprocess.run(
                command,
                env={**environ, "PYTHONPATH": str(ROOT)},
                stdout=subprocess.PIPE,
                text=True,
                check=True,
                cwd=cwd,
            )
            for name, values in json.loads(done.stdout).items():
                found.setdefault(name, []).extend(values)
    rows: dict[str, Any] = {name: figures(values) for name, values in found.items()}
    for name in ("commit_one", "commit_verify"):
        rows[name]["to_commit"] = round(rows[name]["p50"] / rows["commit"]["p50"], 2)
    return rows


def rows(measured: dict[str, Any]) -> list[tuple[str, dict[str, float]]]:
    """Of the table."""
    return [
        (f"a model of {TENSORS} tensors, 18 MiB: adopt", measured["adopt"]),
        ("  a mebibyte of bytes on the host", measured["blob"]),
        ("  commit", measured["commit"]),
        (f"  of one array ({measured['commit_one']['to_commit']} of that)", measured["commit_one"]),
        (f"  with its content summed ({measured['commit_verify']['to_commit']})", measured["commit_verify"]),
    ]


if __name__ == "__main__":
    print(json.dumps(model(int(sys.argv[1]), real=False), indent=1))
