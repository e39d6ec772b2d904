"""The solver of the tutorial with a stopwatch: prints how long its steps took and how long each commit took.

`solve.py SIZE STEPS EVERY [--bare]`: it commits when a commit is due, which is asked every EVERY steps; with --bare it
commits nothing, as the same program would without mpsr. Opening and
closing are not counted: they happen once, however long a program runs.
"""

import argparse
import importlib.util
import json
import time
from pathlib import Path
from typing import Any

import resilience

HEAT = Path(__file__).resolve().parents[2] / "docs" / "tutorial" / "heat2d" / "heat2d.py"


def tutorial() -> Any:
    spec = importlib.util.spec_from_file_location("heat2d", HEAT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    parser = argparse.ArgumentParser(description="heat2d with a stopwatch")
    parser.add_argument("size", type=int)
    parser.add_argument("steps", type=int)
    parser.add_argument("every", type=int)
    parser.add_argument("--bare", action="store_true", help="commit nothing")
    options = parser.parse_args()
    with resilience.session(arrays="device") as s:
        assert s.gpu is not None
        field = tutorial().GpuField(s, options.size, options.size)
        if s.fresh:
            field.init()
        s.gpu.synchronize()
        commits: list[float] = []
        began = time.monotonic()
        for step in s.steps(options.steps):
            field.step()
            if (step + 1) % options.every == 0:
                field.settle()
                s.gpu.synchronize()
                if not options.bare and s.due():
                    before = time.monotonic()
                    s.commit(step)
                    commits.append(1e6 * (time.monotonic() - before))
        s.gpu.synchronize()
        seconds = time.monotonic() - began
        print(json.dumps({"seconds": seconds, "commit_us": commits, "bytes": field.u.nbytes}), flush=True)


if __name__ == "__main__":
    main()
