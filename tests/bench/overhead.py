"""What mpsr costs a program while nothing goes wrong: its commits, and the whole against the same program without us.

Both programs are there at the same time and compute in turns of a fraction of a second, so that a machine that slows down
or is busy with something else hits both alike. Overhead is the ratio of two neighbouring turns. What remains is where the
two have their memory: on a simulated GPU a program's steps are some per cent faster or slower from one start to the next. So
the two parts that we know of are also given by themselves, as a share of the time of our program: commits, and the
session's part of each step.
"""

import json
import subprocess
from typing import Any

from tests.bench.figures import figures, interval
from tests.cluster.plan import REPO
from tests.cluster.sandbox import SandboxError
from tests.demo.stage import NODE, Stage

SIZE = 512
STEPS = 100
WARM = 5
"""Turns of each that do not count: the first commit, the first launches."""


class Solver:
    """One of the two programs, as a step of alice's."""

    def __init__(self, stage: Stage, *options: str, bare: bool) -> None:
        program = [stage.sandbox.plan.python, f"{REPO}/tests/bench/solve.py", str(SIZE), str(STEPS)]
        argv = ["srun", f"-w{NODE}", "--gres=shard:1", *options, *program, *(["--bare"] if bare else [])]
        self._process = stage.sandbox.popen(argv, user="alice", stdin=subprocess.PIPE)

    def turn(self) -> dict[str, Any]:
        """Seconds of the steps, microseconds of each commit."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write("go\n")
        stdin.flush()
        if not (line := stdout.readline()):
            raise SandboxError(f"solve.py: exit status {self._process.wait()}: {self._process.communicate()[1]}")
        values: dict[str, Any] = json.loads(line)
        return values

    def end(self) -> float:
        """Microseconds of the session's own part of a step."""
        out, err = self._process.communicate(timeout=30)
        if self._process.returncode:
            raise SandboxError(f"solve.py: exit status {self._process.returncode}: {err}")
        return float(json.loads(out)["step_us"])


def overhead(stage: Stage, pairs: int) -> dict[str, Any]:
    """Percent that the steps take longer under --mps (server, keeper, standby, a commit when it is due) than bare."""
    bare, ours = Solver(stage, bare=True), Solver(stage, "--mps", bare=False)
    percents: list[float] = []
    commits: list[float] = []
    seconds = 0.0
    for number in range(-WARM, pairs):
        first, second = (bare, ours) if number % 2 else (ours, bare)
        took = {solver: solver.turn() for solver in (first, second)}
        if number >= 0:
            percents.append(100 * (took[ours]["seconds"] / took[bare]["seconds"] - 1))
            seconds += took[ours]["seconds"]
            commits += took[ours]["commit_us"]
    bare.end()
    step_us = ours.end()
    low, high = interval(percents)
    values = figures(percents) | {
        "median_between": [round(low, 2), round(high, 2)],
        "of_it_commits": round(sum(commits) / 1e4 / seconds, 3),
        "of_it_steps": round(step_us * STEPS * pairs / 1e4 / seconds, 4),
        "grid": [SIZE, SIZE],
        "steps_per_turn": STEPS,
        "commits_per_turn": len(commits) / pairs,
    }
    return {"overhead_percent": values, "commit_us": figures(commits, 1) | {"bytes": took[ours]["bytes"]}}
