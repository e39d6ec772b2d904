"""The file system under the journal is full: recovery goes on, and the journal says later what it could not write."""

import time
from collections.abc import Iterator

import pytest

from tests.cluster.sandbox import Sandbox
from tests.demo.faults import SHARD
from tests.demo.stage import NODE, Stage

pytestmark = [pytest.mark.cluster, pytest.mark.sim]


@pytest.fixture
def small() -> Iterator[Sandbox]:
    with Sandbox(nodes=1, journal_kib=512) as sandbox:
        yield sandbox


def test_a_full_disk_costs_no_job(small: Sandbox) -> None:
    stage = Stage(small)
    reference = stage.reference()
    job = stage.solver(*SHARD.ask())
    stage.under_way([job])
    filled = small.run(["dd", "if=/dev/zero", "of=/var/log/mpsr/fill", "bs=1k"])
    assert "No space left" in filled.err
    culprit = stage.culprit("illegal-address", *SHARD.ask())
    assert stage.end(culprit)["JobState"] == "FAILED"
    fields = stage.end(job)
    assert (fields["JobState"], fields["Restarts"]) == ("COMPLETED", "0")
    assert stage.digest(job.stems[0]) == reference
    small.good(["rm", "/var/log/mpsr/fill"])
    since = time.monotonic()
    last = stage.solver(*SHARD.ask(), steps=500)
    assert stage.end(last)["JobState"] == "COMPLETED"
    assert stage.clean([last.number], since) == []
    assert any("lost" in entry for entry in small.journal(NODE)), "the journal does not say what it could not write"
