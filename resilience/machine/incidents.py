"""The incidents that are open: which one a server is in, how one begins, what joins it, that its whole server is hit."""

from typing import Any

from resilience.machine import outside, servers
from resilience.machine.attribute import weigh
from resilience.machine.classify import merge
from resilience.machine.draft import Turn
from resilience.model import records as rec
from resilience.model.fault import Fault, FaultClass
from resilience.model.ids import GpuMinor, GpuUuid, IncidentId, ServerId, TaskRef
from resilience.model.incident import Incident
from resilience.model.observation import Client, Observation, Source, What
from resilience.model.radius import Partition, Process, Radius, Server
from resilience.model.timer import AskState, Decide, ProveState, Window
from resilience.model.world import Health, Pair

_SOURCES = 16
_ASK = 0.02
"""Seconds until the control daemon is asked what it knows: its log has mostly said so by then, and starting the
question takes the agent's time just when the verdict does."""
_ENCLOSED = 0.05
"""Seconds after which ACTIVE proves that a fault stayed in its partition: the server has dealt with it by then."""
_PATIENCE = 0.5
"""Seconds that this proof is waited for when the control daemon is slow. Only tasks that met the fault wait."""


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


def recent(turn: Turn, incident: Incident) -> bool:
    """Whether programs may still find out that it has hit them."""
    return turn.now.mono - incident.opened <= turn.recovery.restore_timeout


def undecided_for(turn: Turn, ref: TaskRef) -> Incident | None:
    """The incident whose fault may have reached this task, which went on: a failure soon after is of that fault. A launcher
    in the task takes seconds to end after its ranks have."""
    for incident in reversed(turn.incidents.values()):
        server_wide = (incident.hit and incident.decided) or incident.missed
        if server_wide and recent(turn, incident) and ref in incident.clients and ref not in incident.cases:
            return incident
    return None


def open_incident(turn: Turn, server: ServerId, fault: Fault, slot: int = 0) -> Incident:
    """Begin an incident on a server of a known pair, or in one SM partition of it."""
    pair = turn.pairs[server.domain, server.gpu]
    turn.count += 1
    now = turn.now
    wait = max(turn.recovery.attribution_ms / 1000, _PATIENCE if slot else 0.0)
    incident = Incident(
        id=IncidentId(f"{int(now.wall):x}-{turn.count}"),
        server=server,
        gpus=pair.uuids,
        opened_wall=now.wall,
        opened=now.mono,
        deadline=now.mono + wait,
        fault=fault,
        sources=(),
        slot=slot,
        clients=frozenset(task.ref for task in turn.tasks_on(server) if not slot or task.slot == slot),
        outside=outside.on_server(turn, server),
    )
    turn.incidents[incident.id] = incident
    turn.journal(
        rec.IncidentOpened(
            incident=incident.id,
            server=server,
            gpu=incident.uuid,
            partition=slot or None,
            clients=tuple(sorted(incident.clients)),
        )
    )
    window = turn.recovery.incident_window_ms / 1000
    for stray in turn.strays:
        if stray.observation.gpu in servers.over(turn, server) and now.mono - stray.observation.mono <= window:
            incident = join(turn, incident, stray.observation, stray.fault, None)
    turn.strays = tuple(stray for stray in turn.strays if stray.observation.gpu not in servers.over(turn, server))
    turn.timer(Decide(incident.id), after=wait)
    turn.timer(Window(incident.id), after=turn.recovery.incident_window_ms / 1000)
    turn.timer(AskState(server), after=_ASK)
    if servers.partitioned(turn, server):
        turn.timer(ProveState(server), after=_ENCLOSED)
    return incident


def radius(turn: Turn, incident: Incident) -> Radius:
    """How far the fault reached, by all that has been seen."""
    server, pair = incident.server, turn.pair_of(incident.server)
    strangers = sum(color == server.color for color in pair.strangers.values()) if pair else 0
    facts: dict[str, Any] = {"clients": incident.clients, "hits": incident.hits, "strangers": strangers}
    if incident.hit or incident.missed:
        return Server(**facts, complete=turn.complete and not incident.missed)
    if not incident.slot:
        return Process(**facts, complete=turn.complete)
    known = pair.servers.get(server.color) if pair else None
    answered = known is not None and known.active - incident.opened >= _ENCLOSED
    proven = answered and turn.health(server) is Health.UP and Source.GUARD not in incident.sources
    inside = proven and incident.fault.kind is FaultClass.SM  # others may come from a client of another partition
    return Partition(**facts, complete=turn.complete and inside, proven=proven)


def open_missed(turn: Turn, server: ServerId, fault: Fault) -> Incident:
    """Begin the incident of a fault that came and went while no agent was there. Nobody is known to be hit before they fail,
    and nobody is blamed by elimination: clients may have gone."""
    incident = open_incident(turn, server, fault)
    incident = turn.incident(
        incident, missed=True, clients=frozenset(), outside={}, deadline=max(incident.deadline, turn.old.complete)
    )
    turn.timer(Decide(incident.id), after=incident.deadline - turn.now.mono)
    turn.timer(Window(incident.id), after=turn.recovery.restore_timeout)
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
        same = f"the same fault as {main.id}"
        turn.journal(rec.IncidentClosed(incident=other.id, outcome=same, same_as=main.id))
    return main


def join(turn: Turn, incident: Incident, now: Observation, fault: Fault, client: Client | None) -> Incident:
    merged = merge(incident.fault, fault)
    evidence = weigh(now, fault, client)
    said = {(item.client, item.confidence) for item in incident.evidence}
    known = evidence is None or (evidence.client, evidence.confidence) in said
    changed = merged.kind is not incident.fault.kind or not incident.sources
    incident = turn.incident(
        incident,
        fault=merged,
        gpus=_which(turn, incident, now),
        address=incident.address if now.address is None else now.address,
        attribution=None if _excused(incident) and now.source is not Source.CLIENT else incident.attribution,
        sources=incident.sources if len(incident.sources) >= _SOURCES else (*incident.sources, now.source),
        evidence=incident.evidence if known or evidence is None else (*incident.evidence, evidence),
    )
    if changed:
        record = rec.IncidentClassified(
            incident=incident.id, fault=merged.kind, words=merged.numbers(), gpu=incident.uuid
        )
        turn.journal(record)
        if incident.attribution is not None:  # the logs of its jobs have a first line already, which did not know
            for job in {ref.job for ref in incident.clients} | incident.told:
                turn.job_line(job, record)
    return incident


def _which(turn: Turn, incident: Incident, now: Observation) -> tuple[GpuUuid, ...]:
    """The GPUs that it may have been: an Xid says on which the fault was."""
    pair = turn.pair_of(incident.server)
    if now.what is not What.XID or pair is None:
        return incident.gpus
    return tuple(uuid for minor, uuid in pair.gpus if minor == now.gpu and uuid in incident.gpus) or incident.gpus


def _excused(incident: Incident) -> bool:
    """Decided on a program's word that nobody did it: what the driver says afterwards has it decided again."""
    return incident.fault.heard and incident.attribution is not None and incident.attribution.blameless


def hit(turn: Turn, incident: Incident) -> None:
    """The whole server is hit: it takes no new clients until it has recovered."""
    if incident.hit:
        return
    everyone = frozenset(task.ref for task in turn.tasks_on(incident.server))
    beside = {**incident.outside, **outside.on_server(turn, incident.server)}
    turn.incident(incident, hit=True, clients=incident.clients | everyone, outside=beside)
    servers.faulted(turn, incident.server)


def of_gpu(turn: Turn, gpu: GpuMinor) -> list[Pair]:
    return [pair for pair in turn.pairs.values() if gpu in dict(pair.gpus)]
