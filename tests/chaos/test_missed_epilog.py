"""A job whose epilog slurmd never ran: the agent has it run, and nothing is left of the job."""

import time

import pytest

from tests.cluster.sandbox import wait_for
from tests.demo.stage import NODE, Stage

pytestmark = [pytest.mark.cluster, pytest.mark.sim, pytest.mark.slow]


def test_a_job_without_an_epilog_is_closed_all_the_same(stage: Stage) -> None:
    since = time.monotonic()
    job = stage.solver("--gres=shard:1")
    stage.under_way([job])
    hook = next(path for path in stage.sandbox.path("/etc/slurm").rglob("50-mpsr*") if "epilog" in str(path))
    ours = hook.read_text()
    hook.write_text("#!/bin/sh\n")  # and not away: slurmd drains a node whose Epilog names no file
    try:
        stage.sandbox.good(["scancel", str(job.number)])
        assert stage.end(job)["JobState"] == "CANCELLED"
    finally:
        hook.write_text(ours)
    assert stage.sandbox.path(f"/run/mpsr/{NODE}/jobs/{job.number}.lease").exists()
    wait_for(lambda: stage.journal(since, "job.closed"), 60)
    assert stage.clean([job.number], since) == []
    log = f"/var/log/slurm/agent.{NODE}.log"
    wait_for(lambda: f"job {job.number} is over by Slurm" in stage.sandbox.read(log), 10)
