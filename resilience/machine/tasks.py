"""What supervisors report: hello, processes that start and end, standbys that are ready.

A failing exit is not a fault by itself: it is one when its server is in an incident, or is seen in its fault state
within `settle_ms`; otherwise the task failed for reasons of its own and its status is passed on.
"""

from dataclasses import replace
from signal import SIGKILL

from resilience.contract import exit_code
from resilience.machine import incidents, jobs, outside, recover, servers, sightings, strikes
from resilience.machine.draft import Turn
from resilience.model import effect as fx
from resilience.model import records as rec
from resilience.model.event import Exited, Gone, Hello, OnServer, RanksKnown, Ready, Role, SessionOpened, Started
from resilience.model.fault import Fault, FaultClass
from resilience.model.ids import IncidentId, ServerId, TaskRef
from resilience.model.incident import Action, Incident, Outcome, Part
from resilience.model.observation import Client
from resilience.model.timer import Settle, StandbyAgain
from resilience.model.world import SERVING, Health, Job, Task

_REFUSED = exit_code("refused") << 8
"""Wait status of a session that could not join its server."""
_NO_DAEMON = Fault(kind=FaultClass.CONTROL_DAEMON, words="its control daemon had gone")
_PATIENCE = 20
"""Times `settle_ms` that a failed task waits for the control daemon's answer when the daemon is slow."""
_STANDBY_AGAIN = 1.0
"""Seconds before a standby that ended by itself is started again; doubled each time."""
_STANDBY_TIMES = 5
"""Then the program's standby is held to be broken, and the task does without."""


def hello(turn: Turn, event: Hello) -> None:
    """A supervisor reported in: take the task in, and say where it starts."""
    servers.pair(turn, event.lease, event.server)
    for dead in sorted(event.dead):
        servers.lost(turn, replace(event.server, color=dead))
    if not event.resumed:
        servers.missed(turn, event.server)
    pair = turn.pairs[event.server.domain, event.server.gpu]
    color = event.server.color
    if not event.resumed:
        color = pair.active
    elif color not in pair.servers:
        pair = servers.new_server(turn, pair, color)
        number = int(color[1:]) if color[:1] == "q" and color[1:].isdigit() else 0
        pair = turn.pair(pair, quarantines=max(pair.quarantines, number))
    if event.active:
        outside.claimed(turn, event.server.domain, event.active)
    recover.begin_anew(turn, event.ref, resumed=event.resumed)
    turn.tasks[event.ref] = Task(
        ref=event.ref,
        options=event.lease.options,
        mpi=event.mpi,
        server=pair.server(color),
        slot=event.lease.slot(event.server.gpu),
        placed=event.resumed,
        resumed=event.resumed,
        active=event.active,
        session=event.session,
        program=event.program,
        retries=event.retries,
        retried=turn.now.mono - event.retried,
    )
    if event.ref.job not in turn.jobs:
        turn.jobs[event.ref.job] = Job(job=event.ref.job, uid=event.lease.uid)
        jobs.look_up(turn, event.ref.job)
    turn.journal(rec.TaskHello(task=event.ref, server=pair.server(color), resumed=event.resumed, mpi=event.mpi))
    if event.resumed or not strikes.at_hello(turn, event.ref):
        place(turn, event.ref)


def place(turn: Turn, ref: TaskRef) -> None:
    """Answer a hello: a healthy server, or wait for one, or refuse when there will be none."""
    task = turn.tasks[ref]
    pair = turn.pairs[task.server.domain, task.server.gpu]
    server = task.server
    if not task.placed and servers.quarantine(pair, server.color):
        health = turn.health(server)
        if health is Health.OPENING:
            return
        if health is not Health.UP:
            turn.do(fx.Refuse(ref=ref, reason=f"no MPS server of its own on {','.join(pair.uuids)} can be started"))
            turn.task(ref, over=True)
            return
    elif not task.placed and turn.observe:
        server = pair.server(pair.active)
    elif not task.placed:
        order = sorted(pair.colors, key=lambda color: color != pair.active)
        color = next((color for color in order if pair.health(color) is Health.UP), None)
        if color is None and any(pair.health(color) not in (Health.DOWN, Health.CLOSED) for color in pair.colors):
            return
        if color is None:
            turn.do(fx.Refuse(ref=ref, reason=f"no MPS server on {','.join(pair.uuids)} can be started or joined"))
            turn.task(ref, over=True)
            return
        server = pair.server(color)
    standby = None
    if servers.wants_standby(task) and server.color in pair.colors:
        others = (color for color in pair.colors if color != server.color and pair.health(color) is Health.UP)
        standby = next((pair.server(color) for color in others), None)
    turn.task(ref, server=server, placed=True)
    turn.do(fx.Place(ref=ref, server=server, standby=standby, isolation=pair.isolation.value))


def started(turn: Turn, event: Started) -> None:
    """A process of the task runs."""
    task = turn.tasks.get(event.ref)
    if task is None:
        return
    outside.claimed(turn, task.server.domain, event.pid)
    server = ServerId(domain=task.server.domain, gpu=task.server.gpu, color=event.color)
    if event.role is Role.STANDBY:
        serves = turn.health(server) in SERVING
        turn.task(event.ref, standby=event.pid, standby_server=server if serves else None, ready=False)
        return
    found = turn.open_case(event.ref)
    if found is not None and found[1].outcome is Outcome.TOLD and event.color != task.server.color:
        turn.leave(event.ref, event.pid)  # the word crossed our verdict: it is the process that is to go
        return
    left = tuple(pid for pid in task.left if pid != event.pid)
    turn.task(event.ref, active=event.pid, left=left, client=False)
    recover.started_again(turn, event.ref, event.color)


def session_opened(turn: Turn, event: SessionOpened) -> None:
    """The program keeps state: it can be promoted and restored."""
    if event.ref in turn.tasks and event.role is Role.ACTIVE:
        turn.task(event.ref, session=True)


def ready(turn: Turn, event: Ready) -> None:
    """A standby waits. One on a server that has been hit since is not ready."""
    task = turn.tasks.get(event.ref)
    if task is None or task.standby_server is None or event.pid != task.standby:
        return
    turn.task(event.ref, ready=turn.health(task.standby_server) in SERVING)


def ranks_known(turn: Turn, event: RanksKnown) -> None:
    """Its program was looked at: a rank of MPI has no standby (its supervisor has ended that), any other may have one."""
    task = turn.tasks.get(event.ref)
    if task is None or task.mpi == event.mpi:
        return
    turn.task(event.ref, mpi=event.mpi)
    if event.mpi:
        turn.leave(event.ref, task.standby)
        turn.task(event.ref, standby=0, standby_server=None, ready=False)
    else:
        servers.offer_any_standby(turn, turn.tasks[event.ref])


def on_server(turn: Turn, event: OnServer) -> None:
    """What has to be known when its process is killed."""
    task = turn.tasks.get(event.ref)
    if task is not None and task.server == event.server:  # not that of its standby
        turn.task(event.ref, client=event.on)


def _killed(turn: Turn, task: Task, pid: int) -> None:
    """A client was killed without terminate_client: what happens to the others of its server now may come of it."""
    turn.task(task.ref, client=False)
    if task.client:
        client = Client(pid=pid, task=task.ref, job=task.ref.job)
        turn.server(task.server, killed=client, killed_at=turn.now.mono)
        turn.journal(rec.ClientKilledBusy(task=task.ref, server=task.server, pid=pid))


def exited(turn: Turn, event: Exited) -> None:
    """A process of the task ended."""
    task = turn.tasks.get(event.ref)
    if task is None:
        return
    turn.journal(rec.TaskExit(task=event.ref, role=event.role, pid=event.pid, status=event.status))
    found = turn.open_case(event.ref)
    if event.status == SIGKILL and event.pid == task.active and not event.ours:
        _killed(turn, task, event.pid)
    if event.pid in task.left:
        recover.noticed(turn, event.ref)
        return
    if event.role is Role.STANDBY or event.pid == task.standby != 0:
        _standby_ended(turn, task, event)
        return
    if event.ours or jobs.leaving(turn, event.ref):
        turn.leave(event.ref, event.pid)
        turn.task(event.ref, active=0)
        if event.ours or event.status:
            return  # what is to become of the task was said before
    if task.over:
        return
    if event.status == 0 or event.told:
        recover.dismiss(turn, event.ref, "ended by a signal from Slurm" if event.told else "ended well")
        turn.task(event.ref, active=0, over=True)
        return
    turn.leave(event.ref, event.pid, task.reported)
    turn.task(event.ref, active=0, asking=event.pid, asked_at=turn.now.mono, reported=0)
    incident = incidents.joinable(turn, task.server, task.slot) or incidents.undecided_for(turn, event.ref)
    if incident is not None and incident.hit:
        _failed_in(turn, task, incident, event)
    elif found is not None and found[1].outcome is Outcome.TOLD:
        recover.next_rung(turn, event.ref, f"its new process ended with wait status {event.status}")
    elif incident is not None:
        _failed_in(turn, task, incident, event)
    elif turn.health(task.server) is Health.CLOSED and event.status == _REFUSED:
        _failed_in(turn, task, incidents.open_incident(turn, task.server, _NO_DAEMON), event)
    else:
        servers.ask(turn, task.server)
        turn.timer(Settle(event.ref, event.pid), after=turn.recovery.settle_ms / 1000)


def _failed_in(turn: Turn, task: Task, incident: Incident, event: Exited) -> None:
    """The failure belongs to an incident of its server."""
    case = incident.cases.get(task.ref)
    if case is not None and not case.outcome.settled:
        return
    if case is not None:
        rest = {ref: other for ref, other in incident.cases.items() if ref != task.ref}
        if case.outcome is not Outcome.RECOVERED:
            _pass_on(turn, task.ref)
            return
        incident = turn.incident(incident, cases=rest)
    sightings.note_failure(turn, task, incident)


def _left_alone(turn: Turn, incident: Incident) -> bool:
    """Whether it is known by now whom this fault reached, and others of its server go on."""
    return incident.decided and servers.in_part(turn, incident.server)


def settle(turn: Turn, ref: TaskRef, pid: int) -> None:
    """Nothing is known of a fault: pass the task's status on. A slow control daemon is waited for, within bounds."""
    task = turn.tasks.get(ref)
    if task is None or task.asking != pid or not task.asked_at or task.over:
        return  # gone, asked again, or another task of the same name, which has not asked
    if turn.open_case(task.ref) is not None:
        return
    for incident in turn.incidents.values():
        met = (incident.hit and not _left_alone(turn, incident)) or task.ref in incident.hits
        if incident.server == task.server and met and task.ref not in incident.cases:
            return  # its verdict comes with the incident's
    pair = turn.pair_of(task.server)
    known = pair.servers.get(task.server.color) if pair else None
    waited = turn.now.mono - task.asked_at
    unclear = known is not None and known.answered < task.asked_at
    latest = incidents.joinable(turn, task.server, task.slot)
    unclear = unclear or (latest is not None and not latest.decided)  # it may turn out that the whole server is hit
    if unclear and waited < turn.recovery.settle_ms * _PATIENCE / 1000:
        turn.timer(Settle(task.ref, pid), after=turn.recovery.settle_ms / 1000)
        return
    _pass_on(turn, task.ref)


def _pass_on(turn: Turn, ref: TaskRef) -> None:
    turn.journal(rec.Verdict(task=ref, action=Action.NONE, part=Part.UNKNOWN, reason="no fault known"))
    verdict = fx.Verdict(
        ref=ref, incident=IncidentId(""), action=Action.NONE, part=Part.UNKNOWN, server=None, reason="no fault known"
    )
    turn.do(verdict)
    turn.task(ref, asking=0, over=True)


def gone(turn: Turn, event: Gone) -> None:
    """The supervisor left: the task has ended."""
    task = turn.tasks.get(event.ref)
    if task is None:
        return
    if task.active and not task.over:  # killed together with its supervisor: Slurm's SIGKILL goes to both
        _killed(turn, task, task.active)
    if not jobs.taken_back(turn, event.ref):
        recover.dismiss(turn, event.ref, "the task has ended")
    jobs.spilled(turn, event.ref)
    del turn.tasks[event.ref]
    turn.journal(rec.TaskGone(task=event.ref))


def _standby_ended(turn: Turn, task: Task, event: Exited) -> None:
    server = task.standby_server
    long_ago = turn.now.mono - task.standby_restarted >= turn.recovery.retries_window
    restarts = 0 if long_ago else task.standby_restarts
    turn.task(task.ref, standby=0, standby_server=None, ready=False, standby_restarts=restarts)
    if event.status and server is not None and restarts < _STANDBY_TIMES:
        turn.timer(StandbyAgain(task.ref), after=_STANDBY_AGAIN * 2**restarts)


def restart_standby(turn: Turn, ref: TaskRef) -> None:
    """A standby ended by itself: try another on a healthy server."""
    task = turn.tasks.get(ref)
    if task is None or task.standby:
        return
    pair = turn.pairs[task.server.domain, task.server.gpu]
    for color in pair.colors:
        if color != task.server.color and pair.health(color) is Health.UP:
            turn.task(task.ref, standby_restarts=task.standby_restarts + 1, standby_restarted=turn.now.mono)
            servers.offer_standby(turn, turn.tasks[task.ref], pair.server(color))
            return
