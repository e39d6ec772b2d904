"""From a sighting to an incident: which one it joins, or whether it opens one.

One fault is seen several times: by the server's log, by the programs, by the kernel log, by NVML, by tasks that end.
All sightings of one server join one incident as long as that is undecided or the server has not come back. A sighting
that names no server (NVML, an Xid without a process of ours) joins an incident of its GPU within the window, or is
kept that long in case one opens; by itself it opens nothing, unless it takes the whole GPU out of use.

A server that is cut into SM partitions can have several incidents at once, one in each partition: that its log tells of
a fault does not say that more than one partition is hit. The control daemon's word does: when it says FAULT, what was
seen in several partitions was one fault (incidents.widen).
"""

from dataclasses import replace

from resilience.machine import decide, incidents, recover, servers
from resilience.machine.classify import classify, condemns
from resilience.machine.draft import Turn
from resilience.model import records as rec
from resilience.model.event import Missed, Seen
from resilience.model.fault import Fault, FaultClass, Reach
from resilience.model.ids import ServerId
from resilience.model.incident import Incident
from resilience.model.observation import Client, Observation, What
from resilience.model.world import Health, Stray, Task

_STRAYS = 32
"""Sightings kept at most: a burst of Xids of one fault is about ten lines."""


def seen(turn: Turn, event: Seen) -> None:
    """Take in one sighting."""
    now, client = event.observation, event.client
    fault = classify(now)
    server, task = _place(turn, now, client)
    _journal(turn, now, fault, server, client)
    if now.what is What.UNKNOWN:
        return  # for a person to read, beside what happened then
    late = task is not None and client is not None and (task.over or client.pid in task.left)
    if now.what is What.CUDA and task is not None and late:
        if found := turn.open_case(task.ref):
            incidents.join(turn, found[0], now, fault, client)
            recover.noticed(turn, task.ref)
        return
    if condemns(now, fault) and now.gpu is not None:
        decide.condemn(turn, now.gpu, now, fault)
        return
    if server is None:
        _stray(turn, now, fault, client)
        return
    if now.what is What.RECREATING:
        servers.recreated(turn, server)
        return
    if now.what is What.DAEMON_GONE:
        servers.daemon_gone(turn, server)
        return
    slot = _slot(turn, server, client, task)
    if servers.partitioned(turn, server) and now.what in (What.CULPRIT, What.HANDLING):
        servers.ask(turn, server)
    incident = incidents.joinable(turn, server, slot)
    if incident is None and task is not None and now.what is What.CUDA:
        incident = incidents.undecided_for(turn, task.ref)
    if incident is None:
        if not _opens(turn, now, fault, server, task):
            return
        incident = incidents.open_incident(turn, server, fault, slot)
    incident = incidents.join(turn, incident, now, fault, client)
    if task is not None and now.what is What.CUDA and client is not None:
        turn.task(task.ref, reported=client.pid)
        if task.server == incident.server:
            mine = {task.ref}  # it may have come back to a new agent after the incident began
            incident = turn.incident(incident, hits=incident.hits | mine, clients=incident.clients | mine)
    if _server_wide(turn, now, server):
        incidents.hit(turn, incident)
    decide.look(turn, incident.id)
    if now.what is What.CUDA:
        servers.hurry(turn, server)


def missed(turn: Turn, event: Missed) -> None:
    """A task of before has failed, and its server had a fault while no agent was there: the incident that it belongs to."""
    task = turn.tasks.get(event.ref)
    if task is None or task.over or turn.open_case(event.ref) is not None:
        return
    incident = next((one for one in turn.incidents.values() if one.missed and one.server == task.server), None)
    if incident is None:
        incident = incidents.joinable(turn, task.server)
    if incident is None:
        incident = incidents.open_missed(turn, task.server, classify(event.seen[0][0]))
        for now, client in event.seen:
            _journal(turn, now, classify(now), task.server, client)
    before = len(incident.evidence)
    for now, client in event.seen:
        incident = incidents.join(turn, incident, now, classify(now), client)
    named = len(incident.evidence) > before
    if named and incident.attribution is not None and incident.attribution.culprit is None:
        incident = turn.incident(incident, attribution=None)  # decided while nobody knew whose the named process was
    turn.incident(incident, clients=incident.clients | {event.ref})


def _place(turn: Turn, now: Observation, client: Client | None) -> tuple[ServerId | None, Task | None]:
    """The server that a sighting is about, and the task whose present process it names."""
    task = turn.tasks.get(client.task) if client and client.task else None
    if now.server is not None:
        return now.server, task
    if task is None or client is None:
        return None, None
    if client.pid and client.pid == task.standby:
        return task.standby_server, None
    if now.what is What.XID and (task.over or client.pid in task.left or not _on(turn, now, task.server)):
        return None, task
    return task.server, task


def _on(turn: Turn, now: Observation, server: ServerId) -> bool:
    """Whether a sighting's GPU, if it names one, is one of the server's."""
    return now.gpu is None or now.gpu in servers.over(turn, server)


def _slot(turn: Turn, server: ServerId, client: Client | None, task: Task | None) -> int:
    """The SM partition that a sighting is about; 0 when it names none, or there are none."""
    if client is None or not servers.partitioned(turn, server):
        return 0
    mates = [task] if task is not None else turn.tasks_of(client.job) if client.job is not None else []
    return next(
        (mate.slot for mate in mates if (mate.server.domain, mate.server.gpu) == (server.domain, server.gpu)), 0
    )


def _opens(turn: Turn, now: Observation, fault: Fault, server: ServerId, task: Task | None) -> bool:
    """Whether a sighting is enough to say that there is a fault on this server."""
    pair = turn.pair_of(server)
    health = turn.health(server)
    if pair is None or health not in (Health.UP, Health.FAULTED, Health.CLOSED):
        return False
    match now.what:
        case What.HANDLING:
            return not servers.partitioned(turn, server)
        case What.CULPRIT | What.FAULT_STATE | What.ISOLATED | What.CUDA:
            return True
        case What.SERVER_GONE:
            return bool(turn.tasks_on(server)) or any(other.standby_server == server for other in turn.tasks.values())
        case What.XID:
            return task is not None and fault.reach is not Reach.NOBODY and fault.kind is not FaultClass.BENIGN
        case _:
            return False


def _server_wide(turn: Turn, now: Observation, server: ServerId) -> bool:
    """Whether this sighting says that every client of the server is hit."""
    if now.what in (What.FAULT_STATE, What.SERVER_GONE):
        return True
    return now.what in (What.HANDLING, What.CULPRIT) and not servers.partitioned(turn, server)


def _stray(turn: Turn, now: Observation, fault: Fault, client: Client | None) -> None:
    """A sighting without a server: joins the latest incident of its GPU, else is kept for a while."""
    window = turn.recovery.incident_window_ms / 1000
    for incident in reversed(turn.incidents.values()):
        if now.gpu in servers.over(turn, incident.server) and turn.now.mono - incident.opened <= window:
            incidents.join(turn, incident, now, fault, client)
            decide.look(turn, incident.id)
            return
    fresh = [stray for stray in turn.strays if turn.now.mono - stray.observation.mono <= window]
    turn.strays = (*fresh, Stray(observation=now, fault=fault))[-_STRAYS:]


def _journal(turn: Turn, now: Observation, fault: Fault, server: ServerId | None, client: Client | None) -> None:
    turn.journal(
        rec.Sighting(
            source=now.source,
            what=now.what,
            text=now.text,
            at=now.wall,
            at_mono=now.mono,
            boot=now.boot_id,
            gpu=now.gpu,
            server=server,
            pid=now.pid,
            who=client,
            fault=fault.kind,
        )
    )


def note_failure(turn: Turn, task: Task, incident: Incident) -> None:
    """A task's own process failed while its server is in an incident."""
    incident = turn.incidents[incident.id]
    turn.incidents[incident.id] = replace(
        incident, hits=incident.hits | {task.ref}, clients=incident.clients | {task.ref}
    )
    decide.look(turn, incident.id)
