"""The agent is away while a neighbour faults and the server recovers: its next start finds it in the server's log."""

import shlex
import time

import pytest

from tests.chaos.test_killed import completed, kill_agent
from tests.cluster.sandbox import wait_for
from tests.demo import programs
from tests.demo.faults import SHARD
from tests.demo.stage import NODE, Job, Stage

pytestmark = [pytest.mark.cluster, pytest.mark.sim]


def test_a_fault_that_no_agent_saw(stage: Stage) -> None:
    """The supervisors wait for an agent with what their programs ended with; the server is long well again by then."""
    sandbox, since = stage.sandbox, time.monotonic()
    reference = stage.reference(plain=True)
    job = stage.solver(*SHARD.ask(), plain=True)
    faulty = shlex.join(programs.culprit(sandbox.plan, "illegal-address"))
    go = "/home/alice/missed.go"
    wait = f"until [ -e {go} ]; do sleep 0.02; done; exec {faulty}"
    culprit = sandbox.sbatch("--mps", f"-w{NODE}", *SHARD.ask(), script=f"srun bash -c {shlex.quote(wait)}")
    stage.under_way([job])
    wait_for(lambda: stage.of_job(Job(number=culprit, user="alice"), since, "task.hello"), 30)
    away = sandbox.path(f"/run/sandbox/no-agent.{NODE}")
    away.touch()
    try:
        kill_agent(stage)
        sandbox.path(go).touch()
        wait_for(lambda: _recovered(stage), 30)
    finally:
        away.unlink()
    assert sandbox.wait(culprit)["JobState"] == "FAILED"
    completed(stage, job, reference)
    (told,) = stage.journal(since, "incident.attributed")
    assert told["culprit"].startswith(f"job {culprit} ")
    assert stage.clean([job.number, culprit], since) == []


def _recovered(stage: Stage) -> bool:
    """Its server has made its context anew, as the log says."""
    logs = stage.sandbox.path(f"/var/log/mpsr/{NODE}/d").glob("u*/g0/a/server.log")
    texts = [log.read_text().partition("fatal GPU error") for log in logs]
    return any("Creating server context" in after for _, _, after in texts)
