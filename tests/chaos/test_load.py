"""Every attack at once, by four jobs of bob's beside twelve bystanders of alice's: nobody is lost, the agent keeps to its shares."""

import time
from pathlib import Path

import pytest

from resilience.agent.shares import BURST, PART
from tests.bench.idle import pids
from tests.chaos.attacks import ASKS, ATTACKS
from tests.cluster.plan import USERS
from tests.cluster.sandbox import Sandbox, wait_for
from tests.demo.stage import NODE, Stage

pytestmark = [pytest.mark.cluster, pytest.mark.sim]

ATTACKERS, BYSTANDERS, TASKS = 4, 3, 4
PACE_MS = 100
"""Rest after each commit: a bystander runs for half a minute at least."""
OWN = 0.25
"""Of a second that the agent may need for alice's tasks and its own: recovering twelve tasks twice, on a busy machine."""


def cpu(sandbox: Sandbox, pid: int) -> float:
    """Seconds of CPU time that a process has used, all its threads."""
    fields = Path(sandbox.path(f"/proc/{pid}/stat")).read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


FEW = ("fault after fault", "newlines in the own logs", "words without end", "connections at the common socket")


def test_a_few_attackers_at_once() -> None:
    """The same in small: what comes of it, not how long it takes."""
    with Sandbox(nodes=1) as sandbox:  # of its own: what an attacker has filled and used up stays his for a while
        stage, since = Stage(sandbox), time.monotonic()
        reference = stage.reference()
        text, stem = stage.late_culprit("illegal-address")
        victim = stage.solver("--gres=shard:2", "-n2", "--mps-retries=10", tasks=2, pace_ms=20, also=text)
        stage.under_way([victim])
        mine: list[int] = []
        for name in FEW:
            mine.append(sandbox.sbatch(*ASKS, script=ATTACKS[name](sandbox.plan, "bob"), user="bob"))
            # his first fault before his floods: they use up his own share of the agent's time, and his faults wait with them
            wait_for(
                lambda: mine[0] in _blamed(stage, since), 60, lambda: str(stage.journal(since, "incident.attributed"))
            )
        stage.go(stem)
        wait_for(lambda: stage.of_job(victim, since, "recovered"), 60, lambda: sandbox.output(victim.number))
        fields = stage.end(victim)
        assert (fields["JobState"], fields["Restarts"]) == ("COMPLETED", "0"), stage.output(victim)
        assert {stage.digest(stem) for stem in victim.stems} == {reference}
        assert _blamed(stage, since) <= {victim.number, mine[0]}, "who makes faults, and nobody else"


def _blamed(stage: Stage, since: float) -> set[int]:
    """The jobs that the journal names as culprits."""
    named = [str(row.get("culprit")).split() for row in stage.journal(since, "incident.attributed")]
    return {int(words[1]) for words in named if words[0] == "job"}


@pytest.mark.slow
def test_attackers_beside_bystanders() -> None:
    with Sandbox(nodes=1, gpus=2) as sandbox:
        stage, since = Stage(sandbox), time.monotonic()
        reference = stage.reference()
        text, stem = stage.late_culprit("illegal-address")
        ask = ("--gres=shard:4", f"-n{TASKS}", "--mps-retries=10")
        jobs = [
            stage.solver(*ask, tasks=TASKS, pace_ms=PACE_MS, also=text if n == 0 else "") for n in range(BYSTANDERS)
        ]
        stage.under_way(jobs)
        agent = pids(sandbox, "resilience.cli.main", "agent", NODE)[0]
        began, used = time.monotonic(), cpu(sandbox, agent)
        attacks = list(ATTACKS.values())
        for number in range(ATTACKERS):
            mine = attacks[number::ATTACKERS]
            script = "\n".join(f"(\n{attack(sandbox.plan, 'bob')}\n) &" for attack in mine) + "\nwait"
            sandbox.wait(sandbox.sbatch(*ASKS, script=script, user="bob"), {"RUNNING"})
        stage.go(stem)
        wait_for(lambda: stage.journal(since, "recovered"), 60, lambda: "somebody recovers")
        ends = [stage.end(job, timeout=400) for job in jobs]
        took = time.monotonic() - began
        assert cpu(sandbox, agent) - used <= BURST + (PART + OWN) * took + 2.0
        assert [(one["JobState"], one["Restarts"]) for one in ends] == [("COMPLETED", "0")] * BYSTANDERS
        assert {stage.digest(stem) for job in jobs for stem in job.stems} == {reference}
        asked = [row for row in stage.journal(since, "slurm.intent") if row["ask"] in ("requeue", "drain")]
        assert [row for row in asked if row.get("uid") != USERS["bob"]] == []
        assert {row["uid"] for row in stage.journal(since, "user.throttled")} <= {USERS["bob"]}
        stage.clear()
        wait_for(lambda: not sandbox.residue(), 60, lambda: str(sandbox.residue()))
