"""What mpsr costs a program while nothing goes wrong: its commits, and the whole against the same program without us.

Overhead is a ratio of two runs that follow one another, taken in turns, so that a slow or busy machine hits both alike.
"""

import json
from typing import Any

from tests.bench.figures import figures, interval
from tests.cluster.plan import REPO
from tests.cluster.sandbox import SandboxError
from tests.demo.stage import NODE, Stage

SIZE = 512
EVERY = 100


def solve(stage: Stage, *, mps: bool, steps: int) -> dict[str, Any]:
    """One run of the solver: seconds of its steps, microseconds of each commit."""
    plan = stage.sandbox.plan
    ask = ["--mps"] if mps else []
    bare = [] if mps else ["--bare"]
    argv = [plan.python, f"{REPO}/tests/bench/solve.py", str(SIZE), str(steps), str(EVERY), *bare]
    done = stage.sandbox.srun(f"-w{NODE}", "--gres=gpu:1", *ask, *argv, timeout=300)
    if done.status:
        raise SandboxError(f"solve.py: exit status {done.status}: {done.out}{done.err}")
    values: dict[str, Any] = json.loads(done.out)
    return values


def overhead(stage: Stage, pairs: int, steps: int) -> dict[str, Any]:
    """Percent that the steps take longer under --mps (server, keeper, standby, a commit when it is due) than bare."""
    percents: list[float] = []
    commits: list[float] = []
    for _ in range(pairs):
        bare = solve(stage, mps=False, steps=steps)
        ours = solve(stage, mps=True, steps=steps)
        percents.append(100 * (ours["seconds"] / bare["seconds"] - 1))
        commits += ours["commit_us"]
    values: dict[str, Any] = dict(figures(percents))
    if len(percents) >= 6:
        values["median_between"] = [round(edge, 2) for edge in interval(percents)]
    shape = {"grid": [SIZE, SIZE], "steps": steps, "due_every": EVERY, "commits_per_run": len(commits) / max(1, pairs)}
    return {"overhead_percent": values | shape, "commit_us": figures(commits, 1) | {"bytes": SIZE * SIZE * 8}}
