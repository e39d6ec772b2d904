"""What was asked of MPS daemons and of Slurm has been answered: those who waited for it go on.

A server that takes clients again is news for cases that wait for one, for tasks without a place and for standbys; one
that cannot be started is, too. A job that Slurm does not take back has its tasks look for another way, or fail.
"""

from dataclasses import replace

from resilience.machine import decide, incidents, jobs, recover, servers, tasks
from resilience.machine.draft import Turn
from resilience.model import effect as fx
from resilience.model import records as rec
from resilience.model.event import Ask, ServerOpened, ServerSeen, SlurmAnswered
from resilience.model.fault import Fault
from resilience.model.ids import JobId, ServerId
from resilience.model.incident import Action, Outcome
from resilience.model.observation import Source
from resilience.model.timer import RebuildDue, Unanswered
from resilience.model.world import Health, Job, Requeue, ServerState

_PROOF = 1.0
"""Seconds after which ACTIVE is believed without a trace of the rebuild: it took 1.1 s in NVIDIA's example."""
_EARLY = 0.001
"""Seconds by which a timer may be early for what a float can hold."""
_AGAIN = 60.0
"""Seconds until a server that could not be started is tried again."""


def server_seen(turn: Turn, event: ServerSeen) -> None:
    """The control daemon's answer. An answer to a question from before the fault proves nothing."""
    pair = turn.pair_of(event.server)
    known = pair.servers.get(event.server.color) if pair else None
    if known is None or event.sight is None:
        return
    known = turn.server(event.server, answered=max(known.answered, event.asked)) or known
    if known.health is Health.UP and event.sight is ServerState.FAULT:
        _in_fault(turn, event.server)
        known = turn.server(event.server) or known
    if known.health is Health.UP and event.sight is ServerState.ACTIVE:
        turn.server(event.server, active=max(known.active, event.asked))
        for incident in list(turn.incidents.values()):
            if incident.server == event.server and incident.slot and not incident.decided:
                decide.look(turn, incident.id)
    if known.health is not Health.FAULTED or event.asked < known.since:
        return
    match event.sight:
        case ServerState.FAULT:
            turn.server(event.server, fault_seen=True)
        case ServerState.ACTIVE:
            if known.fault_seen or known.recreated or event.asked - known.since >= _PROOF:
                _up(turn, event.server, rec.ServerRebuilt)
        case ServerState.ABSENT:
            servers.replace_now(turn, event.server)
        case ServerState.INITIALIZING:
            turn.server(event.server, fault_seen=True)


def _in_fault(turn: Turn, server: ServerId) -> None:
    """The control daemon says FAULT of a server that we held to be healthy."""
    incident = incidents.widen(turn, server, Fault(words="GPU fault"))
    failed = {task.ref for task in turn.tasks_on(server) if task.asking}
    incident = turn.incident(
        incident,
        hits=incident.hits | failed,
        clients=incident.clients | failed,
        sources=(*incident.sources, Source.CONTROL),
    )
    incidents.hit(turn, incident)
    decide.look(turn, incident.id)


def server_opened(turn: Turn, event: ServerOpened) -> None:
    """A server was started, or could not be."""
    pair = turn.pair_of(event.server)
    if pair is None or pair.health(event.server.color) not in (Health.REPLACING, Health.OPENING):
        if event.ok and event.server.color.startswith("q") and (pair is None or event.server.color not in pair.servers):
            turn.act(fx.Close(server=event.server))
        return
    if event.ok:
        turn.do(fx.Watch(server=event.server, uid=pair.uid))
        _up(turn, event.server, rec.ServerReplaced)
        return
    turn.journal(rec.ServerReplaced(server=event.server, ok=False, reason=event.detail))
    turn.server(event.server, health=Health.DOWN)
    if not servers.quarantine(pair, event.server.color):
        turn.timer(RebuildDue(event.server), after=_AGAIN)
    _go_on(turn, event.server)


def _up(turn: Turn, server: ServerId, how: type[rec.ServerRebuilt | rec.ServerReplaced]) -> None:
    """The server takes clients again: those who wait go on, and standbys come back."""
    pair = turn.pair_of(server)
    known = pair.servers.get(server.color) if pair else None
    if pair is None or known is None:
        return
    took = round((turn.now.mono - known.since) * 1000, 1)
    turn.server(server, health=Health.UP)
    turn.journal(how(server=server, ms=took))
    if not servers.quarantine(pair, server.color):
        servers.swap(turn, server)
    _go_on(turn, server)
    if not servers.quarantine(pair, server.color):
        servers.offer_standbys(turn, server)


def _go_on(turn: Turn, server: ServerId) -> None:
    """Whatever waits for a server of this pair looks again."""
    for incident in list(turn.incidents.values()):
        if (incident.server.domain, incident.server.gpu) != (server.domain, server.gpu):
            continue
        for ref in sorted(incident.cases):
            if turn.incidents[incident.id].cases[ref].outcome is Outcome.WAITING and ref in turn.tasks:
                recover.resume(turn, incident.id, ref)
    for task in list(turn.tasks.values()):
        if not task.placed and (task.server.domain, task.server.gpu) == (server.domain, server.gpu):
            tasks.place(turn, task.ref)


def answered(turn: Turn, event: SlurmAnswered) -> None:
    """Slurm's answer; a job that Slurm does not take back has its tasks fail."""
    job = turn.jobs.get(event.job) if event.job is not None else None
    awaited = event.ask is Ask.REQUEUE and job is not None and job.requeue is Requeue.ASKED
    again = awaited and job is not None and event.away and jobs.nobody_answered(turn, job, event.detail)
    outcome = rec.SlurmOutcome(ask=event.ask, job=event.job, ok=event.ok, detail=event.detail, again=again or None)
    turn.journal(outcome)
    if again and job is not None:
        turn.job_line(job.job, replace(outcome, incident=job.incident or ""))
    elif awaited and job is not None:
        _requeue_is_over(turn, job, outcome)


def unanswered(turn: Turn, job: JobId) -> None:
    """Slurm was asked for a requeue and has not answered at all."""
    known = turn.jobs.get(job)
    if known is None or known.requeue is not Requeue.ASKED:
        return
    left = known.asked + jobs.patience(turn) - turn.now.mono
    if left > _EARLY:  # it was suspended for a while
        turn.timer(Unanswered(job), after=left)
        return
    said = f" ({known.said})" if known.said else ""
    detail = f"no answer in {turn.now.mono - known.asked:.0f} s{said}"
    outcome = rec.SlurmOutcome(ask=Ask.REQUEUE, job=job, ok=False, detail=detail)
    turn.journal(outcome)
    _requeue_is_over(turn, known, outcome)


def _requeue_is_over(turn: Turn, job: Job, outcome: rec.SlurmOutcome) -> None:
    refusal = "" if outcome.ok else f"Slurm: {outcome.detail}"
    turn.jobs[job.job] = replace(job, requeue=Requeue.TAKEN if outcome.ok else Requeue.REFUSED, refusal=refusal)
    turn.job_line(job.job, replace(outcome, incident=job.incident or ""))
    failed = f"Slurm did not requeue the job: {outcome.detail}"
    for task in turn.tasks_of(job.job):
        found = turn.open_case(task.ref)
        if found is not None and found[1].action is Action.REQUEUE:
            if outcome.ok:
                turn.case(found[0].id, task.ref, outcome=Outcome.REQUEUED)
            else:
                recover.requeue_refused(turn, found[0].id, task.ref, failed)
        elif found is None and task.ref in job.parked and not outcome.ok and not task.over:
            jobs.fail(turn, task.ref, failed)
