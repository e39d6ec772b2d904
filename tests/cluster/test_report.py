"""`mpsr report`, `top` and `replay` on a real Slurm, as an admin and as a user."""

import json
import time
from collections.abc import Iterator

import pytest

from resilience.contract import exit_code
from tests.cluster.sandbox import Sandbox, wait_for
from tests.demo.faults import SHARD
from tests.demo.stage import NODE, Stage

pytestmark = [pytest.mark.cluster, pytest.mark.sim]
HOME = "/home/alice"
LONG = 10**6
"""Steps of a solver that ends when it is cancelled."""


@pytest.fixture
def stage(cluster: Sandbox) -> Iterator[Stage]:
    made = Stage(cluster)
    yield made
    made.clear()


def test_a_fault_is_reported_to_the_admin_and_to_the_user(stage: Stage) -> None:
    sandbox, since = stage.sandbox, time.monotonic()
    job = stage.solver(*SHARD.ask(), steps=LONG)
    stage.under_way([job])
    (server,) = {str(hello["server"]) for hello in stage.of_job(job, since, "task.hello")}
    seen = sandbox.run(["mpsr", "top", "--once", "--node", NODE], node=NODE).out
    rows = [line.split() for line in seen.splitlines()]
    assert any(row[:1] == [server] and row[2:4] == ["ACTIVE", "1"] for row in rows), seen
    assert any(row[1:4] == [str(job.number), "alice", server] and row[-1] == "domains" for row in rows), seen
    assert max(map(len, seen.splitlines())) <= 80
    own = sandbox.run(["mpsr", "top", "--once", "--node", NODE], user="alice", node=NODE).out
    assert any(row[:3] == ["-", str(job.number), "alice"] for row in map(str.split, own.splitlines())), own
    assert "only root sees them" in own

    culprit = stage.culprit("illegal-address", *SHARD.ask())
    wait_for(lambda: bool(stage.of_job(job, since, "recovered")), 60, lambda: stage.output(job))
    wait_for(lambda: bool(stage.journal(since, "incident.closed")), 60)
    sandbox.good(["scancel", str(job.number)])
    assert stage.end(job)["JobState"] == "CANCELLED"
    assert stage.clean([job.number, culprit.number], since) == []
    (told,) = stage.journal(since, "incident.attributed")
    assert f"job {culprit.number} step 0 ta" in sandbox.run(["mpsr", "top", "--once", "--node", NODE], node=NODE).out
    (back,) = stage.of_job(job, since, "recovered")

    whole = sandbox.good(["mpsr", "report", "--node", NODE, str(job.number), "-o", "-"])
    assert f"Incident {told['incident']}" in whole
    assert "counts: certain evidence" in whole
    assert "server u" in whole
    assert "GPU-hours saved against a requeue" in whole

    lines = [json.dumps(record) for record in stage.journal(since)]
    sandbox.path(f"{HOME}/journal").write_text("\n".join(lines))
    again = sandbox.good(["mpsr", "replay", f"{HOME}/journal"])
    assert again == "1 incident; judged again with the settings in force, 3 of 3 decisions are as recorded\n"
    sandbox.good(["rm", f"{HOME}/journal"])

    words = ["mpsr", "report", "--node", NODE, str(job.number), "-o", f"{HOME}/page.html"]
    done = sandbox.run(words, user="alice", node=NODE)
    assert (done.status, done.out) == (exit_code("ok"), f"{HOME}/page.html\n"), done.err
    own = sandbox.read(f"{HOME}/page.html")
    assert sandbox.path(f"{HOME}/page.html").stat().st_uid != 0
    assert f"Incident {told['incident']}" in own
    assert f"{back['ms']:.1f} ms</b>until {job.number}.0.0 went on" in own
    assert "These are the records of one job" in own
    sandbox.good(["rm", f"{HOME}/page.html"])

    words = ["mpsr", "report", "--node", NODE, "4000000"]
    unknown = sandbox.run(words, user="alice", node=NODE)
    assert unknown.status == exit_code("failed")
    assert "mpsr: job 4000000: is not known to Slurm any more" in unknown.err
    assert "--journal DIRECTORY/mpsr-4000000.jsonl" in unknown.err

    strange = sandbox.run(["mpsr", "report", "--node", NODE, str(told["incident"])], user="alice", node=NODE)
    assert strange.status == exit_code("failed")
    assert "cannot be read: Permission denied" in strange.err
