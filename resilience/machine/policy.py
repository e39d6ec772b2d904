"""What a task may still be offered: the recovery ladder, the culprit's fate, the splitting of suspects. Pure.

The ladder, fastest rung first: promote the standby, start again on kept state, start again from scratch, requeue the
job, fail. A rung is open when the job's options allow it, when it was not tried in this incident, and when the world
has what it needs. The retries count recoveries in place: when they are used up only requeue and fail are left. MPI
tasks cannot come back alone, so they have only requeue and fail.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from resilience.model.ids import TaskRef
from resilience.model.incident import Action
from resilience.model.options import OnCulprit, Rung
from resilience.model.world import Task

ACTIONS = {
    Rung.STANDBY: Action.PROMOTE,
    Rung.RESTORE: Action.RESTORE,
    Rung.RELAUNCH: Action.RELAUNCH,
    Rung.REQUEUE: Action.REQUEUE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What the world has for one task at this moment. Empty text: it can be had; else why not."""

    standby: str = ""
    server: str = ""
    requeue: str = ""


def closed(rung: Rung, task: Task, means: Means, tried: tuple[Rung, ...], counted: bool) -> str:
    """Why a rung is closed to a task, empty when it is open. `counted`: this incident has its retry already."""
    if rung not in task.options.recover:
        return f"{rung.value}: not in --mps-recover"
    if rung in tried:
        return f"{rung.value}: tried"
    if rung is Rung.REQUEUE:
        return f"requeue: {means.requeue}" if means.requeue else ""
    if task.mpi:
        return f"{rung.value}: an MPI task cannot come back alone"
    if not counted and task.retries >= task.options.retries:
        return f"{rung.value}: {_used_up(task)}"
    if rung is Rung.STANDBY:
        return f"standby: {means.standby}" if means.standby else ""
    if rung is Rung.RESTORE and not task.session:
        return "restore: no session"
    return f"{rung.value}: {means.server}" if means.server else ""


def _used_up(task: Task) -> str:
    return f"{task.options.retries} retries used" if task.options.retries else "--mps-retries=0"


def climb(task: Task, means: Means, tried: tuple[Rung, ...], counted: bool) -> tuple[Rung | None, tuple[str, ...]]:
    """The fastest open rung, or None with the reason for each that is closed."""
    reasons: list[str] = []
    for rung in Rung:
        if not (why := closed(rung, task, means, tried, counted)):
            return rung, tuple(reasons)
        reasons.append(why)
    return None, tuple(reasons)


def culprit(task: Task, requeue: str) -> tuple[Action, str]:
    """What becomes of the task that did it, and why. `requeue`: why the job cannot be requeued, empty when it can."""
    wish = task.options.on_culprit
    if wish is OnCulprit.QUARANTINE:
        if task.mpi:
            return Action.FAIL, "an MPI task cannot be quarantined alone"
        if task.retries >= task.options.retries:
            return Action.FAIL, _used_up(task)
        return Action.QUARANTINE, ""
    if wish is OnCulprit.REQUEUE:
        return (Action.FAIL, f"cannot be requeued: {requeue}") if requeue else (Action.REQUEUE, "")
    return Action.FAIL, ""


def split(
    suspects: Iterable[TaskRef], ready: frozenset[TaskRef], alone: TaskRef | None
) -> tuple[frozenset[TaskRef], frozenset[TaskRef]]:
    """Two halves that go on on separate servers, so that a second fault halves the suspects.

    The first half goes where bystanders would, so those with a ready standby come first. A task that weak evidence
    points at goes alone.
    """
    order = sorted(suspects, key=lambda ref: (ref not in ready, ref))
    if alone is not None:
        return frozenset(ref for ref in order if ref != alone), frozenset({alone})
    half = (len(order) + 1) // 2
    return frozenset(order[:half]), frozenset(order[half:])
