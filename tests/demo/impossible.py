"""Scenario 2: no faster rung is left. The job is requeued, restarts once, and goes on from its last commit on disk."""

import time

from tests.cluster.sandbox import FINAL, SandboxError, wait_for
from tests.demo import programs
from tests.demo.faults import SHARD, finish
from tests.demo.result import Result
from tests.demo.stage import EARLY, Job, Stage

SLOWER = 2.5
"""Times the usual pace of a solver that meets two culprits, one after the other: both are there before its end."""


def retries(stage: Stage, result: Result) -> None:
    """One recovery is allowed. The first fault takes it; the second makes the job restart."""
    since = time.monotonic()
    reference = stage.reference()
    pace = SLOWER * programs.pace(stage.sandbox.plan)
    job = stage.solver("--gres=shard:2", "--mps-retries=1", pace_ms=pace)
    stage.under_way([job])
    culprits = []
    for number, word in ((1, "first"), (2, "second")):
        culprits.append(stage.culprit("illegal-address", *SHARD.ask()))
        stage.say(f"job {culprits[-1].number} is the {word} culprit")
        stage.end(culprits[-1])
        if number == 1:
            wait_for(lambda: stage.journal(since, "recovered"), 20, lambda: "the first recovery")
            stage.under_way([job], stage.step(job) + EARLY)
    restarted(stage, result, job, reference, EARLY)
    finish(stage, result, [job, *culprits], since)


def keeper_and_server(stage: Stage, result: Result) -> None:
    """Keeper and servers are killed together, and again whenever there are new ones, as on a GPU that stays broken.

    Killed once, they cost the job some hundred milliseconds: the program still holds the state's memory. Only when
    nothing comes back is the job requeued.
    """
    since = time.monotonic()
    reference = stage.reference()
    job = stage.solver("--gres=shard:2")
    stage.under_way([job], 1000)  # long enough for several spills
    killed = 0

    def given_up() -> bool:
        nonlocal killed
        if stage.sandbox.job(job.number)["JobState"] != "RUNNING":
            return True
        killed += stage.kill("resilience.state.keeper", "nvidia-cuda-mps-server")
        return False

    wait_for(given_up, 60, lambda: f"the end of job {job.number} without keeper and servers")
    stage.say(f"killed keeper and servers, {killed} processes, until there was no way to go on")
    restarted(stage, result, job, reference, EARLY)
    finish(stage, result, [job], since)


def restarted(stage: Stage, result: Result, job: Job, reference: str, floor: int) -> None:
    """The job has restarted once, went on from a commit after step `floor`, and ends well with the right bytes.

    The solver cuts its log back to the commit it goes on from, so the log's end says where that was.
    """
    before = stage.step(job)
    try:
        wait_for(lambda: stage.sandbox.job(job.number)["Restarts"] == "1", 40)
        stage.say(f"job {job.number} is requeued")
    except SandboxError:
        result.require(False, f"job {job.number} was not requeued")
    lowest = before

    def ended() -> bool:
        nonlocal lowest
        lowest = min(lowest, stage.step(job))
        return stage.sandbox.job(job.number)["JobState"] in FINAL

    wait_for(ended, 60, lambda: f"the end of job {job.number}")
    fields = stage.end(job)
    result.bystanders = 1
    result.bystanders_lost = int(fields["JobState"] != "COMPLETED")
    result.requeues = int(fields["Restarts"])
    result.require(not result.bystanders_lost, f"job {job.number} is {fields['JobState']}")
    result.require(result.requeues == 1, f"job {job.number} restarted {result.requeues} times, not once")
    result.seen["went_on_after_step"] = lowest
    result.require(lowest > floor, f"it did not go on from its last commit on disk, but from step {lowest}")
    result.bit_identical = stage.digest(job.stems[0]) == reference
    result.require(result.bit_identical, "the result differs from the undisturbed run")
    result.seen["admin_comment"] = fields.get("AdminComment", "")
