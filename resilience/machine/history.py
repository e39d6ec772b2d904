"""What earlier faults teach: the breaker's count per hour, who was under suspicion before, what the last agent did. Pure.

Dry runs are never recorded here, so that observing cannot open a breaker.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from resilience.model.ids import DomainKey, GpuMinor, TaskRef
from resilience.model.world import History, Suspicion

HOUR = 3600.0
"""Seconds that a requeue, a drain or a suspicion counts."""
_DRIFT = 60.0
"""Seconds by which two clocks may differ in the age of a line of the journal; another boot's line differs by more."""


def recent(times: tuple[float, ...], now: float) -> tuple[float, ...]:
    """Those of the last hour."""
    return tuple(at for at in times if now - at < HOUR)


def may_requeue(history: History, limit: int, uid: int, now: float) -> bool:
    """Whether one more is allowed for a job of this user. A quarter of the hour's requeues is kept for others: who has
    fault after fault, or makes them, does not use up all of them."""
    taken = _lately(history, now)
    return len(taken) < limit and sum(of == uid for _, of in taken) < limit - limit // 4


def _lately(history: History, now: float) -> tuple[tuple[float, int], ...]:
    return tuple((at, uid) for at, uid in history.requeues if now - at < HOUR)


def may_drain(history: History, limit: int, now: float) -> bool:
    return len(recent(history.drains, now)) < limit


def with_requeue(history: History, uid: int, now: float) -> History:
    return replace(history, requeues=(*_lately(history, now), (now, uid)))


def with_drain(history: History, now: float) -> History:
    return replace(history, drains=(*recent(history.drains, now), now))


def suspicion(history: History, domain: DomainKey, gpu: GpuMinor, now: float) -> Suspicion | None:
    """The last unattributed fault of this domain and GPU, when it still counts."""
    last = history.suspicions.get((domain, gpu))
    return last if last is not None and now - last.at < HOUR else None


def with_suspicion(
    history: History,
    domain: DomainKey,
    gpu: GpuMinor,
    now: float,
    *,
    clients: frozenset[TaskRef],
    suspects: frozenset[TaskRef],
) -> History:
    """Remember who it must be among; those still suspected elsewhere stay suspected only if they were here."""
    kept: Mapping[tuple[DomainKey, GpuMinor], Suspicion] = {
        key: item for key, item in history.suspicions.items() if now - item.at < HOUR
    }
    entry = Suspicion(at=now, clients=clients, suspects=suspects)
    return replace(history, suspicions={**kept, (domain, gpu): entry})


def cleared(history: History, domain: DomainKey, gpu: GpuMinor) -> History:
    """A culprit was named: nobody is under suspicion any more."""
    rest = {key: item for key, item in history.suspicions.items() if key != (domain, gpu)}
    return replace(history, suspicions=rest)


def recalled(rows: Iterable[Mapping[str, object]], wall: float, mono: float) -> History:
    """What an earlier agent of this boot has asked Slurm for in the last hour, by the journal's lines: a breaker that
    opened stays open when the agent is started anew. `wall`, `mono`: now, by both clocks."""
    history = History()
    for row in rows:
        at, then, uid = row.get("mono"), row.get("wall"), row.get("uid")
        if row.get("event") != "slurm.intent" or not isinstance(at, float) or not isinstance(then, float):
            continue
        if not 0 <= mono - at < HOUR or abs((wall - then) - (mono - at)) > _DRIFT:
            continue
        if row.get("ask") == "requeue" and isinstance(uid, int):
            history = with_requeue(history, uid, at)
        elif row.get("ask") == "drain":
            history = with_drain(history, at)
    return history


def unfinished(rows: Iterable[Mapping[str, object]]) -> tuple[Mapping[str, object], ...]:
    """slurm.intent without slurm.outcome, incident.opened without incident.closed, since the last agent began."""
    open_ones: dict[tuple[str, str], Mapping[str, object]] = {}
    for row in rows:
        match row.get("event"):
            case "agent.started":
                open_ones.clear()
            case "slurm.intent":
                open_ones["slurm", f"{row.get('ask')} {row.get('job')}"] = row
            case "slurm.outcome":
                open_ones.pop(("slurm", f"{row.get('ask')} {row.get('job')}"), None)
            case "incident.opened":
                open_ones["incident", str(row.get("incident"))] = row
            case "incident.closed":
                open_ones.pop(("incident", str(row.get("incident"))), None)
            case _:
                pass
    return tuple(open_ones.values())
