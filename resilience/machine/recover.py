"""One task in one incident: up the ladder until it runs again, or has its final word.

A case begins when its task is hit and the incident is decided. It is told one thing at a time; what does not work
(`rung_failed`, a new process that ends, a timeout) moves it to the next rung, and no rung is tried twice in one
incident. Intents are journalled before the supervisor is told, outcomes when they are known.
"""

from dataclasses import replace

from resilience.machine import jobs, policy, servers, verdicts
from resilience.machine.draft import Turn
from resilience.model import effect as fx
from resilience.model import records as rec
from resilience.model.event import RungFailed, Stepped
from resilience.model.fault import FaultClass
from resilience.model.ids import Color, IncidentId, ServerId, TaskRef
from resilience.model.incident import Action, Case, Incident, Outcome, Part
from resilience.model.options import OnCulprit, Rung
from resilience.model.timer import RungDue
from resilience.model.world import SERVING, Health, Task

_LOOK = 1.0
"""Seconds between two looks at whether a task that is awaited is stopped."""
_MOVES = (Action.PROMOTE, Action.RESTORE, Action.RELAUNCH, Action.QUARANTINE)


def begin(turn: Turn, name: IncidentId, ref: TaskRef, part: Part) -> None:
    """Open a task's case and tell it the first thing."""
    task = turn.tasks[ref]
    before = turn.open_case(ref)
    if before is not None:
        if before[1].action is Action.REQUEUE:
            return
        turn.case(before[0].id, ref, outcome=Outcome.GONE, reasons=(*before[1].reasons, f"hit again: {name}"))
    incident = turn.incidents[name]
    jobs.count_fault(turn, incident, ref)
    _make_good(turn, ref)
    case = Case(part=part, outcome=Outcome.WAITING, target=incident.apart.get(ref))
    turn.incident(incident, cases={**incident.cases, ref: case})
    turn.task(ref, incident=name)
    if turn.observe:
        _observe(turn, name, task, part)
    elif part is Part.CULPRIT:
        _culprit(turn, name, ref)
    else:
        climb(turn, name, ref)


def _make_good(turn: Turn, ref: TaskRef) -> None:
    """Time that went well gives retries back."""
    task, window = turn.tasks[ref], turn.recovery.retries_window
    back = min(task.retries, int((turn.now.mono - task.retried) / window))
    turn.task(ref, retries=task.retries - back, retried=task.retried + back * window)


def _culprit(turn: Turn, name: IncidentId, ref: TaskRef) -> None:
    """The one that did it: fail, quarantine or requeue, as its job chose."""
    incident, task = turn.incidents[name], turn.tasks[ref]
    if incident.fault.kind is FaultClass.HANG and task.active and ref not in incident.hits:
        turn.act(
            fx.TerminateClient(ref=ref, server=incident.server, pid=task.active)
        )  # it gets an error, and ends by itself
    refusal = jobs.refusal(turn, ref.job)
    action, why = policy.culprit(task, refusal)
    did = f"this task caused the GPU fault ({incident.fault.numbers()})"
    if action is Action.QUARANTINE:
        turn.case(name, ref, target=servers.open_quarantine(turn, incident.server))
        resume(turn, name, ref)
    elif action is Action.REQUEUE:
        jobs.requeue(turn, name, ref, did)
    else:
        if task.options.on_culprit is OnCulprit.REQUEUE:
            jobs.note_refusal(turn, ref.job, refusal)
        verdicts.fail(turn, name, ref, f"{did}; {why}" if why else did)


def climb(turn: Turn, name: IncidentId, ref: TaskRef) -> None:
    """Tell the task the fastest rung that is open, or wait for a server that can take it."""
    incident, task = turn.incidents[name], turn.tasks[ref]
    case = incident.cases[ref]
    if case.part is Part.CULPRIT:
        verdicts.fail(
            turn, name, ref, f"this task caused the GPU fault ({incident.fault.numbers()}); quarantine did not work"
        )
        return
    target, possible = servers.target(turn, _near(incident, task), task, case.target)
    means = policy.Means(
        standby=_standby(turn, incident, task, case),
        server="" if possible else "no MPS server can be started",
        requeue=jobs.refusal(turn, ref.job) or jobs.own_fault(turn, incident, ref.job),
    )
    rung, reasons = policy.climb(task, means, case.tried, case.counted)
    if rung is None:
        if Rung.REQUEUE in task.options.recover:
            jobs.note_refusal(turn, ref.job, means.requeue)
        why = "; ".join((*case.reasons, *(reason for reason in reasons if not reason.endswith(": tried"))))
        verdicts.fail(turn, name, ref, f"GPU fault {jobs.blamed(incident)}: {why}")
    elif rung is Rung.REQUEUE:
        jobs.requeue(turn, name, ref, "; ".join((*case.reasons, *reasons)) or "no faster way is allowed")
    elif rung is Rung.STANDBY:
        tell(turn, name, ref, rung, Action.PROMOTE, task.standby_server)
    elif target is not None:
        tell(turn, name, ref, rung, policy.ACTIONS[rung], target)
    else:
        turn.case(name, ref, outcome=Outcome.WAITING)
        servers.hurry(turn, _near(incident, task))


def _near(incident: Incident, task: Task) -> ServerId:
    """The server that the task is to get away from: its own, when it is in the incident for its job's sake only."""
    same = (incident.server.domain, incident.server.gpu) == (task.server.domain, task.server.gpu)
    return incident.server if same else task.server


def resume(turn: Turn, name: IncidentId, ref: TaskRef) -> None:
    """A server came up, or cannot: go on with a case that waits."""
    case = turn.incidents[name].cases[ref]
    if case.outcome is not Outcome.WAITING:
        return
    if case.part is not Part.CULPRIT:
        if case.target is not None and turn.health(case.target) is Health.DOWN:
            turn.case(name, ref, target=None)
        climb(turn, name, ref)
        return
    health = turn.health(case.target) if case.target else Health.DOWN
    if health is Health.UP:
        rung = Rung.RESTORE if turn.tasks[ref].session else Rung.RELAUNCH
        tell(turn, name, ref, rung, Action.QUARANTINE, case.target)
    elif health is Health.DOWN:
        verdicts.fail(turn, name, ref, "this task caused the GPU fault; no server for its quarantine could be started")


def _standby(turn: Turn, incident: Incident, task: Task, case: Case) -> str:
    """Why the task's standby cannot take over, empty when it can."""
    if case.target is not None and case.target != task.standby_server:
        return "kept apart from other tasks"
    if not task.ready or task.standby_server is None:
        return "none ready"
    if task.standby_server == incident.server or turn.health(task.standby_server) not in SERVING:
        return "its server is hit"
    return ""


def tell(turn: Turn, name: IncidentId, ref: TaskRef, rung: Rung, action: Action, server: ServerId | None) -> None:
    """Send a verdict that moves the task, and keep the books: retries, where it runs now, when it must have worked."""
    task = turn.tasks[ref]
    case = turn.incidents[name].cases[ref]
    steps = action in (Action.PROMOTE, Action.RESTORE) or (action is Action.QUARANTINE and task.session)
    noticed = action is not Action.PROMOTE or bool(task.asking or task.reported)
    turn.case(
        name,
        ref,
        outcome=Outcome.TOLD,
        action=action,
        tried=(*case.tried, rung),
        told_at=turn.now.mono,
        due=0.0,
        steps=steps,
        counted=True,
    )
    verdicts.send(turn, name, ref, action, server, "")
    changes: dict[str, object] = {
        "server": server,
        "asking": 0,
        "reported": 0,
        "retries": task.retries + (not case.counted),
        "retried": turn.now.mono,
    }
    if action is Action.PROMOTE:
        changes |= {"active": task.standby}
    else:
        changes |= {"active": 0, "session": False}
    given_up = task.standby_server == server and action is not Action.PROMOTE
    if action is Action.PROMOTE or given_up:
        changes |= {"standby": 0, "standby_server": None, "ready": False}
    turn.leave(ref, task.active, task.reported, task.standby if given_up else 0)
    turn.task(ref, **changes)
    if noticed:
        _set_due(turn, name, ref)


def noticed(turn: Turn, ref: TaskRef) -> None:
    """The old process of a task that was told to promote has met the fault: from now on the clock runs."""
    found = turn.open_case(ref)
    if found is not None and found[1].outcome is Outcome.TOLD and not found[1].due:
        _set_due(turn, found[0].id, ref)


def _set_due(turn: Turn, name: IncidentId, ref: TaskRef) -> None:
    after = turn.recovery.restore_timeout
    if not turn.incidents[name].cases[ref].steps:
        after += turn.recovery.grace
    turn.case(name, ref, due=turn.now.mono + after, looked=turn.now.mono)
    turn.timer(RungDue(name, ref), after=min(after, _LOOK))


def requeue_refused(turn: Turn, name: IncidentId, ref: TaskRef, reason: str) -> None:
    """Slurm does not take the job back: who has another way left takes it, the others fail."""
    incident = turn.incidents[name]
    case = turn.case(name, ref, outcome=Outcome.WAITING, reasons=(*incident.cases[ref].reasons, reason))
    if case.part is Part.CULPRIT or incident.fault.device.out_of_use:
        verdicts.fail(turn, name, ref, reason)
    else:
        climb(turn, name, ref)


def give_up(turn: Turn, name: IncidentId, ref: TaskRef) -> None:
    """The GPU is out of use: requeue or fail, whatever was going on."""
    incident, task = turn.incidents[name], turn.tasks.get(ref)
    if task is None or task.over:
        return
    case = incident.cases.get(ref)
    if case is None:
        if task.server != incident.server:
            return
        jobs.count_fault(turn, incident, ref)
        incident = turn.incidents[name]
    elif case.action is Action.REQUEUE or case.outcome in (Outcome.FAILED, Outcome.GONE):
        return
    case = replace(case, outcome=Outcome.WAITING) if case else Case(part=Part.BYSTANDER, outcome=Outcome.WAITING)
    before = turn.open_case(ref)
    if before is not None and before[0].id != name:
        turn.case(before[0].id, ref, outcome=Outcome.GONE, reasons=(*before[1].reasons, f"hit again: {name}"))
    turn.incident(turn.incidents[name], cases={**turn.incidents[name].cases, ref: case})
    turn.task(ref, incident=name)
    words = f"{incident.fault.numbers()}: the GPU is out of use"
    if turn.observe:
        _observe(turn, name, task, case.part)
    elif (why := jobs.refusal(turn, ref.job)) or Rung.REQUEUE not in task.options.recover:
        if Rung.REQUEUE in task.options.recover:
            jobs.note_refusal(turn, ref.job, why)
        verdicts.fail(turn, name, ref, f"{words}; cannot be requeued: {why or 'not in --mps-recover'}")
    else:
        jobs.requeue(turn, name, ref, words, exclude=True)


def _observe(turn: Turn, name: IncidentId, task: Task, part: Part) -> None:
    """Only say what would be done; whoever asked is told that nothing is."""
    incident = turn.incidents[name]
    case = incident.cases[task.ref]
    target, possible = servers.target(turn, _near(incident, task), task, None)
    means = policy.Means(
        standby=_standby(turn, incident, task, case),
        server="" if target or possible else "no MPS server can be started",
        requeue=jobs.refusal(turn, task.ref.job) or jobs.own_fault(turn, incident, task.ref.job),
    )
    rung, reasons = policy.climb(task, means, (), False)
    action = policy.ACTIONS[rung] if rung else Action.FAIL
    if part is Part.CULPRIT:
        action, _ = policy.culprit(task, means.requeue)
    if incident.fault.device.out_of_use:
        action = Action.FAIL if means.requeue else Action.REQUEUE
    record = rec.Verdict(
        dry_run=True,
        incident=name,
        task=task.ref,
        action=action,
        part=part,
        reason="; ".join(reasons),
        ms=verdicts.since(turn, name),
    )
    turn.journal(record)
    turn.job_line(task.ref.job, record)
    turn.case(name, task.ref, outcome=Outcome.PASSED, action=Action.NONE)
    if task.asking or task.reported:
        turn.do(
            fx.Verdict(ref=task.ref, incident=name, action=Action.NONE, part=part, server=None, reason="observing only")
        )
    turn.task(task.ref, asking=0, reported=0, over=bool(task.asking))


# ---------------------------------------------------------------- outcomes
def stepped(turn: Turn, event: Stepped) -> None:
    """First step after a recovery."""
    found = turn.open_case(event.ref)
    if found is None or found[0].id != event.incident or found[1].action not in _MOVES:
        return
    incident, case = found
    done = event.at if case.told_at <= event.at <= turn.now.mono else turn.now.mono  # a program may say anything
    _recovered(turn, incident, event.ref, seq=event.seq, own_ms=event.ms, done=done)


def started_again(turn: Turn, ref: TaskRef, color: Color) -> None:
    """A new active process of a task whose recovery ends with just that."""
    found = turn.open_case(ref)
    if turn.tasks[ref].server.color != color:
        return
    if found is not None and found[1].outcome is Outcome.TOLD and not found[1].steps and found[1].action in _MOVES:
        _recovered(turn, found[0], ref, seq=-1, own_ms=0.0, done=turn.now.mono)


def _recovered(turn: Turn, incident: Incident, ref: TaskRef, *, seq: int, own_ms: float, done: float) -> None:
    case = turn.case(incident.id, ref, outcome=Outcome.RECOVERED, ms=round((done - incident.opened) * 1000, 3))
    record = rec.Recovered(
        incident=incident.id,
        task=ref,
        action=case.action or "",
        seq=seq,
        ms=case.ms,
        done_mono=round(done, 6),
        supervisor_ms=own_ms,
    )
    turn.journal(record)
    turn.job_line(ref.job, record)
    if case.action is Action.PROMOTE:
        servers.offer_any_standby(turn, turn.tasks[ref])


def rung_failed(turn: Turn, event: RungFailed) -> None:
    """The supervisor says that what it was told did not work."""
    found = turn.open_case(event.ref)
    if found is None or found[0].id != event.incident or found[1].outcome is not Outcome.TOLD:
        return
    if found[1].action is Action.REQUEUE:
        jobs.spilled(turn, event.ref)
        return
    next_rung(turn, event.ref, event.reason)


def look(turn: Turn, due: RungDue) -> None:
    """Time passes for a rung; a timer of an earlier one does nothing. Whether it counts is to be seen first."""
    if _awaited(turn, due) is not None:
        turn.look(due, refs=(due.ref,))


def looked(turn: Turn, due: RungDue, *, stopped: bool) -> None:
    """A task that is stopped is not hung: its time goes on when it does."""
    case, now = _awaited(turn, due), turn.now.mono
    if case is None:
        return
    if stopped and not case.stood:
        record = rec.TaskStopped(incident=due.incident, task=due.ref)
        turn.journal(record)
        turn.job_line(due.ref.job, record)
    if not stopped and now >= case.due:
        next_rung(turn, due.ref, f"no answer in {now - case.told_at:.1f} s")
        return
    until = case.due + (now - case.looked if stopped else 0.0)
    turn.case(due.incident, due.ref, due=until, looked=now, stood=case.stood or stopped)
    turn.timer(due, after=min(until - now, _LOOK))


def _awaited(turn: Turn, due: RungDue) -> Case | None:
    """The case, when it was told something that must have worked by some time."""
    found = turn.open_case(due.ref)
    if found is None or found[0].id != due.incident or found[1].outcome is not Outcome.TOLD or not found[1].due:
        return None
    return found[1]


def next_rung(turn: Turn, ref: TaskRef, reason: str) -> None:
    """What the task was told did not work."""
    found = turn.open_case(ref)
    if found is None or found[1].outcome is not Outcome.TOLD or found[1].action is Action.REQUEUE:
        return
    incident, case = found
    rung = case.tried[-1].value if case.tried else "?"
    record = rec.RecoveryFailed(incident=incident.id, task=ref, rung=rung, reason=reason)
    turn.journal(record)
    turn.job_line(ref.job, record)
    turn.case(incident.id, ref, outcome=Outcome.WAITING, reasons=(*case.reasons, f"{rung}: {reason}"))
    climb(turn, incident.id, ref)


def begin_anew(turn: Turn, ref: TaskRef, *, resumed: bool) -> None:
    """A supervisor says hello under a name that is known. One that came back may be told again what it had not done;
    another task of that name (a requeued job) has nothing to do with what happened to the first."""
    for incident in list(turn.incidents.values()):
        case = incident.cases.get(ref)
        again = (Outcome.WAITING, Outcome.TOLD, Outcome.GONE)
        if resumed and case is not None and case.outcome in again:
            rest = {other: kept for other, kept in incident.cases.items() if other != ref}
            turn.incident(incident, cases=rest)
        elif not resumed and ref in incident.clients and (case is None or not case.outcome.settled):
            over = Case(part=Part.UNKNOWN, outcome=Outcome.GONE, reasons=("another task has its name",))
            turn.incident(incident, cases={**incident.cases, ref: over})


def dismiss(turn: Turn, ref: TaskRef, reason: str) -> None:
    """The task has ended: nothing is left to do in its case."""
    if found := turn.open_case(ref):
        turn.case(found[0].id, ref, outcome=Outcome.GONE, reasons=(*found[1].reasons, reason))
