"""The user's scancel wins over a recovery that is under way: the job is CANCELLED, at once, and does not come back."""

import time

import pytest

from tests.cluster.sandbox import wait_for
from tests.demo.faults import SHARD
from tests.demo.stage import Stage

pytestmark = [pytest.mark.cluster, pytest.mark.sim]


@pytest.mark.parametrize("rung", ["restore", "relaunch", "requeue"])
def test_cancelled_during_recovery(stage: Stage, rung: str) -> None:
    since = time.monotonic()
    job = stage.solver(*SHARD.ask(), f"--mps-recover={rung},requeue" if rung != "requeue" else "--mps-recover=requeue")
    stage.under_way([job])
    culprit = stage.culprit("illegal-address", *SHARD.ask())
    wait_for(lambda: stage.of_job(job, since, "verdict"), 30)
    stage.sandbox.good(["scancel", str(job.number)])
    stage.end(culprit)
    fields = stage.end(job)
    assert (fields["JobState"], fields["Restarts"]) == ("CANCELLED", "0"), stage.output(job)[-800:]
    assert stage.clean([job.number, culprit.number], since) == []
    assert stage.sandbox.job(job.number)["JobState"] == "CANCELLED"
