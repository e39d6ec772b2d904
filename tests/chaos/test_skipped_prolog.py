"""slurmd starts a requeued job without its prolog when it comes back too soon (seen on 22.05): the job is not lost.

The user's own `scontrol requeue` and start within the same second bring it about; ours waits long enough.
"""

import time

import pytest

from tests.cluster.sandbox import wait_for
from tests.demo.stage import Stage

pytestmark = [pytest.mark.cluster, pytest.mark.sim]
SKIPPED = "started again without its prolog"


def start_now(stage: Stage, job: int) -> None:
    stage.sandbox.wait(job, {"PENDING"})
    stage.sandbox.good(["scontrol", "update", f"JobId={job}", "StartTime=now"])


def test_a_job_that_came_back_without_its_prolog_is_given_back(stage: Stage) -> None:
    script = 'srun true && [ "${SLURM_RESTART_COUNT:-0}" -gt 0 ] || sleep 60'
    job = stage.sandbox.sbatch("--mps", "-wn0", "--gres=shard:1", "--open-mode=append", script=script)
    wait_for(lambda: len(stage.sandbox.good(["squeue", "-h", "-s", "-j", str(job)]).split()) == 0, 20)
    stage.sandbox.wait(job, {"RUNNING"})
    stage.sandbox.good(["scontrol", "requeue", str(job)])
    start_now(stage, job)
    wait_for(lambda: SKIPPED in stage.sandbox.output(job), 10, lambda: stage.sandbox.output(job))
    fields = stage.sandbox.wait(job, {"PENDING"})
    assert fields["Restarts"] == "2"
    late = time.monotonic() + 3  # Slurm's own delay is 121 s; slurmd's forgetfulness lasts two
    wait_for(lambda: time.monotonic() > late, 10)
    start_now(stage, job)
    ended = stage.sandbox.wait(job)
    assert (ended["JobState"], ended["ExitCode"]) == ("COMPLETED", "0:0"), stage.sandbox.output(job)
