"""Spilled state on a real cluster: it goes with its job, however that ends, and waits for a requeued one."""

import time

import pytest

from tests.chaos.test_killed import LONG
from tests.cluster.sandbox import wait_for
from tests.demo.faults import SHARD
from tests.demo.stage import NODE, Job, Stage

pytestmark = [pytest.mark.cluster, pytest.mark.sim]


def spills(stage: Stage, job: Job) -> list[str]:
    return sorted(path.name for path in stage.sandbox.path(f"/home/{job.user}/.mpsr-{job.number}").glob("*.state"))


def spilling(stage: Stage, *options: str) -> Job:
    job = stage.solver(*SHARD.ask(), *options, steps=LONG)
    stage.under_way([job])
    wait_for(lambda: spills(stage, job), 30, lambda: "a spill")
    return job


@pytest.mark.parametrize("how", ["cancelled", "killed", "failed"])
def test_a_job_that_ends_takes_its_state_along(stage: Stage, how: str) -> None:
    since = time.monotonic()
    job = spilling(stage)
    if how == "failed":
        stage.kill(job.stems[0])
    else:
        stage.sandbox.good(["scancel", *(["--signal=KILL", "--full"] if how == "killed" else []), str(job.number)])
    assert stage.end(job)["JobState"] == ("FAILED" if how == "failed" else "CANCELLED")
    assert stage.clean([job.number], since) == []
    assert stage.journal(since, "job.closed")[-1].get("spill") is None


def test_a_requeued_job_keeps_its_state_until_it_is_cancelled_while_it_waits(stage: Stage) -> None:
    since = time.monotonic()
    job = spilling(stage)
    stage.sandbox.good(["scontrol", "requeuehold", str(job.number)])
    wait_for(lambda: stage.sandbox.job(job.number)["JobState"] == "PENDING", 30)
    assert len(spills(stage, job)) == 1
    assert "kept for the job's next run" in stage.journal(since, "job.closed")[-1]["spill"]
    clean = [stage.sandbox.plan.python, "-m", "resilience.cli.main", "spills", "--clean", "--node", NODE]
    assert stage.sandbox.good(clean) == f"job {job.number} of uid 64101: kept for the job's next run\n"
    stage.sandbox.good(["scancel", str(job.number)])
    wait_for(lambda: stage.sandbox.job(job.number)["JobState"] == "CANCELLED", 10)
    assert stage.sandbox.good(clean) == f"job {job.number} of uid 64101: removed\n"
    assert stage.clean([job.number], since) == []
