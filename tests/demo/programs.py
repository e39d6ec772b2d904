"""The programs of the demo's jobs, as command lines, and how to read what they write.

heat2d is the tutorial's solver (a session: it keeps state); plain knows nothing of mpsr; culprit makes a fault.
"""

from tests.cluster.plan import REPO, Plan

SIZE = 192
"""Rows and columns of the grid."""
STEPS = 3000
EVERY = 10
"""Steps from one commit to the next."""
PACE_MS = 10
"""Rest after each commit, so that there is time to make trouble: a run takes about four seconds."""
REAL_PACE_MS = 60
"""The same on a real GPU, where a culprit needs seconds to be there (driver, context, MPS server): about twenty seconds."""
CLOCK = "/tmp"
"""Where culprits on a real GPU write down when they launched their fault."""


def heat2d(plan: Plan, *, stem: str, steps: int = STEPS, pace_ms: float | None = None) -> list[str]:
    """Solve; the residual log goes to `stem`.log, the field's checksum to `stem`.out."""
    shape = [str(SIZE), str(SIZE), str(steps), str(EVERY)]
    files = ["--log", f"{stem}.log", "--out", f"{stem}.out"]
    program = f"{REPO}/docs/tutorial/heat2d/heat2d.py"
    return [plan.python, program, *shape, *files, "--pace", str(pace(plan, pace_ms)), "--spill-seconds", "0.5"]


def pace(plan: Plan, wanted: float | None = None) -> float:
    """Milliseconds of rest after a commit; unless a scenario wants its own, as the GPU needs it."""
    return (REAL_PACE_MS if plan.real_gpu else PACE_MS) if wanted is None else wanted


def plain(plan: Plan, *, stem: str, steps: int = STEPS, pace_ms: float | None = None) -> list[str]:
    """Add a vector up without knowing of mpsr; the sum goes to `stem`.out, the moment of each start's first step to
    `stem`.marks."""
    program = f"{REPO}/tests/programs/plain.py"
    files = ["--out", f"{stem}.out", "--marks", f"{stem}.marks"]
    return [plan.python, program, str(steps), *files, "--pace", str(pace(plan, pace_ms) / EVERY)]


def culprit(plan: Plan, fault: str) -> list[str]:
    """Make a fault on the GPU: illegal-address or trap. A simulated GPU records the moment itself."""
    clock = ["--clock", CLOCK] if plan.real_gpu else []
    return [plan.python, f"{REPO}/resilience/drill/culprit.py", fault, *clock]


def last_step(log: str) -> int:
    """The last step in a residual log, -1 when there is none."""
    whole = log.rpartition("\n")[0].rpartition("\n")[2]
    return int(whole.split()[0]) if whole else -1
