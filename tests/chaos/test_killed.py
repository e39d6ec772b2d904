"""Any of our processes is SIGKILLed at any moment: the job carries on or ends as Slurm users expect, nothing is left.

Guarantee 5. The moment is given by what has been seen, not by the clock: before a fault, as soon as the GPU has faulted,
as soon as the agent has written an event of the incident.
"""

import time

import pytest

from tests.cluster.sandbox import wait_for
from tests.demo.faults import SHARD
from tests.demo.stage import NODE, Job, Stage

LONG = 1_000_000
"""Steps of a job that does not end by itself."""
pytestmark = [pytest.mark.cluster, pytest.mark.sim]


def pids(stage: Stage, *words: str, user: str = "") -> list[str]:
    listing = stage.sandbox.good(["ps", "-e", "-o", "user:32=,pid=,args="]).splitlines()
    rows = (line.split(None, 2) for line in listing)
    return [row[1] for row in rows if all(word in row[2] for word in words) and row[0] in (user or row[0])]


def kill(stage: Stage, *words: str, user: str = "") -> None:
    victims = pids(stage, *words, user=user)
    assert victims, f"nothing to kill: {words}"
    stage.sandbox.run(["kill", "-9", *victims])


def kill_agent(stage: Stage) -> None:
    kill(stage, "resilience.cli.main agent", NODE)


def completed(stage: Stage, job: Job, reference: str) -> None:
    """The job is whole: ended well, in its first run, with the right bytes."""
    fields = stage.end(job)
    assert (fields["JobState"], fields["Restarts"]) == ("COMPLETED", "0"), stage.output(job)[-800:]
    assert stage.digest(job.stems[0]) == reference


@pytest.mark.parametrize("moment", ["before", "fault", "incident.opened", "verdict", "recovered"])
def test_agent_killed(stage: Stage, moment: str) -> None:
    """The journal of the dead agent and that of the next tell one story; the bystander never notices."""
    reference = stage.reference()
    since = time.monotonic()
    job = stage.solver(*SHARD.ask())
    stage.under_way([job])
    if moment == "before":
        kill_agent(stage)
    culprit = stage.culprit("illegal-address", *SHARD.ask())
    if moment == "fault":
        wait_for(lambda: stage.faults(since), 30)
        kill_agent(stage)
    elif moment != "before":
        wait_for(lambda: stage.journal(since, moment), 30)
        kill_agent(stage)
    fields = stage.end(culprit)
    assert (fields["JobState"], fields["Restarts"]) == ("FAILED", "0")
    completed(stage, job, reference)
    assert stage.clean([job.number, culprit.number], since) == []
    wait_for(lambda: len(stage.journal(since, "agent.started")) == 1, 10)


def test_keeper_killed(stage: Stage) -> None:
    """The program gives its memory to the next keeper; a fault after that still costs nothing."""
    reference = stage.reference()
    since = time.monotonic()
    job = stage.solver(*SHARD.ask())
    stage.under_way([job])
    old = pids(stage, "resilience.state.keeper", user="alice")
    kill(stage, "resilience.state.keeper", user="alice")
    wait_for(lambda: (new := pids(stage, "resilience.state.keeper", user="alice")) and new != old, 10)
    stage.under_way([job], stage.step(job) + 200)
    culprit = stage.culprit("illegal-address", *SHARD.ask())
    stage.end(culprit)
    completed(stage, job, reference)
    assert stage.clean([job.number, culprit.number], since) == []


def test_supervisor_killed(stage: Stage) -> None:
    """The task ends with its supervisor, as when Slurm had lost it; the job fails and nothing is left."""
    since = time.monotonic()
    job = stage.solver(*SHARD.ask(), steps=LONG)
    stage.under_way([job])
    kill(stage, "mpsr-launch", user="alice")
    fields = stage.end(job)
    assert fields["JobState"] == "FAILED"
    assert stage.clean([job.number], since) == []


@pytest.mark.parametrize("moment", ["fault", "incident.opened", "verdict", "recovered"])
def test_supervisor_killed_in_the_middle(stage: Stage, moment: str) -> None:
    """The job of the dead supervisor fails and leaves nothing; the other bystander recovers as if nothing were."""
    reference = stage.reference()
    since = time.monotonic()
    victim, other = stage.solver(*SHARD.ask(), steps=LONG), stage.solver(*SHARD.ask())
    stage.under_way([victim, other])
    culprit = stage.culprit("illegal-address", *SHARD.ask())
    wait_for(lambda: stage.faults(since) if moment == "fault" else stage.journal(since, moment), 30)
    kill(stage, "mpsr-launch", victim.stems[0].removesuffix("0"), user="alice")
    assert stage.end(victim)["JobState"] == "FAILED"
    stage.end(culprit)
    completed(stage, other, reference)
    assert stage.clean([victim.number, other.number, culprit.number], since) == []


@pytest.mark.parametrize("moment", ["fault", "verdict", "recovered"])
def test_keeper_killed_in_the_middle(stage: Stage, moment: str) -> None:
    """Every keeper of the node dies while the fault is dealt with: the programs still hold the state."""
    reference = stage.reference()
    since = time.monotonic()
    job = stage.solver(*SHARD.ask())
    stage.under_way([job])
    culprit = stage.culprit("illegal-address", *SHARD.ask())
    wait_for(lambda: stage.faults(since) if moment == "fault" else stage.journal(since, moment), 30)
    kill(stage, "resilience.state.keeper", user="alice")
    stage.end(culprit)
    completed(stage, job, reference)
    assert stage.clean([job.number, culprit.number], since) == []


def test_program_killed(stage: Stage) -> None:
    """A program that dies by itself, without a fault of the GPU, ends as it would without us."""
    since = time.monotonic()
    job = stage.solver(*SHARD.ask(), plain=True, steps=LONG)
    stage.under_way([job])
    victims = pids(stage, "tests/programs/plain.py", user="alice")
    programs = [pid for pid in victims if "plain.py" in stage.sandbox.read(f"/proc/{pid}/cmdline").split("\0")[1]]
    stage.sandbox.good(["kill", "-9", programs[-1]])
    fields = stage.end(job)
    assert (fields["JobState"], fields["Restarts"]) == ("FAILED", "0")
    assert stage.clean([job.number], since) == []


def test_two_jobs_end_at_once(stage: Stage) -> None:
    """Two epilogs of one domain at the same time: one of them closes it, neither leaves anything."""
    since = time.monotonic()
    jobs = [stage.solver(*SHARD.ask(), steps=LONG) for _ in range(2)]
    stage.under_way(jobs)
    stage.sandbox.good(["scancel", *(str(job.number) for job in jobs)])
    for job in jobs:
        assert stage.end(job)["JobState"] == "CANCELLED"
    assert stage.clean([job.number for job in jobs], since) == []
    closed = stage.journal(since, "domain.closed")
    assert sorted((entry["gpu"], entry["color"]) for entry in closed) == [(0, "a"), (0, "b")]


def test_two_jobs_begin_at_once(stage: Stage) -> None:
    """Two prologs of one domain at the same time: both jobs run under the same servers."""
    since = time.monotonic()
    jobs = [stage.solver(*SHARD.ask(), steps=500) for _ in range(3)]
    for job in jobs:
        assert stage.end(job)["JobState"] == "COMPLETED"
    assert stage.clean([job.number for job in jobs], since) == []
