"""What earlier faults teach: the breaker's count per hour, who was under suspicion before, what the last agent did. Pure.

Dry runs are never recorded here, so that observing cannot open a breaker.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from resilience.model.event import Ask
from resilience.model.ids import DomainKey, GpuMinor, TaskRef
from resilience.model.records import AgentStarted, IncidentClosed, IncidentOpened, Record, SlurmIntent, SlurmOutcome
from resilience.model.records.journal import Entry
from resilience.model.world import History, Suspicion

_INTERRUPTED: dict[str, Any] = {"ok": False, "outcome": "interrupted", "detail": "the agent had ended"}
HOUR = 3600.0
"""Seconds that a requeue, a drain or a suspicion counts."""
_DISORDER = 60.0
"""Seconds by which a line's monotonic time may be before that of the line above it: several processes write."""
_STEP = 86400.0
"""Seconds that a wall clock is stepped at most, where nothing else tells whether a line is of another boot."""


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


def recalled(entries: Iterable[Entry], wall: float, mono: float, boot: str = "") -> History:
    """What an earlier agent of this boot has asked Slurm for in the last hour, by the journal's lines in their order: a
    breaker that opened stays open when the agent is started anew, and however the wall clock was stepped since.

    `wall`, `mono`: now, by both clocks; `boot`: this boot's id. A line is of the boot that the last agent.started names.
    Where that line is not there any more the monotonic clock tells, which begins again at a boot.
    """
    history, of, last = History(), "", 0.0
    for entry in entries:
        intent, at = entry.record, entry.mono
        if at is None:
            continue
        disorder = at < last - _DISORDER
        if isinstance(intent, AgentStarted):
            of = intent.boot or ""
        elif disorder:
            of = ""
        if disorder or (of and boot and of != boot):
            history = History()
        last = at
        foreign = of != boot if of and boot else abs((wall - entry.wall) - (mono - at)) > _STEP
        if not isinstance(intent, SlurmIntent) or foreign or not 0 <= mono - at < HOUR:
            continue
        if intent.ask == Ask.REQUEUE and intent.uid is not None:
            history = with_requeue(history, intent.uid, at)
        elif intent.ask == Ask.DRAIN:
            history = with_drain(history, at)
    return history


def unfinished(entries: Iterable[Entry]) -> tuple[Record, ...]:
    """The ends of what the last agent began and did not end: requests to Slurm without an answer, open incidents."""
    ends: dict[tuple[str, str], Record] = {}
    for record in (entry.record for entry in entries):
        match record:
            case AgentStarted():
                ends.clear()
            case SlurmIntent():
                ends["slurm", f"{record.ask} {record.job}"] = SlurmOutcome(
                    incident=record.incident, ask=record.ask, job=record.job, **_INTERRUPTED
                )
            case SlurmOutcome():
                ends.pop(("slurm", f"{record.ask} {record.job}"), None)
            case IncidentOpened():
                ends["incident", record.incident] = IncidentClosed(incident=record.incident, **_INTERRUPTED)
            case IncidentClosed():
                ends.pop(("incident", record.incident), None)
            case _:
                pass
    return tuple(ends.values())
