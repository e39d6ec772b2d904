"""Scripts of the days before --mps: `quit` to the control daemon, `rm -rf` of its directory, a pipe directory of their own.

No later step computes outside MPS, or somebody says so; and no other job of the user is refused for it.
"""

from collections.abc import Iterator

import pytest

from tests.cluster.sandbox import Sandbox, wait_for
from tests.demo.stage import Stage

pytestmark = pytest.mark.cluster

PLAIN = "/opt/venv/bin/python /opt/mpsr/tests/programs/plain.py"
KEEP = "LD_LIBRARY_PATH=$LD_LIBRARY_PATH SIMGPU_DIR=$SIMGPU_DIR"


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Sandbox(nodes=1) as sandbox:
        yield Stage(sandbox)


def computes(stage: Stage) -> str:
    """The line of nvidia-smi on the program that computes."""

    def look() -> str:
        shown = stage.sandbox.run(["nvidia-smi"], node="n0").out.splitlines()
        return next((line for line in shown if "/opt/venv/bin/python" in line), "")

    return wait_for(look, 60)


@pytest.mark.parametrize("more", ["", "--mps-standby=off"], ids=["pair", "single"])
@pytest.mark.parametrize(
    "before", ["echo quit | nvidia-cuda-mps-control", "rm -rf $CUDA_MPS_PIPE_DIRECTORY"], ids=["quit", "rm"]
)
def test_a_step_after_it_is_under_mps(stage: Stage, before: str, more: str) -> None:
    options = ["--mps", "-wn0", "--gres=shard:2", *filter(None, [more])]
    job = stage.sandbox.sbatch(*options, script=f"{before}\nsrun {PLAIN} 3000 --pace 1")
    assert " M+C " in computes(stage)
    assert stage.sandbox.wait(job, timeout=60)["JobState"] == "COMPLETED", stage.sandbox.output(job)
    assert "3000 steps" in stage.sandbox.output(job)


def test_other_jobs_of_the_user_are_not_refused_for_it(stage: Stage) -> None:
    since = len(stage.sandbox.journal())
    long = stage.solver("--gres=shard:2", plain=True, steps=60000)
    stage.under_way([long])
    trap = "trap 'rm -rf \"$CUDA_MPS_PIPE_DIRECTORY\"' EXIT; exit 1"
    stage.sandbox.wait(stage.sandbox.sbatch("--mps", "-wn0", "--gres=shard:1", script=trap))
    done = stage.sandbox.srun("--mps", "-wn0", "--gres=shard:1", *PLAIN.split(), "10")
    assert done.status == 0, done.err
    assert "outside MPS" not in done.err
    assert stage.sandbox.job(long.number)["JobState"] == "RUNNING"
    quits = f"(echo quit | nvidia-cuda-mps-control) & sleep 1; srun {PLAIN} 10"  # waits for the other's clients
    job = stage.sandbox.sbatch("--mps", "-wn0", "--gres=shard:1", script=quits)
    assert stage.sandbox.wait(job)["JobState"] == "COMPLETED", stage.sandbox.output(job)
    assert "10 steps" in stage.sandbox.output(job)
    assert stage.sandbox.job(long.number)["JobState"] == "RUNNING"
    stage.sandbox.run(["scancel", str(long.number)])
    stage.sandbox.wait(long.number)
    events = [row["event"] for row in stage.sandbox.journal()[since:]]
    assert "server.unavailable" in events


@pytest.mark.parametrize(
    ("wrapper", "said"),
    [
        (f"env {KEEP}", ""),
        ("env -u CUDA_MPS_PIPE_DIRECTORY", "it has no CUDA_MPS_PIPE_DIRECTORY"),
        (f"env -i {KEEP}", "it has no CUDA_MPS_PIPE_DIRECTORY"),
        (
            "env CUDA_MPS_PIPE_DIRECTORY=/tmp/nvidia-mps-$SLURM_JOB_ID",
            "CUDA_MPS_PIPE_DIRECTORY is /tmp/nvidia-mps-",
        ),
    ],
    ids=["control", "unset", "env-i", "own"],
)
def test_a_program_outside_mps_is_told_of(stage: Stage, wrapper: str, said: str) -> None:
    job = stage.sandbox.sbatch(
        "--mps", "-wn0", "--gres=shard:2", script=f"srun bash -c '{wrapper} {PLAIN} 600000 --pace 1'"
    )
    assert (" M+C " in computes(stage)) is not bool(said)
    if said:
        wait_for(lambda: f" of step 0 task 0 computes outside MPS: {said}" in stage.sandbox.output(job), 60)
    stage.sandbox.run(["scancel", str(job)])
    stage.sandbox.wait(job)
    if not said:
        assert "outside MPS" not in stage.sandbox.output(job)
