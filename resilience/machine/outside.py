"""Processes of a job that no supervisor has: plain commands of its batch script, what mpirun or ssh has started.

Their job has its servers from its lease on, so they are known by job as soon as they connect. Nothing can be done for
such a process itself. When the fault of another hits it, its job is requeued if its options and Slurm allow that and no task of the
job runs here; otherwise the job is told. One that caused a fault is named. Each job is told once an incident.
"""

from dataclasses import replace

from resilience.machine import jobs, servers
from resilience.machine.draft import Turn
from resilience.model import effect as fx
from resilience.model import records as rec
from resilience.model.event import ClientLeft, JobClosed, JobOpened
from resilience.model.ids import DomainKey, JobId, ServerId
from resilience.model.incident import Incident, Outcome
from resilience.model.options import JobOptions, OnCulprit, Rung
from resilience.model.world import Job


def opened(turn: Turn, event: JobOpened) -> None:
    """A job has its lease: it is known from now on, with the servers that its processes may join."""
    lease = event.lease
    before = turn.jobs.get(lease.job)
    if before is None or before.requeue is not None:  # of its last run
        before = Job(job=lease.job, uid=lease.uid)
    turn.jobs[lease.job] = replace(before, lease=lease, held=True)
    for minor, color in event.active:
        servers.pair(turn, lease, ServerId(domain=lease.domain, gpu=minor, color=color))
    jobs.look_up(turn, lease.job)


def closed(turn: Turn, event: JobClosed) -> None:
    """Its lease is gone; what it is still to hear it hears."""
    if (job := turn.jobs.get(event.job)) is not None:
        turn.jobs[event.job] = replace(job, held=False)


def claimed(turn: Turn, domain: DomainKey, pid: int) -> None:
    """A process is a task's after all. A new agent reads in a server's log who is connected before supervisors are back."""
    for pair in list(turn.pairs.values()):
        if pair.domain == domain and pid in pair.strangers:
            servers.client_left(turn, ClientLeft(server=pair.server(pair.strangers[pid]), pid=pid))
    for incident in list(turn.incidents.values()):
        if incident.server.domain == domain and pid in incident.outside and not incident.decided:
            rest = {other: job for other, job in incident.outside.items() if other != pid}
            turn.incident(incident, outside=rest)


def on_server(turn: Turn, server: ServerId) -> dict[int, JobId]:
    """Clients of a server that are processes of a job without a supervisor."""
    pair = turn.pair_of(server)
    if pair is None:
        return {}
    return {pid: job for pid, job in pair.jobs.items() if pair.strangers.get(pid) == server.color}


def look(turn: Turn, incident: Incident) -> None:
    """Tell the jobs of such processes what became of them, once it is known who did it."""
    known = incident.attribution
    if known is None:
        return
    guilty = known.culprit.pid if known.culprit is not None and known.culprit.task is None else 0
    hit = incident.outside if incident.hit else {}
    for job in sorted({*hit.values(), *(of for pid, of in incident.outside.items() if pid == guilty)}):
        if job not in incident.told and job in turn.jobs:
            incident = turn.incident(incident, told=incident.told | {job})
            pids = tuple(sorted(pid for pid, of in incident.outside.items() if of == job))
            _settle(turn, incident, turn.jobs[job], pids, own=incident.outside.get(guilty) == job)


def _settle(turn: Turn, incident: Incident, job: Job, pids: tuple[int, ...], *, own: bool) -> None:
    if any(not task.over for task in turn.tasks_of(job.job)):
        _tell(turn, incident, job, pids, own=own, reason="other tasks of the job go on")
        return
    if not any(case.job == job.job for case in incident.cases):
        turn.jobs[job.job] = job = replace(job, faults=job.faults + 1)
    why = _closed(turn, job, own=own)
    if not why and turn.observe:
        turn.journal(rec.Verdict(dry_run=True, would=fx.AskRequeue.__name__, job=job.job))
        why = "observing only"
    if why:
        if not own:
            jobs.note_refusal(turn, job.job, why)
        _tell(turn, incident, job, pids, own=own, reason=why)
        return
    _tell(turn, incident, job, pids, own=own, reason="the job is requeued", comment=False)
    reason = f"{'process' if len(pids) == 1 else 'processes'} {', '.join(map(str, pids))} without a supervisor"
    jobs.requeue_untended(turn, incident, job.job, reason, exclude=incident.fault.device.out_of_use)


def _closed(turn: Turn, job: Job, *, own: bool) -> str:
    """Why the job is not requeued; empty when it is to be."""
    options = job.lease.options if job.lease else JobOptions()
    if own and options.on_culprit is not OnCulprit.REQUEUE:
        return "a culprit is not requeued"
    if not own and Rung.REQUEUE not in options.recover:
        return "requeue: not in --mps-recover"
    refusal = jobs.refusal(turn, job.job)
    return f"requeue: {refusal}" if refusal else ""


def _tell(
    turn: Turn, incident: Incident, job: Job, pids: tuple[int, ...], *, own: bool, reason: str, comment: bool = True
) -> None:
    record = rec.JobAccounted(
        **jobs.facts(incident),
        job=job.job,
        faults=max(job.faults, 1),
        own=own,
        isolated=incident.isolated,
        outcome=Outcome.PASSED,
        reason=reason,
        outside=pids,
    )
    turn.journal(record)
    turn.job_line(job.job, record)
    if comment:
        jobs.comment(turn, record)
