"""From an incident to its verdicts: when enough is known, who did it, who is told what, and when it is over.

The bystanders are told the moment the culprit is certain, or nobody can be blamed; otherwise when `attribution_ms`
has passed. In an SM partition nobody else waits, so there it is decided when it is known whether the fault stayed in it.
The culprit's own verdict waits for the fault's class as well (at most as long): what looks like a
program's fault may turn out to be a memory error, and then the named process is a victim.
"""

from typing import Any

from resilience.machine import incidents, jobs, outside, recover, servers, strikes
from resilience.machine.attribute import attribute, blameless, killed_before
from resilience.machine.classify import merge
from resilience.machine.draft import Turn
from resilience.machine.history import cleared, suspicion, with_suspicion
from resilience.machine.policy import split
from resilience.model import records as rec
from resilience.model.fault import Fault, FaultClass
from resilience.model.ids import GpuMinor, GpuUuid, IncidentId, JobId, TaskRef
from resilience.model.incident import Action, Attribution, Case, Confidence, Incident, Outcome, Part
from resilience.model.lease import Isolation
from resilience.model.observation import Observation, Source
from resilience.model.radius import Partition
from resilience.model.world import Health, Pair

LEVELS = {
    Isolation.NONE: "none",
    Isolation.DOMAINS: "domains",
    Isolation.SM: "SM partitions",
    Isolation.GUARD: "guard",
}
_KNOWN = (FaultClass.MMU, FaultClass.SM, FaultClass.HANG)


def look(turn: Turn, name: IncidentId) -> None:
    """Decide if enough is known, and tell those who are hit and have not been told."""
    incident = turn.incidents.get(name)
    if incident is None:
        return
    if not incident.decided:
        _decide(turn, incident)
    incident = turn.incidents[name]
    if not incident.decided:
        return
    for ref in sorted(incident.clients):
        task = turn.tasks.get(ref)
        if task is None or task.over or task.server != incident.server or ref in turn.incidents[name].cases:
            continue
        if not (ref in incident.hits or (incident.hit and not servers.in_part(turn, incident.server))):
            continue  # with SM partitions or several GPUs, a task that goes on may be one that the fault did not reach
        part = _part(incident, ref)
        waits = incident.fault.kind not in _KNOWN and turn.now.mono < incident.deadline
        if part is Part.CULPRIT and waits and not blameless(incident.fault):
            continue
        recover.begin(turn, name, ref, part)
    _convict(turn, name)
    outside.look(turn, turn.incidents[name])


def _convict(turn: Turn, name: IncidentId) -> None:
    """A culprit that got another part first, on its own word that nobody did it."""
    incident = turn.incidents[name]
    guilty = incident.attribution.culprit.task if incident.attribution and incident.attribution.culprit else None
    case = incident.cases.get(guilty) if guilty is not None else None
    if guilty is None or case is None or incident.parts.get(guilty) is not Part.CULPRIT or case.part is Part.CULPRIT:
        return
    task = turn.tasks.get(guilty)
    if task is not None and not task.over and _part(incident, guilty) is Part.CULPRIT:
        recover.begin(turn, name, guilty, Part.CULPRIT)


def _part(incident: Incident, ref: TaskRef) -> Part:
    if blameless(incident.fault):
        return Part.BYSTANDER
    if ref in incident.parts:
        return incident.parts[ref]
    known = incident.attribution
    if known is None or not (known.culprit or known.blameless):
        return Part.UNKNOWN
    return Part.CULPRIT if known.culprit is not None and known.culprit.task == ref else Part.BYSTANDER


def _decide(turn: Turn, incident: Incident) -> None:
    server, waits = incident.server, turn.now.mono < incident.deadline
    radius = incidents.radius(turn, incident)
    incident = turn.incident(incident, radius=radius)
    if isinstance(radius, Partition) and not radius.proven and Source.GUARD not in incident.sources and waits:
        return
    earlier = suspicion(turn.history, server.domain, server.gpu, turn.now.mono)
    pair = turn.pair_of(server)
    known = pair.servers.get(server.color) if pair else None
    evidence = (*incident.evidence, *killed_before(known, incident.opened))
    result = attribute(evidence, incident.fault, radius, earlier)
    sure = result.blameless or result.confidence is Confidence.CERTAIN
    if sure or not waits:
        _settle_on(turn, incident, result)


def _settle_on(turn: Turn, incident: Incident, result: Attribution) -> None:
    """Write down who did it, split the suspects, and say so."""
    server = incident.server
    guilty = result.culprit.task if result.culprit else None
    parts: dict[TaskRef, Part] = {}
    for ref in incident.clients:
        if ref == guilty:
            parts[ref] = Part.CULPRIT
        else:
            parts[ref] = Part.SUSPECT if ref in result.suspects else Part.BYSTANDER
    incident = turn.incident(incident, attribution=result, parts=parts)
    pair = turn.pair_of(server)
    record = rec.IncidentAttributed(
        incident=incident.id,
        fault=incident.fault.kind,
        culprit=result.culprit,
        confidence=result.confidence,
        suspects=tuple(sorted(result.suspects)),
        why=result.why,
        isolated=incident.isolated,
        ms=_ms(turn, incident),
        blameless=result.blameless or None,
        gpu=incident.uuid,
        words=incident.fault.numbers(),
        parts=parts,
        isolation=_level(pair) if pair else "",
    )
    turn.journal(record)
    for job in {ref.job for ref in incident.clients}:
        turn.job_line(job, record)
    strikes.give(turn, incident, result)
    if result.culprit is not None:
        turn.history = cleared(turn.history, server.domain, server.gpu)
    elif result.suspects and incident.hit and not turn.observe:
        turn.history = with_suspicion(
            turn.history,
            server.domain,
            server.gpu,
            turn.now.mono,
            clients=incident.clients,
            suspects=result.suspects,
        )
        if len(result.suspects) > 1:
            _split(turn, incident, result)
    strikes.apart(turn, turn.incidents[incident.id], guilty)


def _level(pair: Pair) -> str:
    """What keeps faults from neighbours in a domain, in words."""
    also = ", SM partitions" if pair.partitioned and pair.isolation is not Isolation.SM else ""
    return f"{LEVELS[pair.isolation]}{also}"


def _split(turn: Turn, incident: Incident, result: Attribution) -> None:
    """Two halves, two servers. The first half goes where bystanders would, if no one else runs there."""
    free, where = servers.free_of_others(turn, incident.server, result.suspects)
    here = [turn.tasks[ref] for ref in result.suspects if ref in turn.tasks]
    ready = frozenset(task.ref for task in here if free and task.ready)
    first, second = split((task.ref for task in here), ready, result.alone)
    alone = [second] if free else [first, second]
    targets = dict.fromkeys(first, where) if free and where else {}
    for group in alone:
        if group:
            quarantine = servers.open_quarantine(turn, incident.server)
            targets.update(dict.fromkeys(group, quarantine))
    turn.incident(incident, apart=targets)


def condemn(turn: Turn, gpu: GpuMinor, seen: Observation, fault: Fault) -> None:
    """The GPU is out of use: whoever runs on it is requeued elsewhere or fails, and the node is drained."""
    uuid, fresh = GpuUuid(""), False
    for pair in incidents.of_gpu(turn, gpu):
        uuid = dict(pair.gpus)[gpu]
        for color in list(pair.servers):
            server = pair.server(color)
            if not turn.tasks_on(server) and incidents.joinable(turn, server) is None:
                servers.condemned(turn, server)
                continue
            incident = incidents.joinable(turn, server)
            if incident is None:
                incident = incidents.open_incident(turn, server, fault)
            fresh = fresh or not incident.fault.device.out_of_use or not incident.sources
            everyone = frozenset(task.ref for task in turn.tasks_on(server))
            incident = turn.incident(
                incident,
                fault=merge(incident.fault, fault),
                gpus=(uuid,),
                sources=(*incident.sources, seen.source)[:16],
                hit=True,
                clients=incident.clients | everyone,
            )
            servers.condemned(turn, server)
            if not incident.decided:
                why = (f"{fault.numbers()}: nobody's doing",)
                _settle_on(turn, incident, Attribution(confidence=Confidence.NONE, blameless=True, why=why))
    for incident in list(turn.incidents.values()):
        if gpu in servers.over(turn, incident.server) and incident.fault.device.out_of_use and incident.decided:
            for ref in sorted(incident.clients):
                recover.give_up(turn, incident.id, ref)
            outside.look(turn, turn.incidents[incident.id])
    if fresh:
        jobs.drain(turn, uuid, fault)


def settle_all(turn: Turn) -> None:
    """Close what is over: accounts for jobs whose tasks all have their outcome, then the incident itself."""
    for incident in list(turn.incidents.values()):
        if incident.decided:
            _account(turn, turn.incidents[incident.id])
            _close(turn, turn.incidents[incident.id])
        elif turn.pair_of(incident.server) is None:
            del turn.incidents[incident.id]
            _closed(turn, incident, outcome="every task had ended")


def _account(turn: Turn, incident: Incident) -> None:
    by_job: dict[JobId, list[TaskRef]] = {}
    for ref in incident.cases:
        by_job.setdefault(ref.job, []).append(ref)
    for job, refs in by_job.items():
        cases = [incident.cases[ref] for ref in refs]
        if job in incident.accounted:
            continue
        expected = [
            ref for ref in incident.clients if ref.job == job and ref in turn.tasks and ref not in incident.cases
        ]
        waits = incident.hit and any(not turn.tasks[ref].over for ref in expected)
        if waits or not all(case.outcome.settled for case in cases):
            if any(case.outcome is Outcome.FAILED for case in cases):
                jobs.comment(turn, _accounted(turn, incident, job, cases))  # Slurm takes none of a job that has ended
            continue
        incident = turn.incident(incident, accounted=incident.accounted | {job})
        if all(case.outcome is Outcome.GONE and ref in turn.tasks for ref, case in zip(refs, cases, strict=True)):
            continue  # another incident has taken its tasks over, and accounts for them
        record = _accounted(turn, incident, job, cases)
        turn.journal(record)
        turn.job_line(job, record)
        if all(case.action is not Action.REQUEUE or case.outcome is Outcome.FAILED for case in cases):
            jobs.comment(turn, record)


_WORST = (Outcome.FAILED, Outcome.REQUEUED, Outcome.RECOVERED, Outcome.GONE)


def _accounted(turn: Turn, incident: Incident, job: JobId, cases: list[Case]) -> rec.JobAccounted:
    """The worst outcome of the job's tasks, and its longest recovery."""
    known = turn.jobs.get(job)
    outcome = next((worst for worst in _WORST if any(case.outcome is worst for case in cases)), None)
    failed = next((case for case in cases if case.outcome is Outcome.FAILED), None)
    back = [case for case in cases if case.outcome is Outcome.RECOVERED] if outcome is Outcome.RECOVERED else []
    slowest = max(back, key=lambda case: case.ms, default=None)
    return rec.JobAccounted(
        **jobs.facts(incident),
        job=job,
        faults=known.faults if known else 1,
        own=any(case.part is Part.CULPRIT for case in cases),
        isolated=incident.isolated,
        outcome=outcome or "",
        action=(slowest.action or "") if slowest else "",
        tasks=len(back),
        ms=slowest.ms if slowest else None,
        reason=failed.reasons[-1] if failed and failed.reasons else "",
        outside=tuple(sorted(pid for pid, of in incident.outside.items() if of == job and incident.hit)),
    )


def _close(turn: Turn, incident: Incident) -> None:
    if any(not case.outcome.settled for case in incident.cases.values()):
        return
    if incident.hit:
        if turn.health(incident.server) in (Health.FAULTED, Health.REPLACING, Health.OPENING):
            return
        if any(
            ref not in incident.cases
            and ref in turn.tasks
            and not turn.tasks[ref].over
            and turn.tasks[ref].server == incident.server
            for ref in incident.clients
        ):
            return
    elif _may_grow(turn, incident):
        return
    strikes.closed(turn, incident)
    del turn.incidents[incident.id]
    for ref in incident.cases:
        task = turn.tasks.get(ref)
        if task is not None and task.incident == incident.id:
            turn.task(ref, incident=None)
    _closed(turn, incident, culprit=jobs.blamed(incident), ms=_ms(turn, incident))


def _may_grow(turn: Turn, incident: Incident) -> bool:
    """Whether more tasks may find out that a fault has hit them."""
    if incident.missed:
        return incidents.recent(turn, incident)
    within = turn.now.mono - incident.opened < turn.recovery.incident_window_ms / 1000
    return within and turn.pair_of(incident.server) is not None


def _closed(turn: Turn, incident: Incident, **more: Any) -> None:
    """The last word on a fault: all that is known of it by now. Figures are made from it (resilience/metrics)."""
    attribution = incident.attribution
    turn.journal(
        rec.IncidentClosed(
            incident=incident.id,
            server=incident.server,
            gpu=incident.uuid,
            fault=incident.fault.numbers(),
            fault_class=incident.fault.kind,
            xid=incident.fault.xid or None,
            confidence=attribution.confidence if attribution else "",
            blameless=True if attribution and attribution.blameless else None,
            isolated=incident.isolated,
            parts={ref: case.part for ref, case in incident.cases.items()},
            outcomes={ref: case.outcome for ref, case in incident.cases.items()},
            **more,
        )
    )


def _ms(turn: Turn, incident: Incident) -> float:
    return round((turn.now.mono - incident.opened) * 1000, 3)
