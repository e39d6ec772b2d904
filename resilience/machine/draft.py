"""One turn of the machine: a working copy of the state, and the effects so far. Lives inside one call of step().

The handlers change the copy through the methods here; `result()` freezes it again. Everything that acts on the world
goes through `act`, which in observe mode writes the intention to the journal, marked as a dry run, and does nothing.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, TypeVar

from resilience.model import effect as fx
from resilience.model import records as rec
from resilience.model.ids import DomainKey, GpuMinor, IncidentId, JobId, ServerId, TaskRef
from resilience.model.incident import Case, Incident
from resilience.model.timer import StoppedCounts, Timer
from resilience.model.world import Health, Job, KnownServer, Moment, Pair, State, Strike, Task

_T = TypeVar("_T")


class Turn:
    def __init__(self, state: State, now: Moment) -> None:
        self.now = now
        self.old = state
        self.recovery = state.recovery
        self.mps = state.mps
        self.node = state.node
        self.observe = state.recovery.mode == "observe"
        self.tasks: dict[TaskRef, Task] = dict(state.tasks)
        self.pairs: dict[tuple[DomainKey, GpuMinor], Pair] = dict(state.pairs)
        self.jobs: dict[JobId, Job] = dict(state.jobs)
        self.incidents: dict[IncidentId, Incident] = dict(state.incidents)
        self.strays = state.strays
        self.history = state.history
        self.count = state.count
        self.complete = now.mono >= state.complete
        self.guard = state.guard
        self.effects: list[fx.Effect] = []

    def result(self) -> tuple[State, tuple[fx.Effect, ...]]:
        state = replace(
            self.old,
            tasks=self.tasks,
            pairs=self.pairs,
            jobs=self.jobs,
            incidents=self.incidents,
            strays=self.strays,
            history=self.history,
            count=self.count,
            guard=self.guard,
        )
        return state, tuple(self.effects)

    # ------------------------------------------------------------ effects
    def do(self, effect: fx.Effect) -> None:
        """An effect that changes nothing outside our own records."""
        self.effects.append(effect)

    def act(self, effect: fx.Effect) -> bool:
        """An effect on the world. False in observe mode, where it is only written down."""
        if self.observe:
            job, server = getattr(effect, "job", None), getattr(effect, "server", None)
            self.journal(rec.Verdict(dry_run=True, would=type(effect).__name__, job=job, server=server))
            return False
        self.effects.append(effect)
        return True

    def journal(self, record: rec.Record) -> None:
        self.effects.append(fx.WriteJournal(record=record))

    def job_line(self, job: JobId, record: rec.Record) -> None:
        """Have a job's recovery log tell of a record."""
        self.effects.append(fx.JobLine(job=job, record=record))

    def timer(self, timer: Timer, *, after: float) -> None:
        """Set a timer, in seconds from now."""
        self.effects.append(fx.SetTimer(timer=timer, at=self.now.mono + after))

    def look(self, about: StoppedCounts, *, refs: Iterable[TaskRef]) -> None:
        """Have it seen whether a process of these tasks is stopped."""
        self.effects.append(fx.Look(about=about, refs=tuple(sorted(refs))))

    def struck(self, strikes: tuple[Strike, ...]) -> None:
        self.history = replace(self.history, strikes=strikes)

    # ------------------------------------------------------------ tasks
    def task(self, ref: TaskRef, /, **changes: Any) -> Task:
        """The task after these changes."""
        task = replace(self.tasks[ref], **changes)
        self.tasks[ref] = task
        return task

    def leave(self, ref: TaskRef, *pids: int) -> None:
        """Note processes that the task has left behind."""
        task = self.tasks[ref]
        left = [*(pid for pid in task.left if pid not in pids), *(pid for pid in pids if pid)]
        self.task(ref, left=tuple(left[-16:]))

    def tasks_on(self, server: ServerId) -> list[Task]:
        """Tasks whose active process uses this server."""
        return [task for task in self.tasks.values() if task.server == server and task.placed and not task.over]

    def tasks_of(self, job: JobId) -> list[Task]:
        return [task for task in self.tasks.values() if task.ref.job == job]

    # ------------------------------------------------------------ servers
    def pair_of(self, server: ServerId) -> Pair | None:
        return self.pairs.get((server.domain, server.gpu))

    def health(self, server: ServerId) -> Health:
        pair = self.pair_of(server)
        return pair.health(server.color) if pair else Health.DOWN

    def pair(self, pair: Pair, /, **changes: Any) -> Pair:
        pair = replace(pair, **changes)
        self.pairs[pair.domain, pair.gpu] = pair
        return pair

    def server(self, server: ServerId, /, **changes: Any) -> KnownServer | None:
        """The server after these changes; None when its pair is unknown."""
        pair = self.pair_of(server)
        if pair is None:
            return None
        changed = replace(pair.servers.get(server.color, KnownServer()), **changes)
        self.pair(pair, servers={**pair.servers, server.color: changed})
        return changed

    # ------------------------------------------------------------ incidents
    def incident(self, incident: Incident, /, **changes: Any) -> Incident:
        incident = replace(incident, **changes)
        self.incidents[incident.id] = incident
        return incident

    def case(self, incident: IncidentId, ref: TaskRef, /, **changes: Any) -> Case:
        """The case after these changes; it exists."""
        entry = self.incidents[incident]
        case = replace(entry.cases[ref], **changes)
        self.incidents[incident] = replace(entry, cases={**entry.cases, ref: case})
        return case

    def open_case(self, ref: TaskRef) -> tuple[Incident, Case] | None:
        """The task's unsettled case."""
        task = self.tasks.get(ref)
        incident = self.incidents.get(task.incident) if task and task.incident else None
        case = incident.cases.get(ref) if incident else None
        if incident is None or case is None or case.outcome.settled:
            return None
        return incident, case
