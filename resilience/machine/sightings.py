"""From a sighting to an incident: which one it joins, or whether it opens one.

One fault is seen several times: by the server's log, by the programs, by the kernel log, by NVML, by tasks that end.
All sightings of one server join one incident as long as that is undecided or the server has not come back. A sighting
that names no server (NVML, an Xid without a process of ours) joins an incident of its GPU within the window, or is
kept that long in case one opens; by itself it opens nothing, unless it takes the whole GPU out of use.

A server that is cut into SM partitions can have several incidents at once, one in each partition: that its log tells of
a fault does not say that more than one partition is hit. The control daemon's word does: when it says FAULT, what was
seen in several partitions was one fault (`widen`).
"""

from dataclasses import replace

from resilience.attribute import weigh
from resilience.classify import classify, condemns, merge
from resilience.machine import decide, recover, servers
from resilience.machine.turn import Turn
from resilience.machine.words import ref_words, server_words
from resilience.model.event import Seen
from resilience.model.fault import Fault, FaultClass, Reach
from resilience.model.ids import GpuMinor, IncidentId, ServerId
from resilience.model.incident import Incident
from resilience.model.observation import Client, Observation, What
from resilience.model.world import Health, Pair, Stray, Task

_STRAYS = 32
"""Sightings kept at most: a burst of Xids of one fault is about ten lines."""
_SOURCES = 16
_ASK = 0.02
"""Seconds until the control daemon is asked what it knows: its log has mostly said so by then, and starting the
question takes the agent's time just when the verdict does."""
ENCLOSED = 0.05
"""Seconds after which ACTIVE proves that a fault stayed in its partition: the server has dealt with it by then."""
_PATIENCE = 0.5
"""Seconds that this proof is waited for when the control daemon is slow. Only tasks that met the fault wait."""


def seen(turn: Turn, event: Seen) -> None:
    """Take in one sighting."""
    now, client = event.observation, event.client
    fault = classify(now)
    server, task = _place(turn, now, client)
    _journal(turn, now, fault, server, client)
    late = task is not None and client is not None and (task.over or client.pid in task.left)
    if now.what is What.CUDA and task is not None and late:
        if found := turn.open_case(task.ref):
            _join(turn, found[0], now, fault, client)
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
    if partitioned(turn, server) and now.what in (What.CULPRIT, What.HANDLING):
        servers.ask(turn, server)
    incident = joinable(turn, server, slot)
    if incident is None:
        if not _opens(turn, now, fault, server, task):
            return
        incident = open_incident(turn, server, fault, slot)
    incident = _join(turn, incident, now, fault, client)
    if task is not None and now.what is What.CUDA and client is not None:
        turn.task(task.ref, reported=client.pid)
        if task.server == incident.server:
            incident = turn.incident(incident, hits=incident.hits | {task.ref})
    if _server_wide(turn, now, server):
        hit(turn, incident)
    decide.look(turn, incident.id)
    if now.what is What.CUDA:
        servers.hurry(turn, server)


def _place(turn: Turn, now: Observation, client: Client | None) -> tuple[ServerId | None, Task | None]:
    """The server that a sighting is about, and the task whose present process it names."""
    task = turn.tasks.get(client.task) if client and client.task else None
    if now.server is not None:
        return now.server, task
    if task is None or client is None:
        return None, None
    if client.pid and client.pid == task.standby:
        return task.standby_server, None
    if now.what is What.XID and (task.over or client.pid in task.left or now.gpu not in (None, task.server.gpu)):
        return None, task
    return task.server, task


def partitioned(turn: Turn, server: ServerId) -> bool:
    """Whether this server is cut into SM partitions."""
    pair = turn.pair_of(server)
    return pair is not None and pair.partitioned and not servers.quarantine(pair, server.color)


def _slot(turn: Turn, server: ServerId, client: Client | None, task: Task | None) -> int:
    """The SM partition that a sighting is about; 0 when it names none, or there are none."""
    if client is None or not partitioned(turn, server):
        return 0
    mates = [task] if task is not None else turn.tasks_of(client.job) if client.job is not None else []
    return next(
        (mate.slot for mate in mates if (mate.server.domain, mate.server.gpu) == (server.domain, server.gpu)), 0
    )


def joinable(turn: Turn, server: ServerId, slot: int = 0) -> Incident | None:
    """The incident that a sighting of this server, in this SM partition, belongs to."""
    for incident in reversed(turn.incidents.values()):
        elsewhere = slot and incident.slot not in (0, slot) and not incident.hit
        if incident.server == server and not elsewhere:
            over = incident.decided and turn.health(server) is Health.UP and incident.hit
            window = turn.recovery.incident_window_ms / 1000
            private = incident.decided and not incident.hit and turn.now.mono - incident.opened > window
            return None if over or private else incident
    return None


def _opens(turn: Turn, now: Observation, fault: Fault, server: ServerId, task: Task | None) -> bool:
    """Whether a sighting is enough to say that there is a fault on this server."""
    pair = turn.pair_of(server)
    health = turn.health(server)
    if pair is None or health not in (Health.UP, Health.FAULTED, Health.CLOSED):
        return False
    match now.what:
        case What.HANDLING:
            return not partitioned(turn, server)
        case What.CULPRIT | What.FAULT_STATE | What.ISOLATED | What.CUDA:
            return True
        case What.SERVER_GONE:
            return bool(turn.tasks_on(server)) or any(other.standby_server == server for other in turn.tasks.values())
        case What.XID:
            return task is not None and fault.reach is not Reach.NOBODY and fault.kind is not FaultClass.BENIGN
        case _:
            return False


def open_incident(turn: Turn, server: ServerId, fault: Fault, slot: int = 0) -> Incident:
    """Begin an incident on a server of a known pair, or in one SM partition of it."""
    pair = turn.pairs[server.domain, server.gpu]
    turn.count += 1
    now = turn.now
    wait = max(turn.recovery.attribution_ms / 1000, _PATIENCE if slot else 0.0)
    incident = Incident(
        id=IncidentId(f"{int(now.wall):x}-{turn.count}"),
        server=server,
        uuid=pair.uuid,
        opened_wall=now.wall,
        opened=now.mono,
        deadline=now.mono + wait,
        fault=fault,
        sources=(),
        slot=slot,
        clients=frozenset(task.ref for task in turn.tasks_on(server) if not slot or task.slot == slot),
    )
    turn.incidents[incident.id] = incident
    turn.journal(
        "incident.opened",
        incident=incident.id,
        server=server_words(server),
        gpu=pair.uuid,
        partition=slot or None,
        clients=sorted(map(ref_words, incident.clients)),
    )
    window = turn.recovery.incident_window_ms / 1000
    for stray in turn.strays:
        if stray.observation.gpu == server.gpu and now.mono - stray.observation.mono <= window:
            incident = _join(turn, incident, stray.observation, stray.fault, None)
    turn.strays = tuple(stray for stray in turn.strays if stray.observation.gpu != server.gpu)
    turn.timer("decide", incident.id, after=wait)
    turn.timer("window", incident.id, after=turn.recovery.incident_window_ms / 1000)
    turn.timer("ask", server, after=_ASK)
    if partitioned(turn, server):
        turn.timer("prove", server, after=ENCLOSED)
    return incident


def widen(turn: Turn, server: ServerId, fault: Fault) -> Incident:
    """The whole server is hit: the one incident of what was seen in its partitions, opened if nothing was.

    The earliest that names somebody counts, else the earliest. Others that are still undecided were the same fault.
    """
    window = turn.recovery.incident_window_ms / 1000
    recent = [
        one
        for one in turn.incidents.values()
        if one.server == server and not one.hit and turn.now.mono - one.opened <= window
    ]
    if not recent:
        return joinable(turn, server) or open_incident(turn, server, fault)
    main = next((one for one in recent if one.evidence), recent[0])
    for other in recent:
        if other is main or other.decided:
            continue
        main = turn.incident(
            main,
            fault=merge(main.fault, other.fault),
            sources=(*main.sources, *other.sources)[:_SOURCES],
            evidence=(*main.evidence, *other.evidence),
            clients=main.clients | other.clients,
            hits=main.hits | other.hits,
        )
        del turn.incidents[other.id]
        turn.journal("incident.closed", incident=other.id, outcome=f"the same fault as {main.id}")
    return main


def _join(turn: Turn, incident: Incident, now: Observation, fault: Fault, client: Client | None) -> Incident:
    merged = merge(incident.fault, fault)
    evidence = weigh(now, fault, client)
    said = {(item.client, item.confidence) for item in incident.evidence}
    known = evidence is None or (evidence.client, evidence.confidence) in said
    changed = merged.kind is not incident.fault.kind or not incident.sources
    incident = turn.incident(
        incident,
        fault=merged,
        sources=incident.sources if len(incident.sources) >= _SOURCES else (*incident.sources, now.source),
        evidence=incident.evidence if known or evidence is None else (*incident.evidence, evidence),
    )
    if changed:
        turn.journal("incident.classified", incident=incident.id, fault=merged.kind.value, words=merged.numbers())
    return incident


def _server_wide(turn: Turn, now: Observation, server: ServerId) -> bool:
    """Whether this sighting says that every client of the server is hit."""
    if now.what in (What.FAULT_STATE, What.SERVER_GONE):
        return True
    return now.what in (What.HANDLING, What.CULPRIT) and not partitioned(turn, server)


def hit(turn: Turn, incident: Incident) -> None:
    """The whole server is hit: it takes no new clients until it has recovered."""
    if incident.hit:
        return
    everyone = frozenset(task.ref for task in turn.tasks_on(incident.server))
    turn.incident(incident, hit=True, clients=incident.clients | everyone)
    servers.faulted(turn, incident.server)


def _stray(turn: Turn, now: Observation, fault: Fault, client: Client | None) -> None:
    """A sighting without a server: joins the latest incident of its GPU, else is kept for a while."""
    window = turn.recovery.incident_window_ms / 1000
    for incident in reversed(turn.incidents.values()):
        if incident.server.gpu == now.gpu and turn.now.mono - incident.opened <= window:
            _join(turn, incident, now, fault, client)
            decide.look(turn, incident.id)
            return
    fresh = [stray for stray in turn.strays if turn.now.mono - stray.observation.mono <= window]
    turn.strays = (*fresh, Stray(observation=now, fault=fault))[-_STRAYS:]


def of_gpu(turn: Turn, gpu: GpuMinor) -> list[Pair]:
    return [pair for pair in turn.pairs.values() if pair.gpu == gpu]


def _journal(turn: Turn, now: Observation, fault: Fault, server: ServerId | None, client: Client | None) -> None:
    turn.journal(
        "observation",
        source=now.source.value,
        what=now.what.value,
        text=now.text,
        at=now.wall,
        at_mono=now.mono,
        boot=now.boot_id,
        gpu=now.gpu,
        server=server_words(server) if server else None,
        pid=now.pid,
        who=str(client) if client else None,
        fault=fault.kind.value,
    )


def note_failure(turn: Turn, task: Task, incident: Incident) -> None:
    """A task's own process failed while its server is in an incident."""
    incident = turn.incidents[incident.id]
    turn.incidents[incident.id] = replace(
        incident, hits=incident.hits | {task.ref}, clients=incident.clients | {task.ref}
    )
    decide.look(turn, incident.id)
