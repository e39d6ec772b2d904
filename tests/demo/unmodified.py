"""Scenario 3: a program that knows nothing of mpsr is relaunched in its allocation, and ends as users expect."""

import time

from tests.demo.faults import SHARD, bystanders, finish, named
from tests.demo.result import Result
from tests.demo.stage import NODE, Stage


def unmodified(stage: Stage, result: Result) -> None:
    since = time.monotonic()
    reference = stage.reference(plain=True)
    job = stage.solver(*SHARD.ask(), plain=True)
    stage.under_way([job])
    culprit = stage.culprit("illegal-address", *SHARD.ask())
    stage.say(f"job {culprit.number} is the culprit: illegal-address")
    stage.end(culprit)
    bystanders(stage, result, [job], reference)
    result.culprit_named = named(stage, culprit.number, since)
    result.require(result.culprit_named, "no incident names the culprit")
    output = stage.output(job)
    result.require(output.count(reference) == 1, f"its result does not stand once in its output: {output}")
    for name, command, state, code in (
        ("exit status", "exit 7", "FAILED", "7:0"),
        ("signal", "kill -SEGV $$", "FAILED", "0:11"),
    ):
        number = stage.sandbox.sbatch("--mps", f"-w{NODE}", "--gres=shard:1", script=f"exec srun bash -c '{command}'")
        fields = stage.sandbox.wait(number)
        stage.say(f"job {number}: {name} of an unmodified program: {fields['JobState']} {fields['ExitCode']}")
        result.seen[name] = fields["ExitCode"]
        result.require(fields["JobState"] == state, f"{name}: {fields['JobState']}")
        if name == "exit status":
            result.require(fields["ExitCode"] == code, f"{name} {fields['ExitCode']}, not {code}")
        clean = stage.clean([number], since)
        result.require(not clean, f"left behind by job {number}: {clean}")
    finish(stage, result, [job, culprit], since)
