"""What Slurm is asked: one requeue per job, a drain for a broken device, the one-line account; limited by the breaker.

A requeue takes in all tasks of the job on this node: each is told to spill what it keeps, and Slurm is asked when all
have answered or the bound has passed. If Slurm does not take the job back its tasks fail with Slurm's reason.
"""

from dataclasses import replace

from resilience.machine import verdicts
from resilience.machine.draft import Turn
from resilience.machine.history import may_drain, may_requeue, with_drain, with_requeue
from resilience.machine.sentences import blame, ref_words, told
from resilience.model import effect as fx
from resilience.model.event import JobKnown
from resilience.model.ids import IncidentId, JobId, TaskRef
from resilience.model.incident import Action, Incident, Outcome, Part
from resilience.model.options import OnCulprit
from resilience.model.world import Job, Requeue

_SPILL_SHARE = 0.5
"""Share of `requeue_timeout` that spilling may take: the rest is for Slurm itself."""


def refusal(turn: Turn, job: JobId) -> str:
    """Why this job cannot be requeued; empty when it can, as far as we know."""
    known = turn.jobs.get(job)
    if known is None:
        return "unknown job"
    if known.requeue in (Requeue.SPILLING, Requeue.ASKED, Requeue.TAKEN):
        return ""
    if known.requeue is Requeue.REFUSED:
        return known.refusal
    if known.batch is False:
        return "not a batch job"
    if known.requeueable is False:
        return "submitted with --no-requeue"
    if not may_requeue(turn.history, turn.recovery.max_requeues_per_hour, known.uid, turn.now.mono):
        return _breaker(turn)
    return ""


def _breaker(turn: Turn) -> str:
    limit = turn.recovery.max_requeues_per_hour
    return f"breaker: {limit} requeues on this node in the last hour, or too many of them of one user"


def note_refusal(turn: Turn, job: JobId, why: str) -> None:
    """A task fails that a requeue would have saved: when it was the breaker, the journal says so."""
    if why == _breaker(turn):
        limit = turn.recovery.max_requeues_per_hour
        turn.journal("breaker.open", what="requeue", limit=limit, job=job, reason=why)


def own_fault(turn: Turn, incident: Incident, job: JobId) -> str:
    """Why this incident is no reason to requeue the job: it would only bring its culprit back. Empty when it is one."""
    culprits = [ref for ref, part in incident.parts.items() if ref.job == job and part is Part.CULPRIT]
    if not culprits or turn.jobs[job].requeue in (Requeue.SPILLING, Requeue.ASKED, Requeue.TAKEN):
        return ""
    if any(turn.tasks[ref].options.on_culprit is OnCulprit.REQUEUE for ref in culprits if ref in turn.tasks):
        return ""
    return f"step {culprits[0].step} task {culprits[0].task} of this job caused the fault"


def count_fault(turn: Turn, incident: Incident, ref: TaskRef) -> None:
    """One more fault in the life of the task's job, once per incident."""
    job = turn.jobs.get(ref.job)
    if job is not None and not any(other.job == ref.job for other in incident.cases):
        turn.jobs[ref.job] = replace(job, faults=job.faults + 1)


def requeue(turn: Turn, name: IncidentId, ref: TaskRef, reason: str, *, exclude: bool = False) -> None:
    """Have the whole job requeued: its tasks spill first. `refusal` has said yes."""
    job = turn.jobs[ref.job]
    if job.requeue in (Requeue.SPILLING, Requeue.ASKED, Requeue.TAKEN):
        verdicts.ask_to_spill(turn, name, ref, Part.UNKNOWN, reason)
        if job.requeue is Requeue.SPILLING:
            turn.jobs[ref.job] = replace(job, spilling=job.spilling | {ref}, exclude=job.exclude or exclude)
        elif job.requeue is Requeue.TAKEN:
            turn.case(name, ref, outcome=Outcome.REQUEUED)
        return
    incident = turn.incidents[name]
    comment = (
        f"mpsr: requeued after a fault {blame(incident)} ({incident.fault.numbers()}) on {incident.uuid}: {reason}"
    )
    mates = [task.ref for task in turn.tasks_of(ref.job) if not task.over]
    turn.jobs[ref.job] = replace(
        job,
        requeue=Requeue.SPILLING,
        incident=name,
        spilling=frozenset(mates),
        comment=comment,
        exclude=exclude,
    )
    for mate in sorted(mates):
        part = incident.parts.get(mate, Part.UNKNOWN)
        verdicts.ask_to_spill(
            turn, name, mate, part, reason if mate == ref else "another task of this job cannot go on"
        )
    turn.timer("spill", ref.job, after=turn.recovery.requeue_timeout * _SPILL_SHARE)


def spilled(turn: Turn, ref: TaskRef) -> None:
    """A task's kept state is on disk, or the task has gone: one less to wait for."""
    job = turn.jobs.get(ref.job)
    if job is None or job.requeue is not Requeue.SPILLING or ref not in job.spilling:
        return
    job = replace(job, spilling=job.spilling - {ref})
    turn.jobs[ref.job] = job
    if not job.spilling:
        _ask(turn, job)


def parked(turn: Turn, ref: TaskRef) -> None:
    """A task says that it has spilled and waits for Slurm. If we know of no requeue, an agent before us began it."""
    job, task = turn.jobs.get(ref.job), turn.tasks.get(ref)
    if job is None or task is None or task.over or not task.resumed or job.requeue is not None or turn.observe:
        spilled(turn, ref)
        return
    if why := refusal(turn, ref.job):
        note_refusal(turn, ref.job, why)
        fail(turn, ref, f"its requeue was begun, but is not possible any more: {why}")
        return
    mates = [task.ref for task in turn.tasks_of(ref.job) if not task.over and task.ref != ref]
    reason = "the agent that began this requeue has ended"
    turn.jobs[ref.job] = replace(
        job,
        requeue=Requeue.SPILLING,
        spilling=frozenset({ref, *mates}),
        comment=f"mpsr: requeued after a fault: {reason}",
    )
    for mate in sorted(mates):
        _send(turn, mate, Action.REQUEUE, reason)
    turn.timer("spill", ref.job, after=turn.recovery.requeue_timeout * _SPILL_SHARE)
    spilled(turn, ref)


def _send(turn: Turn, ref: TaskRef, action: Action, reason: str) -> None:
    """A verdict outside of any incident that we know."""
    turn.journal("verdict", task=ref_words(ref), action=action.value, part=Part.UNKNOWN.value, reason=reason)
    verdict = fx.Verdict(ref=ref, incident=IncidentId(""), action=action, part=Part.UNKNOWN, server=None, reason=reason)
    turn.do(verdict)
    turn.job_line(ref.job, told(ref, action, None, reason))


def fail(turn: Turn, ref: TaskRef, reason: str) -> None:
    _send(turn, ref, Action.FAIL, reason)
    turn.task(ref, over=True, asking=0, reported=0)


def taken_back(turn: Turn, ref: TaskRef) -> bool:
    """A task that leaves after Slurm was asked: Slurm ends it to requeue its job, before it has answered."""
    job, found = turn.jobs.get(ref.job), turn.open_case(ref)
    if job is None or found is None or found[1].action is not Action.REQUEUE:
        return False
    if job.requeue not in (Requeue.ASKED, Requeue.TAKEN):
        return False
    turn.case(found[0].id, ref, outcome=Outcome.REQUEUED)
    return True


def spill_overdue(turn: Turn, job: object) -> None:
    """Spilling took too long: the job goes with what is on disk."""
    known = turn.jobs.get(JobId(job)) if isinstance(job, int) else None
    if known is not None and known.requeue is Requeue.SPILLING:
        _ask(turn, known)


def _ask(turn: Turn, job: Job) -> None:
    turn.jobs[job.job] = replace(job, requeue=Requeue.ASKED, spilling=frozenset())
    turn.history = with_requeue(turn.history, job.uid, turn.now.mono)
    turn.journal("slurm.intent", ask="requeue", job=job.job, uid=job.uid, incident=job.incident, comment=job.comment)
    turn.act(fx.AskRequeue(job=job.job, comment=job.comment, exclude=job.exclude))


def drain(turn: Turn, reason: str) -> None:
    """Take the node out of service, unless the breaker is open."""
    limit = turn.recovery.max_drains_per_hour
    if not may_drain(turn.history, limit, turn.now.mono):
        turn.journal("breaker.open", what="drain", limit=limit, reason=reason)
        return
    if turn.act(fx.AskDrain(reason=reason)):
        turn.history = with_drain(turn.history, turn.now.mono)
        turn.journal("slurm.intent", ask="drain", node=turn.node, reason=reason)


def comment(turn: Turn, job: JobId, text: str) -> None:
    """Put the account where sacct and scontrol show it, unless it stands there."""
    known = turn.jobs.get(job)
    if known is None or known.account == text:
        return
    turn.jobs[job] = replace(known, account=text)
    if turn.act(fx.AskComment(job=job, text=text)):
        turn.journal("slurm.intent", ask="comment", job=job, text=text)


def known(turn: Turn, event: JobKnown) -> None:
    """What Slurm says of a job."""
    job = turn.jobs.get(event.job)
    if job is not None:
        turn.jobs[event.job] = replace(job, batch=event.batch, requeueable=event.requeueable)
