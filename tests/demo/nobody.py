"""Scenario 4: a job without our options, on a cluster with mpsr and on one without.

Both must have the same environment and processes. How much longer srun takes is told, not judged: it loads the plugin.
"""

import re
import statistics
import time

from tests.cluster.sandbox import Sandbox, SandboxError
from tests.demo.result import Result
from tests.demo.stage import Stage

_PASSING = re.compile(r"(PORT|PID|_START_TIME|_END_TIME|^SLURM_STEPID|^SLURM_STEP_ID|JOB_?ID|JOB_SLUID)$")
"""Variables that differ from one job to the next."""
_LOOK = (
    'env -0 | sort -z | tr "\\0" "\\n"; echo ----; pid=$$; while [ $pid -gt 1 ]; do '
    'ps -o comm= -p $pid; pid=$(ps -o ppid= -p $pid); done'
)  # fmt: skip
ROUNDS = 25


def nobody_asked(stage: Stage, result: Result) -> None:
    with Sandbox(
        nodes=len(stage.sandbox.nodes), gpus=stage.sandbox.plan.gpus, plugin=False, real=stage.sandbox.real
    ) as plain:
        sides = {"without mpsr": plain, "with mpsr": stage.sandbox}
        looks = {name: look(side) for name, side in sides.items()}
        times: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(ROUNDS):  # taken in turns, so that whatever else the machine does hits both alike
            for name, side in sides.items():
                times[name].append(latency_ms(side))
    (bare_env, bare_tree), (our_env, our_tree) = looks.values()
    different = sorted(key for key in bare_env.keys() | our_env.keys() if bare_env.get(key) != our_env.get(key))
    stage.say(f"{len(our_env)} variables in the environment; different: {', '.join(different) or 'none'}")
    stage.say(f"processes above the task: {' < '.join(our_tree)}")
    medians = {name: statistics.median(values) for name, values in times.items()}
    added = medians["with mpsr"] - medians["without mpsr"]
    for name, values in times.items():
        stage.say(
            f"srun true {name}: median {medians[name]:.1f} ms, {min(values):.1f} to {max(values):.1f}, n={ROUNDS}"
        )
    result.seen |= {"different_variables": different, "processes": our_tree, "added_ms": round(added, 2), "n": ROUNDS}
    result.require(not different, f"the environment differs: {different}")
    result.require(bare_tree == our_tree, f"the process tree differs: {our_tree} and {bare_tree}")
    slower = sum(ours > bare for bare, ours in zip(*times.values(), strict=True))
    stage.say(f"{added:.1f} ms more with mpsr; slower in {slower} of {ROUNDS} rounds")
    result.seen["slower"] = slower
    result.residue = stage.sandbox.residue()
    result.require(not result.residue, f"left behind: {result.residue}")


def look(side: Sandbox) -> tuple[dict[str, str], list[str]]:
    """Environment and ancestors of a task."""
    done = side.srun("-wn0", "--gres=shard:1", "bash", "-c", _LOOK)
    if done.status:
        raise SandboxError(f"srun failed: {done.err}")
    environment, _, tree = done.out.partition("----\n")
    address = f":{side.plan.ports[0]}:"  # of this cluster's slurmctld, in SLURM_WORKING_CLUSTER
    pairs = (line.partition("=") for line in environment.replace(address, ":PORT:").splitlines())
    return {key: value for key, _, value in pairs if not _PASSING.search(key)}, tree.split()


def latency_ms(side: Sandbox) -> float:
    began = time.monotonic()
    done = side.srun("-wn0", "true")
    if done.status:
        raise SandboxError(f"srun true failed: {done.err}")
    return 1000 * (time.monotonic() - began)
