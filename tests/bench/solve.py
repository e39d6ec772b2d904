"""The solver of the tutorial with a stopwatch, a turn at a time.

`solve.py SIZE STEPS [--bare]` waits for a line on standard input, makes STEPS steps, prints what they took, and waits
again, until its input ends; then it prints what the session's own part of a step takes, by making many empty ones. After
each turn it commits when a commit is due; with --bare it commits nothing, as the same program would without mpsr. Half
of its time it waits for the turns of the other program, so it gives commits half the share of its time that a session
gives them otherwise: of the time in which it computes the share is the same.
"""

import argparse
import importlib.util
import inspect
import json
import sys
import time
from pathlib import Path
from typing import Any

import resilience

OVERHEAD = inspect.signature(resilience.session).parameters["overhead"].default
EMPTY = 100_000
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
    parser.add_argument("--bare", action="store_true", help="commit nothing")
    options = parser.parse_args()
    with resilience.session(arrays="device", overhead=OVERHEAD / 2) as s:
        assert s.gpu is not None
        field = tutorial().GpuField(s, options.size, options.size)
        if s.fresh:
            field.init()
        s.gpu.synchronize()
        sys.stdin.readline()
        began = time.monotonic()
        steps = s.steps(sys.maxsize)
        for step in steps:
            field.step()
            if (step + 1) % options.steps:
                continue
            field.settle()
            s.gpu.synchronize()
            commits: list[float] = []
            if not options.bare and s.due():
                before = time.monotonic()
                s.commit(step)
                commits.append(1e6 * (time.monotonic() - before))
            seconds = time.monotonic() - began
            print(json.dumps({"seconds": seconds, "commit_us": commits, "bytes": field.u.nbytes}), flush=True)
            if not sys.stdin.readline():
                break
            began = time.monotonic()
        began = time.monotonic()
        for _ in range(EMPTY):
            next(steps)
        print(json.dumps({"step_us": 1e6 * (time.monotonic() - began) / EMPTY}), flush=True)


if __name__ == "__main__":
    main()
