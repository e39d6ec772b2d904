"""GPU time that recoveries in place have kept, counted against a requeue that starts from scratch. Pure.

The rule, which docs/how-to/report.md and the report page tell too. When a fault is over, each job that it hit and that did not
cause it keeps the time since it was opened on the node, times its GPUs there, if all of its tasks that were hit came back
with a commit. Of a GPU that n jobs hold, 1/n belongs to each. A stretch counts once: after a fault the job's time begins anew,
also when a task started from scratch and nothing was kept. Recovery's own time is taken off. The time that a requeued job waits in
the queue is not counted; neither are jobs whose opening is not among the records.
"""

from dataclasses import dataclass, field

from resilience.model import records as rec
from resilience.model.ids import JobId, TaskRef
from resilience.model.incident import Outcome, Part
from resilience.model.records.journal import Entry

BRIEF = (
    "Each job that a fault hit and that did not cause it keeps the time since its start on the node (or since its last fault), times its "
    "share of the GPUs there: 1/n of a GPU that n jobs hold. It counts only if all of its tasks that were hit came back with a commit, and "
    "the recovery's own time is taken off. A requeue is taken to start from scratch; a program that writes its own checkpoints would lose "
    "less. The wait in the queue is not counted."
)
_MOST = 1e9
"""Seconds: no job is older."""
_OPEN = 256
"""Incidents without an end that are remembered at most: an agent that was killed leaves some."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """What one fault would have cost one job."""

    incident: str
    job: JobId
    seconds: float
    """GPU-seconds."""


@dataclass(slots=True)
class _Held:
    gpus: tuple[int, ...]
    since: float


@dataclass(slots=True)
class _Fault:
    at: float
    back: dict[TaskRef, tuple[bool, float]] = field(default_factory=dict)
    """Task → whether it goes on from a commit, and seconds until it did."""


class Savings:
    """Takes a journal's records in their order."""

    def __init__(self) -> None:
        self._jobs: dict[JobId, _Held] = {}
        self._faults: dict[str, _Fault] = {}
        self._boot = ""

    def take(self, entry: Entry) -> tuple[Saved, ...]:
        """What this record has settled: nothing, but for the end of an incident."""
        now = entry.wall if entry.mono is None else entry.mono
        match entry.record:
            case rec.AgentStarted() as started:
                if started.boot != self._boot:
                    self._jobs.clear()
                self._boot = started.boot
                self._faults.clear()
            case rec.JobOpened() as job if job.job is not None:
                self._jobs[job.job] = _Held(gpus=job.gpus, since=now)
            case rec.JobClosed() as job if job.job is not None:
                self._jobs.pop(job.job, None)
            case rec.IncidentOpened() as opened:
                if len(self._faults) >= _OPEN:
                    del self._faults[next(iter(self._faults))]
                self._faults[opened.incident] = _Fault(at=now)
            case rec.Recovered() as back if back.task is not None and back.incident in self._faults:
                kept = back.seq is not None and back.seq >= 0
                self._faults[back.incident].back[back.task] = kept, (back.ms or 0) / 1000
            case rec.IncidentClosed() as closed:
                return self._settle(closed)
            case _:
                pass
        return ()

    def _settle(self, closed: rec.IncidentClosed) -> tuple[Saved, ...]:
        fault = self._faults.pop(closed.incident, None)
        if fault is None or closed.same_as:
            return ()
        found = []
        for job in sorted({task.job for task in closed.outcomes}):
            held = self._jobs.get(job)
            tasks = [task for task in closed.outcomes if task.job == job and closed.outcomes[task] != Outcome.GONE]
            own = any(closed.parts.get(task) == Part.CULPRIT for task in closed.outcomes if task.job == job)
            if held is None or not tasks or not all(closed.outcomes[task] == Outcome.RECOVERED for task in tasks):
                continue
            back = [fault.back.get(task, (False, 0.0)) for task in tasks]
            spent = fault.at - held.since - max(seconds for _, seconds in back)
            if not own and 0 < spent < _MOST and all(kept for kept, _ in back):
                found.append(Saved(incident=closed.incident, job=job, seconds=spent * self._share(held)))
            held.since = fault.at
        return tuple(found)

    def _share(self, held: _Held) -> float:
        """The job's part of its GPUs."""
        return sum(1 / sum(gpu in other.gpus for other in self._jobs.values()) for gpu in held.gpus)
