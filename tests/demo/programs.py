"""The programs of the demo's jobs, as command lines, and how to read what they print.

heat2d is the tutorial's solver (a session: it keeps state); plain knows nothing of mpsr; culprit makes a fault.
"""

import re

from tests.cluster.plan import REPO, Plan

_STEP = re.compile(r"^(?:(\d+): )?step (\d+)\b", re.MULTILINE)
_RESUMED = re.compile(r"^(?:\d+: )?resumed at step (\d+)\b", re.MULTILINE)


def heat2d(plan: Plan, *, out: str, size: int, steps: int) -> list[str]:
    """Solve on a grid of size x size and write the field's bytes to `out`."""
    program = f"{REPO}/docs/tutorial/heat2d/heat2d.py"
    return [plan.python, program, "--size", str(size), "--steps", str(steps), "--out", out]


def plain(plan: Plan, *, out: str, size: int, steps: int) -> list[str]:
    """The same without a session."""
    return [plan.python, f"{REPO}/tests/programs/plain.py", "--size", str(size), "--steps", str(steps), "--out", out]


def culprit(plan: Plan, fault: str) -> list[str]:
    """Make a fault on the GPU: illegal-address or trap."""
    return [plan.python, f"{REPO}/tests/programs/culprit.py", fault]


def step(output: str, tasks: int = 1) -> int:
    """The last step that the slowest of a job's tasks speaks of, -1 before its first; several are labelled (-l)."""
    last: dict[str, int] = {}
    for label, number in _STEP.findall(output):
        last[label] = int(number)
    return min(last.values()) if len(last) == tasks else -1


def resumed(output: str) -> list[int]:
    """The steps at which a solver went on from kept or spilled state."""
    return [int(number) for number in _RESUMED.findall(output)]
