"""The servers of a fault domain on one GPU: who is healthy, which one is active, rebuilding, quarantine.

The two colours of a pair take turns: when the active one is hit the other becomes active at once, and the hit one is
rebuilt in the background. It recovers by itself when all its clients have left; when it does not in
`rebuild_timeout`, or when a task that waits for it is what keeps it busy, it is ended and started anew. Quarantine
servers are opened for one incident, never rebuilt, and closed when nobody uses them.
"""

from resilience.machine.draft import Turn
from resilience.model import effect as fx
from resilience.model import records as rec
from resilience.model.event import ClientJoined, ClientLeft, GuardTurned
from resilience.model.ids import Color, GpuMinor, ServerId, TaskRef
from resilience.model.incident import Action, Outcome
from resilience.model.lease import Lease, in_force
from resilience.model.observation import Source, What
from resilience.model.options import Domain, Rung
from resilience.model.timer import PollState, RebuildDue
from resilience.model.world import Health, KnownServer, Pair, Requeue, Task
from resilience.placement.domain_plan import PAIR

_FIRST_POLL = 0.02
_FAST_POLL = 0.025
"""Seconds between questions while a task waits for the answer; one costs the daemon about 3 ms."""
_SLOW_POLL = 0.25
_STRANGERS = 255
"""Clients outside our supervisors that are kept of one pair: the latest. A log can name any number."""
_COMING = (Health.UP, Health.FAULTED, Health.REPLACING, Health.OPENING)


def quarantine(pair: Pair, color: Color) -> bool:
    """A colour that is not one of those that take turns."""
    return color not in pair.colors


def over(turn: Turn, server: ServerId) -> frozenset[GpuMinor]:
    """The GPUs of a server."""
    pair = turn.pair_of(server)
    return frozenset(minor for minor, _ in pair.gpus) if pair else frozenset((server.gpu,))


def in_part(turn: Turn, server: ServerId) -> bool:
    """Whether a fault of this server may leave some of its clients alone: those of other SM partitions, or of other GPUs
    than the culprit's (NVIDIA: a fault is contained to the GPUs that its clients share)."""
    return partitioned(turn, server) or len(over(turn, server)) > 1


def partitioned(turn: Turn, server: ServerId) -> bool:
    """Whether this server is cut into SM partitions."""
    pair = turn.pair_of(server)
    return pair is not None and pair.partitioned and not quarantine(pair, server.color)


def guard_turned(turn: Turn, event: GuardTurned) -> None:
    """What the logs of later faults call the isolation in force."""
    turn.guard = event.on
    for pair in list(turn.pairs.values()):
        turn.pair(pair, isolation=in_force(pair.isolation, event.on, pair.partitioned))


# ---------------------------------------------------------------- health
def faulted(turn: Turn, server: ServerId) -> None:
    """Every client of the server is hit."""
    pair = turn.pair_of(server)
    if pair is None or pair.health(server.color) not in (Health.UP, Health.OPENING, Health.CLOSED):
        return
    turn.server(server, health=Health.FAULTED, since=turn.now.mono, fault_seen=False, recreated=False)
    _unavailable(turn, server)
    _lose_standbys(turn, server)
    if quarantine(pair, server.color):
        return
    swap(turn, server)
    turn.timer(PollState(server), after=_FIRST_POLL)
    if not turn.observe:
        turn.timer(RebuildDue(server), after=turn.mps.rebuild_timeout)


def condemned(turn: Turn, server: ServerId) -> None:
    """The GPU is out of use: nothing is rebuilt on it."""
    if turn.observe:
        return
    turn.server(server, health=Health.DOWN, since=turn.now.mono)
    _unavailable(turn, server)
    _lose_standbys(turn, server)


def _unavailable(turn: Turn, server: ServerId) -> None:
    """Write down that nobody can join the server; `server.rebuilt` or `server.replaced` follows when that is over."""
    turn.journal(rec.ServerUnavailable(server=server, state=turn.health(server)))


def _lose_standbys(turn: Turn, server: ServerId) -> None:
    """Standbys on this server are dead. What they still say of their fault is not about their task's own server."""
    for task in list(turn.tasks.values()):
        if task.standby_server == server:
            turn.leave(task.ref, task.standby)
            turn.task(task.ref, ready=False, standby=0, standby_server=None)


def swap(turn: Turn, server: ServerId) -> None:
    """Have new tasks join a healthy server."""
    pair = turn.pairs[server.domain, server.gpu]
    if pair.health(pair.active) is Health.UP:
        return
    for color in pair.colors:
        if pair.health(color) is Health.UP:
            if turn.act(fx.SetActive(server=pair.server(color))):
                turn.pair(pair, active=color)
            return


def ask(turn: Turn, server: ServerId) -> None:
    """Ask for the server's state."""
    turn.do(fx.Poll(server=server, asked=turn.now.mono))


def poll(turn: Turn, server: ServerId) -> None:
    """Ask again while the server recovers."""
    if turn.health(server) is not Health.FAULTED:
        return
    ask(turn, server)
    turn.timer(PollState(server), after=_FAST_POLL if _awaited(turn, server) else _SLOW_POLL)


def recreated(turn: Turn, server: ServerId) -> None:
    """The log says that contexts are made anew: the server is about to answer."""
    if turn.health(server) is Health.FAULTED:
        turn.server(server, recreated=True)
        ask(turn, server)


def daemon_gone(turn: Turn, server: ServerId) -> None:
    """The control daemon ended: its clients live on, new ones cannot join. New tasks go to the other colour.

    Where the domain has no task the epilog may be closing it: another is started when a task comes (`missed`).
    """
    pair = turn.pair_of(server)
    if pair is None or turn.observe or pair.health(server.color) is not Health.UP:
        return
    if not _in_use(turn, pair):
        turn.server(server, health=Health.CLOSED)
        return
    if not turn.tasks_on(server):
        faulted(turn, server)
        replace_now(turn, server)
        return
    turn.server(server, health=Health.CLOSED)
    _unavailable(turn, server)
    swap(turn, server)
    pair = turn.pairs[server.domain, server.gpu]
    other = next((color for color in PAIR if color not in pair.colors), None)
    if other is not None and not quarantine(pair, server.color) and turn.mps.compute_mode != "exclusive":
        pair = turn.pair(pair, colors=tuple(sorted({*pair.colors, other})))
        new_server(turn, pair, other)
        replace_now(turn, pair.server(other))


def lost(turn: Turn, server: ServerId) -> None:
    """The control daemon had gone before anybody of the domain came: start another, and let nobody join meanwhile."""
    if turn.observe or turn.health(server) is not Health.UP:
        return
    text = "its control daemon had gone before the first task came"
    turn.journal(rec.Sighting(source=Source.PROCESS, what=What.DAEMON_GONE, text=text, gpu=server.gpu, server=server))
    faulted(turn, server)
    replace_now(turn, server)


def missed(turn: Turn, here: ServerId) -> None:
    """The domain's first task comes: start anew what lost its daemon before."""
    pair = turn.pairs[here.domain, here.gpu]
    if not _in_use(turn, pair):
        for color in pair.colors:
            if pair.health(color) is Health.CLOSED:
                faulted(turn, pair.server(color))
                replace_now(turn, pair.server(color))


def reopen(turn: Turn) -> None:
    """A server that lost its daemon is started anew when its last task has left it, for those of the domain that go on."""
    for pair in list(turn.pairs.values()):
        for color in pair.servers:
            lost = pair.health(color) is Health.CLOSED and not turn.tasks_on(pair.server(color))
            if lost and _in_use(turn, pair):
                faulted(turn, pair.server(color))
                replace_now(turn, pair.server(color))


def _in_use(turn: Turn, pair: Pair) -> bool:
    """Whether a task of this domain and GPU goes on, so that its lease keeps the servers open."""
    here = (pair.domain, pair.gpu)
    return any((task.server.domain, task.server.gpu) == here and not task.over for task in turn.tasks.values())


# ---------------------------------------------------------------- rebuild
def _awaited(turn: Turn, server: ServerId) -> bool:
    pair = turn.pair_of(server)
    return pair is not None and not any(pair.health(color) is Health.UP for color in pair.colors)


def hurry(turn: Turn, server: ServerId) -> None:
    """A task waits for a server. If its own dead process keeps that from recovering, start it anew."""
    pair = turn.pair_of(server)
    if pair is None or not _awaited(turn, server):
        return
    waiting = [case for incident in turn.incidents.values() for case in incident.cases.values()]
    if not any(case.outcome is Outcome.WAITING and case.target is None for case in waiting):
        return
    for color in pair.colors:
        candidate = pair.server(color)
        if pair.health(color) is Health.FAULTED:
            turn.timer(PollState(candidate), after=_FIRST_POLL)
            if any(task.reported for task in turn.tasks_on(candidate)):
                replace_now(turn, candidate)


def rebuild_overdue(turn: Turn, server: ServerId) -> None:
    """The server did not recover in time, or could not be started a while ago."""
    pair = turn.pair_of(server)
    known = pair.servers.get(server.color) if pair else None
    if known is None:
        return
    late = turn.now.mono - known.since >= turn.mps.rebuild_timeout
    if (known.health is Health.FAULTED and late) or known.health is Health.DOWN:
        replace_now(turn, server)


def replace_now(turn: Turn, server: ServerId) -> None:
    """End the server and start it anew; ServerOpened follows."""
    pair = turn.pair_of(server)
    if pair is None or turn.observe or quarantine(pair, server.color):
        return
    turn.server(server, health=Health.REPLACING)
    _open(turn, pair, server, anew=True)


def open_quarantine(turn: Turn, near: ServerId) -> ServerId:
    """A fresh server of its own beside `near`; ServerOpened follows."""
    pair = turn.pairs[near.domain, near.gpu]
    color = Color(f"q{pair.quarantines + 1}")
    pair = turn.pair(pair, quarantines=pair.quarantines + 1)
    server = pair.server(color)
    turn.server(server, health=Health.OPENING, since=turn.now.mono)
    _open(turn, pair, server, anew=False)
    return server


def _open(turn: Turn, pair: Pair, server: ServerId, *, anew: bool) -> None:
    turn.act(fx.Open(server=server, uuids=pair.uuids, uid=pair.uid, gid=pair.gid, shared=pair.shared, anew=anew))


# ---------------------------------------------------------------- where tasks go
def target(turn: Turn, hit: ServerId, task: Task, own: ServerId | None) -> tuple[ServerId | None, bool]:
    """The server that can take a task now (None: none yet), and whether one ever may.

    `own`: the server that was opened for it; nobody else's server will do. Otherwise a colour of the pair: the one
    that is not hit first. A task that was in quarantine and is not suspected any more comes back to the pair.
    """
    pair = turn.pairs[hit.domain, hit.gpu]
    if own is not None:
        health = turn.health(own)
        return (own if health is Health.UP else None), health in _COMING
    order = sorted(pair.colors, key=lambda color: (color == hit.color, color != pair.active))
    for color in order:
        if pair.health(color) is Health.UP:
            return pair.server(color), True
    return None, any(pair.health(color) in _COMING for color in pair.colors)


def free_of_others(turn: Turn, hit: ServerId, suspects: frozenset[TaskRef]) -> tuple[bool, ServerId | None]:
    """Whether some of the suspects may go on on the pair without meeting anyone else, and on which server (None: the
    first that comes up)."""
    pair = turn.pairs[hit.domain, hit.gpu]
    crowded = False
    for color in pair.colors:
        if color == hit.color:
            continue
        others = {task.ref for task in turn.tasks_on(pair.server(color))} - suspects
        if others or color in pair.strangers.values():
            crowded = True
        elif pair.health(color) is Health.UP:
            return True, pair.server(color)
    return not crowded, None


def offer_standbys(turn: Turn, server: ServerId) -> None:
    """Have standbys started on a server that came back, for tasks that run on the other colour."""
    for task in list(turn.tasks.values()):
        offer_standby(turn, task, server)


def offer_standby(turn: Turn, task: Task, server: ServerId) -> None:
    """One task's standby, if it may have one there and has none."""
    pair = turn.pair_of(server)
    if pair is None or (task.server.domain, task.server.gpu) != (server.domain, server.gpu):
        return
    found = turn.open_case(task.ref)
    if found is not None and found[1].outcome is Outcome.TOLD and found[1].action is Action.PROMOTE:
        return  # the one that it has is still to take over: recover.py offers another then
    mine = task.server.color
    if mine == server.color or quarantine(pair, mine) or quarantine(pair, server.color):
        return
    if wants_standby(task) and task.placed and not task.over and task.standby_server is None and not task.standby:
        turn.act(fx.StartStandby(ref=task.ref, server=server))


def offer_any_standby(turn: Turn, task: Task) -> None:
    """The same for one task that has just recovered, on any colour that is up."""
    pair = turn.pairs[task.server.domain, task.server.gpu]
    for color in pair.colors:
        if pair.health(color) is Health.UP:
            offer_standby(turn, task, pair.server(color))


def wants_standby(task: Task) -> bool:
    return task.options.standby and Rung.STANDBY in task.options.recover and not task.mpi


# ---------------------------------------------------------------- clients without a supervisor
def client_joined(turn: Turn, event: ClientJoined) -> None:
    pair = turn.pair_of(event.server)
    if pair is not None:
        pid, job = event.client.pid, turn.jobs.get(event.client.job) if event.client.job is not None else None
        lease = job.lease if job is not None and job.held else None
        of = {other: owner for other, owner in pair.jobs.items() if other != pid}
        if lease is not None and lease.domain == pair.domain and lease.uid == event.uid:
            of[pid] = lease.job
        latest = dict(list(pair.strangers.items())[-_STRANGERS:])
        of = {other: owner for other, owner in of.items() if other in latest or other == pid}
        turn.pair(pair, strangers={**latest, pid: event.server.color}, jobs=of)


def client_left(turn: Turn, event: ClientLeft) -> None:
    pair = turn.pair_of(event.server)
    if pair is not None and pair.strangers.get(event.pid) == event.server.color:
        left = {pid: color for pid, color in pair.strangers.items() if pid != event.pid}
        turn.pair(pair, strangers=left, jobs={pid: job for pid, job in pair.jobs.items() if pid != event.pid})


# ---------------------------------------------------------------- leaving
def sweep(turn: Turn) -> None:
    """Close quarantine servers that nobody uses, forget domains that no task uses and no lease holds."""
    used = {task.server for task in turn.tasks.values() if not task.over}
    for incident in turn.incidents.values():
        used |= {case.target for case in incident.cases.values() if case.target and not case.outcome.settled}
        if not incident.cases:
            used |= set(incident.apart.values())
    held = {(task.server.domain, task.server.gpu) for task in turn.tasks.values()}
    leases = [job.lease for job in turn.jobs.values() if job.lease is not None and job.held]
    held |= {(lease.domain, minor) for lease in leases for minor, _ in lease.gpus}
    for pair in list(turn.pairs.values()):
        present = (pair.domain, pair.gpu) in held
        gone = [
            color
            for color in pair.servers
            if not present or (quarantine(pair, color) and pair.server(color) not in used)
        ]
        for color in gone:
            if quarantine(pair, color) and pair.health(color) is not Health.OPENING:
                turn.act(fx.Close(server=pair.server(color)))
            turn.do(fx.Unwatch(server=pair.server(color)))
        if not present:
            del turn.pairs[pair.domain, pair.gpu]
        elif gone:
            turn.pair(pair, servers={color: known for color, known in pair.servers.items() if color not in gone})


def forget_jobs(turn: Turn) -> None:
    """Drop jobs that have neither task nor lease left here, and of which Slurm is not being asked."""
    wanted = {ref.job for ref in turn.tasks}
    for incident in turn.incidents.values():
        if not incident.decided:
            wanted |= set(incident.outside.values())
    for job, known in list(turn.jobs.items()):
        if job not in wanted and not known.held and not (known.untended and known.requeue is Requeue.ASKED):
            del turn.jobs[job]


def pair(turn: Turn, lease: Lease, server: ServerId) -> Pair:
    """The pair of servers that a lease names, made known if it is new. `server`: of it, the one that is active."""
    colors = lease.colors or (Color("a"),)
    known = turn.pairs.get((server.domain, server.gpu))
    if known is None:
        began = lease.isolation
        shared = lease.options.domain is Domain.SHARED
        active = server.color if server.color in colors else colors[0]
        known = turn.pair(
            Pair(
                domain=server.domain,
                gpus=lease.span(server.gpu),
                uid=0 if shared else lease.uid,
                gid=0 if shared else lease.gid,
                shared=shared,
                isolation=began if turn.guard is None else in_force(began, turn.guard, bool(lease.slots)),
                partitioned=bool(lease.slots),
                colors=(),
                active=active,
                servers={},
            )
        )
    for color in colors:
        if color not in known.colors:
            known = turn.pair(known, colors=tuple(sorted({*known.colors, color})))
            known = new_server(turn, known, color)
            ask(turn, known.server(color))
    return known


def new_server(turn: Turn, pair: Pair, color: Color) -> Pair:
    """Begin to follow a server that a task named."""
    turn.do(fx.Watch(server=pair.server(color), uid=pair.uid))
    return turn.pair(pair, servers={**pair.servers, color: KnownServer()})
