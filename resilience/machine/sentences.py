"""The sentences of the recovery log and of AdminComment: who, how, what was done, how long it took. Pure."""

from collections.abc import Iterable

from resilience.model.ids import ServerId, TaskRef
from resilience.model.incident import Action, Case, Confidence, Incident, Outcome, Part
from resilience.model.lease import Isolation
from resilience.model.world import Pair

_DONE = {
    Action.PROMOTE: "recovered on standby",
    Action.RESTORE: "restored from kept state",
    Action.RELAUNCH: "relaunched",
    Action.QUARANTINE: "goes on in quarantine",
}
LEVELS = {
    Isolation.NONE: "none",
    Isolation.DOMAINS: "domains",
    Isolation.SM: "SM partitions",
    Isolation.GUARD: "guard",
}
_KEPT = "; isolated, no neighbour touched"
_TOLD = {
    Action.PROMOTE: "handed to its standby",
    Action.RESTORE: "restored from kept state",
    Action.RELAUNCH: "relaunched from the start",
    Action.QUARANTINE: "started again in quarantine",
    Action.REQUEUE: "to be requeued with its job",
    Action.FAIL: "failed",
    Action.NONE: "left alone",
}


def ref_words(ref: TaskRef) -> str:
    """`12.0.3`: job, step, task."""
    return f"{ref.job}.{ref.step}.{ref.task}"


def server_words(server: ServerId) -> str:
    """`u1001/g0/a`: domain, GPU, colour."""
    return f"{server.domain}/g{server.gpu}/{server.color}"


def blame(incident: Incident) -> str:
    """`by job 12 step 0 task 0`, `by one of 3 tasks` or `nobody's doing`."""
    attribution = incident.attribution
    if attribution is None or attribution.blameless:
        return "nobody's doing"
    if attribution.culprit is not None:
        return f"by {attribution.culprit}"
    if len(attribution.suspects) == 1:
        return "by a task of this server"
    return f"by one of {len(attribution.suspects)} tasks" if attribution.suspects else "by nobody we know"


def level(pair: Pair) -> str:
    """What keeps faults from neighbours in a domain, in words."""
    also = ", SM partitions" if pair.partitioned and pair.isolation is not Isolation.SM else ""
    return f"{LEVELS[pair.isolation]}{also}"


def opening(incident: Incident, job_tasks: Iterable[tuple[TaskRef, Part]], pair: Pair | None) -> str:
    """The recovery log's first line of an incident, for one job."""
    attribution = incident.attribution
    why = f" ({attribution.why[0]})" if attribution and attribution.why else ""
    parts = ", ".join(f"{ref.in_job()} {part.value}" for ref, part in sorted(job_tasks))
    sure = attribution.confidence.value if attribution and attribution.confidence is not Confidence.NONE else ""
    how = f" {sure}" if sure else ""
    kept = _KEPT if incident.isolated else ""
    where = f"; isolation: {level(pair)}" if pair else ""
    return (
        f"GPU fault on {incident.uuid}: {incident.fault.numbers()}, {blame(incident)}{how}{why}; {parts}{where}{kept}"
    )


def classified(incident: Incident) -> str:
    """The line that says what kind of fault it was, when that is known only after who did it."""
    return f"the GPU fault on {incident.uuid} was: {incident.fault.numbers()}"


def told(ref: TaskRef, action: Action, server: ServerId | None, reason: str) -> str:
    """What a task was told."""
    where = f" on server {server.color}" if server else ""
    return f"{ref.in_job()}: {_TOLD[action]}{where}" + (f": {reason}" if reason else "")


def recovered(ref: TaskRef, case: Case, seq: int) -> str:
    """The line that says that a task runs again."""
    doing = _DONE.get(case.action, "running again") if case.action else "running again"
    commit = f", goes on from commit {seq}" if seq >= 0 else ""
    return f"{ref.in_job()}: {doing} {case.ms:.1f} ms after the fault was seen{commit}"


def account(incident: Incident, cases: Iterable[Case], faults: int) -> str:
    """The job's one-line account: the worst outcome of its tasks, and the longest time."""
    cases = list(cases)
    head = f"{faults} fault{'s' if faults != 1 else ''}{', last' if faults > 1 else ''}"
    if any(case.part is Part.CULPRIT for case in cases):
        culprit = incident.attribution.culprit if incident.attribution else None
        head = "caused a fault"
        who = f" in {culprit.task.in_job()}" if culprit and culprit.task else ""
    else:
        who = f" {blame(incident)}"
    kept = _KEPT if incident.isolated else ""
    return f"mpsr: {head}{who} ({incident.fault.numbers()}) on {incident.uuid}: {_ending(cases)}{kept}"


def _ending(cases: list[Case]) -> str:
    by = {outcome: [case for case in cases if case.outcome is outcome] for outcome in Outcome}
    if failed := by[Outcome.FAILED]:
        return f"failed: {failed[0].reasons[-1]}" if failed[0].reasons else "failed"
    if by[Outcome.REQUEUED]:
        return "requeued"
    if done := by[Outcome.RECOVERED]:
        slowest = max(done, key=lambda case: case.ms)
        doing = _DONE.get(slowest.action, "recovered") if slowest.action else "recovered"
        many = f"{len(done)} tasks " if len(done) > 1 else ""
        return f"{many}{doing} in {slowest.ms:.1f} ms"
    return "ended before recovery" if by[Outcome.GONE] else "nothing done"
