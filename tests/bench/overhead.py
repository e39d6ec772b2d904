"""What mpsr costs a program while nothing goes wrong: its commits, and the whole against the same program without us.

Overhead is a ratio of two runs that follow one another, taken in turns, so that a slow or busy machine hits both.
"""

import re

from tests.bench.figures import figures, interval
from tests.cluster.sandbox import SandboxError
from tests.demo.stage import Stage

_SECONDS = re.compile(r"^solved in ([0-9.]+) s", re.MULTILINE)
_COMMIT = re.compile(r"^commit ([0-9.]+) us", re.MULTILINE)


def solve_seconds(stage: Stage, *, mps: bool, size: int, steps: int) -> tuple[float, str]:
    """Seconds that the solver itself says its steps took, and its output."""
    job = stage.solver("--gres=gpu:1", size=size, steps=steps, mps=mps)
    fields = stage.sandbox.wait(job.number, timeout=180)
    output = stage.output(job)
    found = _SECONDS.search(output)
    if fields["JobState"] != "COMPLETED" or not found:
        raise SandboxError(f"job {job.number} is {fields['JobState']}; its output ends: {output[-500:]}")
    return float(found[1]), output


def overhead(stage: Stage, pairs: int, *, size: int, steps: int) -> dict[str, object]:
    """Percent that the steps take longer with --mps (server, keeper, standby, commits) than without any of it."""
    percents = []
    for _ in range(pairs):
        bare, _ = solve_seconds(stage, mps=False, size=size, steps=steps)
        ours, _ = solve_seconds(stage, mps=True, size=size, steps=steps)
        percents.append(100 * (ours / bare - 1))
    values: dict[str, object] = dict(figures(percents))
    if len(percents) >= 6:
        values["median_between"] = [round(edge, 2) for edge in interval(percents)]
    return values | {"size": size, "steps": steps}
