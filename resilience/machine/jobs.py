"""What Slurm is asked: one requeue per job, a drain for a broken device, the one-line account; limited by the breaker.

A requeue takes in all tasks of the job on this node: each is told to spill what it keeps, and Slurm is asked when all
have answered or the bound has passed; time in which one of them is stopped does not count for it. As long as nobody
answers Slurm is asked again, for `requeue_timeout`. If it does not take the job back its tasks fail with Slurm's reason.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from resilience.machine import verdicts
from resilience.machine.draft import Turn
from resilience.machine.history import may_drain, may_requeue, with_drain, with_requeue
from resilience.model import effect as fx
from resilience.model import records as rec
from resilience.model.event import Ask, JobKnown
from resilience.model.fault import Fault
from resilience.model.ids import GpuUuid, IncidentId, JobId, TaskRef
from resilience.model.incident import Action, Incident, Outcome, Part
from resilience.model.options import OnCulprit
from resilience.model.records.told import blame
from resilience.model.timer import LookUpAgain, RequeueAgain, SpillDue, Unanswered
from resilience.model.world import Job, Requeue

_LOOK = 1.0
"""Seconds between two looks at whether a task that spills is stopped."""
_AGAIN = 1.0
"""Seconds until a Slurm that did not answer is asked again."""
_UNANSWERED = 1.25
"""Share of `requeue_timeout` after which an answer is not waited for any more. Supervisors wait twice `requeue_timeout`
from their own spill on; with the spills of a job's other tasks this comes before."""
_LOOK_UP_AGAIN = 20.0
"""Seconds after which a job that Slurm has said nothing of is asked for again: longer than a call may take."""
_BUSY = (Requeue.SPILLING, Requeue.ASKED, Requeue.TAKEN)
_SPILL_SHARE = 0.5
"""Share of `requeue_timeout` that spilling may take: the rest is for Slurm itself."""


def refusal(turn: Turn, job: JobId) -> str:
    """Why this job cannot be requeued; empty when it can, as far as we know."""
    known = turn.jobs.get(job)
    if known is None:
        return "unknown job"
    if known.requeue in _BUSY:
        return ""
    if known.requeue is Requeue.REFUSED:
        return known.refusal
    if known.batch is False:
        return "not a batch job"
    if known.requeueable is False:
        return known.refusal or "Slurm shows it with Requeue=0"
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
        turn.journal(rec.BreakerOpen(what=Ask.REQUEUE, limit=limit, job=job, reason=why))


def own_fault(turn: Turn, incident: Incident, job: JobId) -> str:
    """Why this incident is no reason to requeue the job: it would only bring its culprit back. Empty when it is one."""
    culprits = [ref for ref, part in incident.parts.items() if ref.job == job and part is Part.CULPRIT]
    if not culprits or turn.jobs[job].requeue in _BUSY:
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
    if job.requeue in _BUSY:
        verdicts.ask_to_spill(turn, name, ref, Part.UNKNOWN, reason)
        job = replace(job, parked=job.parked | {ref})
        turn.jobs[ref.job] = job
        if job.requeue is Requeue.SPILLING:
            turn.jobs[ref.job] = replace(job, spilling=job.spilling | {ref}, exclude=job.exclude or exclude)
        elif job.requeue is Requeue.TAKEN:
            turn.case(name, ref, outcome=Outcome.REQUEUED)
        return
    incident = turn.incidents[name]
    mates = [task.ref for task in turn.tasks_of(ref.job) if not task.over]
    turn.jobs[ref.job] = replace(
        job,
        requeue=Requeue.SPILLING,
        incident=name,
        intent=replace(_intent(job, reason), **facts(incident)),
        exclude=exclude,
    )
    _spill(turn, ref.job, mates)
    for mate in sorted(mates):
        part = incident.parts.get(mate, Part.UNKNOWN)
        verdicts.ask_to_spill(
            turn, name, mate, part, reason if mate == ref else "another task of this job cannot go on"
        )


def requeue_untended(turn: Turn, incident: Incident, job: JobId, reason: str, *, exclude: bool) -> None:
    """Have a job requeued that has no task here: there is nothing to spill. `refusal` has said yes."""
    known = turn.jobs[job]
    if known.requeue not in _BUSY:
        intent = replace(_intent(known, reason), **facts(incident))
        _ask(turn, replace(known, incident=incident.id, intent=intent, exclude=exclude, untended=True))


def _spill(turn: Turn, job: JobId, refs: Iterable[TaskRef]) -> None:
    """Wait for these tasks to spill."""
    most, refs = turn.recovery.requeue_timeout * _SPILL_SHARE, frozenset(refs)
    turn.jobs[job] = replace(
        turn.jobs[job], spilling=refs, parked=refs, spill_due=turn.now.mono + most, looked=turn.now.mono
    )
    turn.timer(SpillDue(job), after=min(most, _LOOK))


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
        intent=_intent(job, reason),
    )
    _spill(turn, ref.job, [ref, *mates])
    for mate in sorted(mates):
        _send(turn, mate, Action.REQUEUE, reason)
    spilled(turn, ref)


def _send(turn: Turn, ref: TaskRef, action: Action, reason: str) -> None:
    """A verdict outside of any incident that we know."""
    record = rec.Verdict(task=ref, action=action, part=Part.UNKNOWN, reason=reason)
    turn.journal(record)
    verdict = fx.Verdict(ref=ref, incident=IncidentId(""), action=action, part=Part.UNKNOWN, server=None, reason=reason)
    turn.do(verdict)
    turn.job_line(ref.job, record)


def fail(turn: Turn, ref: TaskRef, reason: str) -> None:
    _send(turn, ref, Action.FAIL, reason)
    comment(turn, rec.JobAccounted(job=ref.job, outcome=Outcome.FAILED, reason=reason))
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


def leaving(turn: Turn, ref: TaskRef) -> bool:
    """Whether the task ends by its job's requeue, or has to hear that nothing came of it."""
    job = turn.jobs.get(ref.job)
    return job is not None and job.requeue in _BUSY and ref in job.parked


def look(turn: Turn, due: SpillDue) -> None:
    """Time passes for those that spill; whether it counts is to be seen first."""
    known = turn.jobs.get(due.job)
    if known is not None and known.requeue is Requeue.SPILLING:
        turn.look(due, refs=known.spilling)


def looked(turn: Turn, due: SpillDue, *, stopped: bool) -> None:
    """Spilling took too long: the job goes with what is on disk. A task that is stopped is waited for."""
    known, now = turn.jobs.get(due.job), turn.now.mono
    if known is None or known.requeue is not Requeue.SPILLING:
        return
    if not stopped and now >= known.spill_due:
        _ask(turn, known)
        return
    until = known.spill_due + (now - known.looked if stopped else 0.0)
    turn.jobs[known.job] = replace(known, spill_due=until, looked=now)
    turn.timer(due, after=min(until - now, _LOOK))


def _ask(turn: Turn, job: Job) -> None:
    job = replace(job, requeue=Requeue.ASKED, spilling=frozenset(), asked=turn.now.mono, looked=turn.now.mono)
    turn.jobs[job.job] = job
    turn.history = with_requeue(turn.history, job.uid, turn.now.mono)
    turn.timer(Unanswered(job.job), after=patience(turn))
    _send_off(turn, job, uid=job.uid)


def _send_off(turn: Turn, job: Job, uid: int | None) -> None:
    """`uid`: whose requeue is counted, also by the next agent (history.recalled); once for one."""
    intent = replace(job.intent or _intent(job, ""), uid=uid)
    turn.journal(intent)
    until = job.asked + turn.recovery.requeue_timeout
    turn.act(fx.AskRequeue(job=job.job, intent=intent, exclude=job.exclude, until=until))


def nobody_answered(turn: Turn, job: Job, said: str) -> bool:
    """Slurm is away: ask again soon, as long as there is time. False: there is none left."""
    if turn.now.mono + _AGAIN - job.asked >= turn.recovery.requeue_timeout:
        return False
    turn.jobs[job.job] = replace(job, said=said)
    turn.timer(RequeueAgain(job.job), after=_AGAIN)
    return True


def look_again(turn: Turn, again: RequeueAgain) -> None:
    """A requeue that nobody answered: whether its time counts is to be seen first."""
    known = turn.jobs.get(again.job)
    if known is not None and known.requeue is Requeue.ASKED:
        turn.look(again, refs=known.parked)


def ask_again(turn: Turn, again: RequeueAgain, *, stopped: bool) -> None:
    """Not while it is suspended, and not for a job that has tasks anew: that was taken back after all."""
    known, now = turn.jobs.get(again.job), turn.now.mono
    if known is None or known.requeue is not Requeue.ASKED:
        return
    known = replace(known, asked=known.asked + (now - known.looked if stopped else 0.0), looked=now)
    turn.jobs[known.job] = known
    if stopped:
        turn.timer(again, after=_AGAIN)
    else:
        _send_off(turn, known, uid=None)


def patience(turn: Turn) -> float:
    """Seconds that an answer about a requeue is waited for."""
    return turn.recovery.requeue_timeout * _UNANSWERED


def look_up(turn: Turn, job: JobId) -> None:
    """Ask what Slurm says of a job, until it has said something: it may be away."""
    known = turn.jobs.get(job)
    if known is not None and known.batch is None:
        turn.do(fx.LookUpJob(job=job))
        turn.timer(LookUpAgain(job), after=_LOOK_UP_AGAIN)


def _intent(job: Job, reason: str) -> rec.SlurmIntent:
    return rec.SlurmIntent(ask=Ask.REQUEUE, job=job.job, uid=job.uid, reason=reason)


def facts(incident: Incident) -> dict[str, Any]:
    """What a request to Slurm says of a fault."""
    attribution = incident.attribution
    return {
        "incident": incident.id,
        "gpu": incident.uuid,
        "fault": incident.fault.numbers(),
        "culprit": attribution.culprit if attribution else None,
        "suspects": len(attribution.suspects) if attribution else 0,
        "blameless": attribution is None or attribution.blameless,
    }


def blamed(incident: Incident) -> str:
    """Who did it, for people: `by job 12 step 0 task 0`."""
    known = incident.attribution
    if known is None:
        return blame(None, 0, blameless=True)
    return blame(known.culprit, len(known.suspects), blameless=known.blameless)


def drain(turn: Turn, gpu: GpuUuid, fault: Fault) -> None:
    """Take the node out of service, unless the breaker is open."""
    reason = "needs a reset"
    limit = turn.recovery.max_drains_per_hour
    if not may_drain(turn.history, limit, turn.now.mono):
        turn.journal(rec.BreakerOpen(what=Ask.DRAIN, limit=limit, reason=f"{gpu}: {fault.numbers()}: {reason}"))
        return
    intent = rec.SlurmIntent(ask=Ask.DRAIN, node=turn.node, gpu=gpu, fault=fault.numbers(), reason=reason)
    if turn.act(fx.AskDrain(intent=intent)):
        turn.history = with_drain(turn.history, turn.now.mono)
        turn.journal(intent)


def comment(turn: Turn, account: rec.JobAccounted) -> None:
    """Put the account where sacct and scontrol show it, unless it stands there."""
    known = turn.jobs.get(account.job) if account.job is not None else None
    if known is None or known.account == account:
        return
    turn.jobs[known.job] = replace(known, account=account)
    if turn.act(fx.AskComment(job=known.job, account=account)):
        turn.journal(rec.SlurmIntent(ask=Ask.COMMENT, job=known.job, uid=known.uid, incident=account.incident))


def known(turn: Turn, event: JobKnown) -> None:
    """What Slurm says of a job."""
    job = turn.jobs.get(event.job)
    if job is not None:
        turn.jobs[event.job] = replace(
            job, batch=event.batch, requeueable=event.requeueable, refusal=event.why or job.refusal
        )
