"""Scenario 1: a neighbour's illegal address or trap.

Bystanders lose nothing; the culprit fails, is named, and is not requeued.
"""

import time
from dataclasses import dataclass

from tests.demo.result import Result
from tests.demo.stage import Job, Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbours:
    """Who shares the GPU, and how."""

    gres: str
    bystanders: tuple[str, ...]
    culprit: str
    options: tuple[str, ...] = ()

    def ask(self) -> tuple[str, ...]:
        return (f"--gres={self.gres}", *self.options)


SHARD = Neighbours(gres="shard:2", bystanders=("alice", "alice", "bob"), culprit="alice")
MPS = Neighbours(gres="mps:25", bystanders=("alice", "alice", "bob"), culprit="alice")
SHARED_USERS = Neighbours(
    gres="shard:2", bystanders=("alice", "bob"), culprit="bob", options=("--mps-domain=shared",)
)  # fmt: skip


def faults(stage: Stage, result: Result, fault: str, neighbours: Neighbours) -> None:
    """Bystanders and a culprit as jobs of their own on one GPU."""
    since = time.monotonic()
    reference = stage.reference()
    jobs = [stage.solver(*neighbours.ask(), user=user) for user in neighbours.bystanders]
    stage.under_way(jobs)
    culprit = stage.culprit(fault, *neighbours.ask(), user=neighbours.culprit)
    stage.say(f"job {culprit.number} of {culprit.user} is the culprit: {fault}")
    fields = stage.end(culprit)
    result.require(fields["JobState"] == "FAILED", f"the culprit is {fields['JobState']}, not FAILED")
    result.require(fields["Restarts"] == "0", "the culprit was requeued")
    account = fields.get("AdminComment", "")
    result.require("caused a fault" in account, f"Slurm's record of the culprit says {account or 'nothing'}")
    result.require(stage.output(culprit).count("caused the GPU fault") == 1, "the reason is not told once")
    bystanders(stage, result, jobs, reference)
    result.culprit_named = named(stage, culprit.number, since)
    result.require(result.culprit_named, f"no incident names job {culprit.number} as the culprit")
    finish(stage, result, [*jobs, culprit], since)
    hit = sum(user == neighbours.culprit or bool(neighbours.options) for user in neighbours.bystanders)
    result.require(len(result.recovery_ms) == hit, f"{len(result.recovery_ms)} of {hit} bystanders recovered")


def four_tasks(stage: Stage, result: Result, fault: str) -> None:
    """One job has the whole GPU: a step of four solvers, and a step beside it that makes the fault."""
    since = time.monotonic()
    reference = stage.reference()
    text, stem = stage.late_culprit(fault)
    job = stage.solver("--gres=gpu:1", "-n5", tasks=4, also=text)
    stage.under_way([job])
    stage.go(stem)
    stage.say(f"a step beside them is the culprit: {fault}")
    bystanders(stage, result, [job], reference)
    result.bystanders = 4
    status = stage.sandbox.read(f"{stem}.status").strip()
    result.seen["culprit_exit_status"] = status
    result.require(status not in ("", "0"), f"the culprit's step ended with status {status or 'none'}")
    result.culprit_named = named(stage, job.number, since)
    result.require(result.culprit_named, "no incident names the culprit")
    log = stage.sandbox.read(f"/home/{job.user}/mpsr-{job.number}.log")
    told = [f"by job {job.number} step 1 task 0", *(f"step 0 task {task}: recovered" for task in range(4))]
    missing = [words for words in told if words not in log]
    result.require(not missing, f"the job's log does not tell its steps apart: {missing}")
    finish(stage, result, [job], since)
    result.require(len(result.recovery_ms) == 4, f"{len(result.recovery_ms)} of 4 tasks recovered")


def bystanders(stage: Stage, result: Result, jobs: list[Job], reference: str) -> None:
    """They complete, in the first run of the job, with the bytes of an undisturbed run."""
    same = []
    for job in jobs:
        fields = stage.end(job)
        lost = fields["JobState"] != "COMPLETED" or fields["Restarts"] != "0"
        result.bystanders += 1
        result.bystanders_lost += lost
        result.requeues += int(fields["Restarts"])
        result.require(not lost, f"job {job.number} is {fields['JobState']}, restarts {fields['Restarts']}")
        same += [stage.digest(stem) == reference for stem in job.stems]
    result.bit_identical = all(same)
    result.require(result.bit_identical, "results differ from the undisturbed run")


def named(stage: Stage, job: int, since: float) -> bool:
    """Whether the journal attributes a fault to this job, and to no other."""
    culprits = [entry.get("culprit") or "nobody" for entry in stage.journal(since, "incident.attributed")]
    return bool(culprits) and all(culprit.startswith(f"job {job} ") for culprit in culprits)


def finish(stage: Stage, result: Result, jobs: list[Job], since: float) -> None:
    result.recovery_ms = stage.recovery_ms(since)
    result.residue = stage.clean([job.number for job in jobs], since)
    result.require(not result.residue, f"left behind: {'; '.join(result.residue)}")
