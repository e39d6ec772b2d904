"""An array of faulty tasks on a cluster: its owner's other job is hit so many times and not more, over an agent's death."""

import time

import pytest

from tests.cluster.sandbox import Sandbox, wait_for
from tests.demo import programs
from tests.demo.stage import NODE, Stage

pytestmark = [pytest.mark.cluster, pytest.mark.sim]

SITE = "  recovery: {strikes: 2, strikes_refuse: 4}\n"
ASK = ("--mps", f"-w{NODE}", "--gres=shard:1")


@pytest.mark.slow
def test_an_array_hurts_its_owners_other_jobs_so_many_times() -> None:
    with Sandbox(nodes=1, site=SITE) as sandbox:
        stage, since = Stage(sandbox), time.monotonic()
        victim = stage.solver("--gres=shard:1", steps=1_000_000)
        stage.under_way([victim])
        said = []
        for number in range(6):
            argv = programs.culprit(sandbox.plan, "illegal-address")
            done = sandbox.srun("-Q", *ASK, *argv, "--after", f"0.{number}", timeout=60)
            said.append((done.status, "has caused 4 GPU faults on this node" in done.err))
            if number == 2:
                stage.kill("resilience.cli.main agent")
                wait_for(lambda: len(stage.journal(since, "agent.started")) >= 1, 60)
            stage.under_way([victim], stage.step(victim) + 300)
        assert [status for status, _ in said][4:] == [3, 3]
        assert [refused for _, refused in said] == [False] * 4 + [True] * 2
        assert len(stage.of_job(victim, since, "recovered")) == 2
        applied = [(row["action"], row["count"]) for row in stage.journal(since, "strikes.applied")]
        assert applied == [("apart", 2), ("apart", 3), ("refused", 4), ("refused", 4)]
        assert "4 GPU faults, the last by" in sandbox.good(["mpsr", "status"], node=NODE)
        sandbox.good(["scancel", "-u", "alice"])
        wait_for(lambda: sandbox.residue() == [], 30, lambda: str(sandbox.residue()))
