"""What users and Slurm read of a record: a line of the recovery log, the AdminComment, the reason of a drain. Pure."""

from dataclasses import replace

from resilience.model.ids import JobId
from resilience.model.incident import Action, Confidence, Outcome
from resilience.model.observation import Client
from resilience.model.records.base import Record
from resilience.model.records.incidents import (
    IncidentAttributed,
    IncidentClassified,
    JobAccounted,
    Recovered,
    RecoveryFailed,
    Verdict,
)
from resilience.model.records.slurm import SlurmIntent, SlurmOutcome
from resilience.model.records.tasks import ProcessUnattached, StrikeGiven, StrikesApplied, TaskStopped

_DONE: dict[str, str] = {
    Action.PROMOTE: "recovered on standby",
    Action.RESTORE: "restored from kept state",
    Action.RELAUNCH: "relaunched",
    Action.QUARANTINE: "goes on in quarantine",
}
_TOLD: dict[str, str] = {
    Action.PROMOTE: "handed to its standby",
    Action.RESTORE: "restored from kept state",
    Action.RELAUNCH: "relaunched from the start",
    Action.QUARANTINE: "started again in quarantine",
    Action.REQUEUE: "to be requeued with its job",
    Action.FAIL: "failed",
    Action.NONE: "left alone",
}
_KEPT = "; isolated, no neighbour touched"


def log_line(record: Record, job: JobId) -> str:
    """The record as a job's recovery log has it, without time, node and incident; empty when it has no line there."""
    match record:
        case IncidentAttributed():
            return _attributed(record, job)
        case IncidentClassified():
            return f"the GPU fault on {record.gpu} was: {record.words}"
        case Verdict():
            where = f" on server {record.server.color}" if record.server else ""
            reason = f": {record.reason}" if record.reason and not record.dry_run else ""
            does = _TOLD.get(record.action, record.action)
            text = f"{record.task.in_job() if record.task else 'a task'}: {does}{where}{reason}"
            return f"observing only; would be: {text}" if record.dry_run else text
        case Recovered():
            who = record.task.in_job() if record.task else "a task"
            commit = f", goes on from commit {record.seq}" if record.seq is not None and record.seq >= 0 else ""
            return f"{who}: {_DONE.get(record.action, 'running again')} {record.ms or 0:.1f} ms after the fault was seen{commit}"
        case RecoveryFailed():
            return f"{record.task.in_job() if record.task else 'a task'}: {record.rung} did not work: {record.reason}"
        case StrikeGiven():
            return f"{record.task.in_job() if record.task else 'a task'}: its program has caused {record.count} GPU faults here"
        case StrikesApplied():
            who = record.task.in_job() if record.task else "a task"
            return f"{who}: runs on a server of its own, for its program has caused {record.count} GPU faults here"
        case TaskStopped():
            return f"{record.task.in_job() if record.task else 'a task'}: is stopped (suspended?): its time goes on when it does"
        case ProcessUnattached():
            return record.sentence()
        case SlurmOutcome() if record.again:
            return f"requeue: {record.detail}: asking again"
        case SlurmOutcome():
            return "requeued" if record.ok else f"requeue refused: {record.detail}"
        case JobAccounted():
            return account(record)
        case _:
            return ""


def records_file(log: str) -> str:
    """Where a job's records lie, one JSON object a line as in the journal: beside its recovery log, for programs."""
    return f"{log.removesuffix('.log')}.jsonl"


def for_job(record: Record, job: JobId) -> Record:
    """The record without what is about other jobs' tasks, for the records beside the job's output."""
    if not isinstance(record, IncidentAttributed):
        return record
    parts = {ref: part for ref, part in record.parts.items() if ref.job == job}
    return replace(record, parts=parts, suspects=tuple(ref for ref in record.suspects if ref.job == job))


def blame(culprit: Client | None, suspects: int, *, blameless: bool) -> str:
    """`by job 12 step 0 task 0`, `by one of 3 tasks` or `nobody's doing`."""
    if blameless:
        return "nobody's doing"
    if culprit is not None:
        return f"by {culprit}"
    if suspects == 1:
        return "by a task of this server"
    return f"by one of {suspects} tasks" if suspects else "by nobody we know"


def _attributed(record: IncidentAttributed, job: JobId) -> str:
    """The first line of an incident, for one job."""
    who = blame(record.culprit, len(record.suspects), blameless=bool(record.blameless))
    sure = "" if record.confidence in ("", Confidence.NONE) else f" {record.confidence}"
    why = f" ({record.why[0]})" if record.why else ""
    mine = sorted((ref, part) for ref, part in record.parts.items() if ref.job == job)
    parts = ", ".join(f"{ref.in_job()} {part}" for ref, part in mine)
    where = f"; isolation: {record.isolation}" if record.isolation else ""
    kept = _KEPT if record.isolated else ""
    return f"GPU fault on {record.gpu}: {record.words}, {who}{sure}{why}; {parts}{where}{kept}"


def account(record: JobAccounted) -> str:
    """The job's one-line account: the worst outcome of its tasks, and the longest time."""
    if not record.fault:  # it was another agent's, which has ended
        return _ending(record)
    if record.own:
        who = f" in {record.culprit.task.in_job()}" if record.culprit and record.culprit.task else ""
        head = f"caused a fault{who}"
    else:
        many = f"{record.faults} fault{'s' if record.faults != 1 else ''}{', last' if record.faults > 1 else ''}"
        head = f"{many} {blame(record.culprit, record.suspects, blameless=record.blameless)}"
    kept = _KEPT if record.isolated else ""
    beside = f"; {_not_recovered(record)}" if record.outside and record.outcome != Outcome.PASSED else ""
    return f"{head} ({record.fault}) on {record.gpu}: {_ending(record)}{beside}{kept}"


def _not_recovered(record: JobAccounted) -> str:
    many = "process" if len(record.outside) == 1 else "processes"
    return f"{many} {', '.join(map(str, record.outside))} not recovered: no supervisor (start it with srun or mpsr run)"


def _ending(record: JobAccounted) -> str:
    match record.outcome:
        case Outcome.FAILED:
            return f"failed: {record.reason}" if record.reason else "failed"
        case Outcome.REQUEUED:
            return "requeued"
        case Outcome.RECOVERED:
            many = f"{record.tasks} tasks " if record.tasks > 1 else ""
            return f"{many}{_DONE.get(record.action, 'recovered')} in {record.ms or 0:.1f} ms"
        case Outcome.GONE:
            return "ended before recovery"
        case Outcome.PASSED if record.outside:
            return f"{_not_recovered(record)}; {record.reason}" if record.reason else _not_recovered(record)
        case _:
            return "nothing done"


def admin_comment(record: JobAccounted) -> str:
    """What sacct and scontrol show of the job."""
    return f"mpsr: {account(record)} {_mark(record)}"


def _mark(record: Record) -> str:
    """Ends our words in an AdminComment, which may hold others' as well (adapters/slurm/account_text.py)."""
    return f"(incident {record.incident or 'unknown'})"


def requeue_comment(record: SlurmIntent) -> str:
    """The AdminComment that goes with a requeue."""
    if not record.fault:
        return f"mpsr: requeued after a fault: {record.reason} {_mark(record)}"
    who = blame(record.culprit, record.suspects, blameless=record.blameless)
    return f"mpsr: requeued after a fault {who} ({record.fault}) on {record.gpu}: {record.reason} {_mark(record)}"


def drain_reason(record: SlurmIntent) -> str:
    """The reason of a drained node: begins with `mpsr:`, for whoever looks for ours."""
    return f"mpsr: {record.gpu}: {record.fault}: {record.reason}"
