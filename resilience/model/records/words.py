"""Phrases that several sentences share. Pure."""

from collections.abc import Iterable, Mapping

from resilience.model.ids import JobId, TaskRef
from resilience.model.incident import Action, Part

ACTIONS: dict[str, str] = {
    Action.NONE: "nothing is done: no fault of the GPU is known, and its exit status is passed on",
    Action.PROMOTE: "its standby takes over",
    Action.RESTORE: "it starts again on a healthy server and goes on from its last commit",
    Action.RELAUNCH: "it starts again from scratch, in the same allocation",
    Action.QUARANTINE: "it goes on alone, on a server of its own",
    Action.REQUEUE: "Slurm takes the job back; kept state is written to disk first",
    Action.FAIL: "it ends",
}
PARTS: dict[str, str] = {
    Part.CULPRIT: "which caused the fault",
    Part.BYSTANDER: "a bystander",
    Part.SUSPECT: "one of the suspects",
    Part.UNKNOWN: "whose part is not known",
}


def names(items: Iterable[object]) -> str:
    return ", ".join(map(str, items))


def because(text: str | Iterable[str]) -> str:
    """`: reason`, or nothing."""
    said = text if isinstance(text, str) else names(text)
    return f": {said}" if said else ""


def whom(task: TaskRef | None, job: JobId | None = None) -> str:
    """Whom a record is about."""
    if task is not None:
        return task.words()
    return f"job {job}" if job is not None else "a task"


def counted(outcomes: Mapping[TaskRef, str]) -> str:
    """`2 recovered, 1 failed`."""
    count: dict[str, int] = {}
    for outcome in outcomes.values():
        count[outcome] = count.get(outcome, 0) + 1
    return ", ".join(f"{number} {outcome}" for outcome, number in count.items())


def after(ms: float | None) -> str:
    return f" after {ms:g} ms" if ms is not None else ""


def printable(text: str) -> str:
    """One line for a terminal, whatever others wrote into it."""
    return "".join(char if char.isprintable() else "?" for char in text)
