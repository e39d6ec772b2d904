"""What must hold at the end of a round, whatever has happened in it. Each breach is one line."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from tests.cluster.sandbox import SandboxError
from tests.demo.stage import NODE, Job
from tests.soak.acts import Round

_TROUBLE = re.compile(r"^Traceback|unexpected error", re.MULTILINE)


def breaches(round_: Round, since: float, *, harmless: bool, log_before: int) -> Iterator[str]:
    """`log_before`: length of the agent's log at the start of the round."""
    for job in round_.solvers:
        yield from _solver(round_, job, harmless=harmless)
    for job in round_.culprits:
        fields = round_.stage.end(job)
        if fields["JobState"] not in ("FAILED",) and harmless:
            yield f"culprit {job.number} is {fields['JobState']}: {_end(round_, job)}"
        if fields["Restarts"] != "0":
            yield f"culprit {job.number} was requeued"
    for job in round_.others:
        fields = round_.stage.end(job)
        if job.number not in round_.cancelled and fields["JobState"] != "COMPLETED":
            yield f"job {job.number} without --mps is {fields['JobState']}"
    mps = [job.number for job in (*round_.solvers, *round_.culprits)]
    try:
        yield from (f"left behind: {item}" for item in round_.stage.clean(mps, since))
    except SandboxError as error:
        yield str(error)
    yield from _journal(round_, since)
    log = round_.stage.sandbox.read(f"/var/log/slurm/agent.{NODE}.log")[log_before:]
    if found := _TROUBLE.search(log):
        yield f"the agent's log: {log[found.start() : found.start() + 2000]}"
    drained = round_.stage.sandbox.good(["sinfo", "-h", "-N", "-o", "%T %E"]).strip()
    if drained.split()[0] not in ("idle", "mixed", "allocated", "completing"):
        yield f"the node is {drained}"


def _end(round_: Round, job: Job) -> str:
    return f"its output ends: {round_.stage.output(job)[-1500:]}"


def _solver(round_: Round, job: Job, *, harmless: bool) -> Iterator[str]:
    fields = round_.stage.end(job, timeout=180)
    state, restarts = fields["JobState"], int(fields["Restarts"])
    if job.number in round_.cancelled:
        return
    if state != "COMPLETED":
        yield f"bystander {job.number} is {state}: {_end(round_, job)}"
    elif round_.stage.digest(job.stems[0]) != round_.stage.reference(plain=job.plain):
        yield f"bystander {job.number} ended with other bytes"
    if restarts and harmless:
        yield f"bystander {job.number} was requeued {restarts} times: {fields.get('AdminComment', '')}"


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
