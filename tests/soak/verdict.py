"""What must hold at the end of a round, whatever has happened in it. Each breach is one line."""

import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from tests.cluster.sandbox import SandboxError, wait_for
from tests.demo.stage import Job
from tests.soak.acts import Round, resume_nodes

_TROUBLE = re.compile(r"^Traceback|unexpected error", re.MULTILINE)


def breaches(round_: Round, since: float, *, harmless: bool, log_before: Mapping[str, int]) -> Iterator[str]:
    """`log_before`: length of each agent's log at the start of the round."""
    if round_.disturbed:
        _mend(round_)
    for job in round_.solvers:
        yield from _solver(round_, job, harmless=harmless)
    for job in round_.culprits:
        fields = round_.stage.end(job)
        if fields["JobState"] not in ("FAILED",) and harmless:
            yield f"culprit {job.number} is {fields['JobState']}: {_end(round_, job)}"
        if fields["Restarts"] != "0" and job.number not in _ours(round_, since) and round_.disturbed:
            continue  # Slurm's doing, or the admin's
        if fields["Restarts"] != "0":
            yield f"culprit {job.number} was requeued"
    for job in round_.others:
        if round_.disturbed and job.number in round_.cancelled:  # a killed slurmctld forgets what it has not saved
            round_.stage.sandbox.run(["scancel", str(job.number)])
        fields = round_.stage.end(job)
        if job.number not in round_.cancelled and fields["JobState"] != "COMPLETED":
            yield f"job {job.number} without --mps is {fields['JobState']}"
    mps = [job.number for job in (*round_.solvers, *round_.culprits)]
    try:
        closed = [] if round_.unwritten else mps
        yield from (f"left behind: {item}" for item in round_.stage.clean(closed, since))
    except SandboxError as error:
        yield str(error)
    if not round_.unwritten:
        yield from _journal(round_, since)
    for node, before in log_before.items():
        log = round_.stage.sandbox.read(f"/var/log/slurm/agent.{node}.log")[before:]
        if found := _TROUBLE.search(log):
            yield f"the agent's log of {node}: {log[found.start() : found.start() + 2000]}"
    for line in round_.stage.sandbox.good(["sinfo", "-h", "-N", "-o", "%T %N %E"]).splitlines():
        if line.split()[0] not in ("idle", "planned", "mixed", "allocated", "completing"):
            yield f"the node is {line}"


def _ours(round_: Round, since: float) -> set[int]:
    """Jobs that an agent has asked Slurm to requeue."""
    asked = round_.stage.journal(since, "slurm.intent")
    return {entry["job"] for entry in asked if entry.get("ask") == "requeue"}


def _mend(round_: Round) -> None:
    """What an admin does after a daemon of Slurm's has been killed. Jobs that it was starting are held, or its node is
    drained, by Slurm itself, which says so. A job whose script never began, or whose end was forgotten, counts as running
    until it is requeued."""
    sandbox = round_.stage.sandbox
    unbegun: dict[str, float] = {}

    def quiet() -> bool:
        resume_nodes(sandbox)
        for line in sandbox.good(["squeue", "-h", "-o", "%i %T %r"]).splitlines():
            job, state, reason = line.split(" ", 2)
            if state != "RUNNING" or any(f"slurmstepd: [{job}." in line for line in sandbox.processes().values()):
                unbegun.pop(job, None)
            elif time.monotonic() - unbegun.setdefault(job, time.monotonic()) > 15:
                del unbegun[job]
                round_.mended.add(int(job))
                sandbox.run(["scontrol", "requeue", job])
            if state == "PENDING":
                if "held" in reason.lower():
                    sandbox.run(["scontrol", "release", job])
                sandbox.run(["scontrol", "update", f"JobId={job}", "StartTime=now"])
        return not sandbox.good(["squeue", "-h"]).strip()

    with suppress(SandboxError):  # those that have not ended by then are told of
        wait_for(quiet, 180)


def _end(round_: Round, job: Job) -> str:
    return f"its output ends: {round_.stage.output(job)[-1500:]}"


def _solver(round_: Round, job: Job, *, harmless: bool) -> Iterator[str]:
    fields = round_.stage.end(job, timeout=180)
    state, restarts = fields["JobState"], int(fields["Restarts"])
    if job.number in round_.cancelled:
        return
    done = round_.stage.digest(job.stems[0]) == round_.stage.reference(plain=job.plain)
    if job.number in round_.mended and done:
        return  # it had ended; what 22.05 makes of its second run is Slurm's (gres/shard: node offset invalid)
    if state == "FAILED" and _never_launched(round_, job):
        return
    if state != "COMPLETED":
        yield f"bystander {job.number} is {state}: {_end(round_, job)}"
    elif not done:
        yield f"bystander {job.number} ended with other bytes"
    if restarts and harmless:
        yield f"bystander {job.number} was requeued {restarts} times: {fields.get('AdminComment', '')}"


def _never_launched(round_: Round, job: Job) -> bool:
    """22.05's slurmd, killed and started anew, takes a job's next run for its last one, and the job fails before its script."""
    said = f"Job {job.number} already killed, do not launch batch job"
    logs = (round_.stage.sandbox.read(f"/var/log/slurm/slurmd.{node}.log") for node in round_.stage.nodes)
    return round_.disturbed and any(said in log for log in logs)


def _journal(round_: Round, since: float) -> Iterator[str]:
    """Whoever was named made a fault, nobody was told to go on twice at once, and every incident has an end."""
    entries = round_.stage.journal(since)
    guilty = {job.number for job in (*round_.culprits, *round_.others)}
    opened: dict[str, Any] = {}
    for entry in entries:
        match entry["event"]:
            case "incident.opened":
                opened[entry["incident"]] = entry
            case "incident.closed":
                opened.pop(entry["incident"], None)
            case "incident.attributed" if entry.get("culprit"):
                named = re.match(r"job (\d+) ", entry["culprit"])
                if named and int(named[1]) not in guilty:
                    yield f"{entry['incident']} names {entry['culprit']}, who made no fault"
    yield from (f"incident {name} was never closed" for name in opened)
    recovered = Counter((entry["incident"], entry["task"]) for entry in entries if entry["event"] == "recovered")
    yield from (f"{task} recovered {count} times in {name}" for (name, task), count in recovered.items() if count > 1)
