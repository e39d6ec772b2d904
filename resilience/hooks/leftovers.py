"""Spilled state of jobs that have ended: it goes with the job, unless Slurm is to start the job again.

The rule (docs/reference/protocols.md §8): the epilog asks Slurm about a job that left something on disk. Is it over for
good, its files are removed as the job's user. Is it to start again, is the agent just asking for that (a mark beside
the lease), or cannot Slurm be asked, they stay, and a record on this node remembers them. Later epilogs of the node and
`mpsr spills --clean` go through the records: so a job that is cancelled while it waits for its next run is cleaned up
as well.

What stays of a user's files is told, but it is never a failure of the node: users could have nodes drained with it.
"""

import os
from functools import partial

from resilience import contract
from resilience.adapters.linux.as_user import as_user
from resilience.adapters.linux.spill_records import SpillRecord
from resilience.hooks.node import Node
from resilience.model.errors import ResilienceError
from resilience.model.ids import JobId
from resilience.parse.job_environment import JobEnvironment

_SECONDS = 10.0
"""For one look or one removal: a user's file system may hang."""
_REST = 600.0
"""Seconds between two questions to Slurm about one job."""
_MOST = 2
"""Records that one epilog goes through: its time is bounded, and there will be other epilogs."""
KEPT = "kept for the job's next run"


def settle(node: Node, job: JobEnvironment, gid: int) -> str:
    """What becomes of the spilled state of a job that has left this node, in words; empty when there is none."""
    notes = contract.path("spill_notes", run=node.settings.paths.run, node=node.name, job=job.job)
    before = _recorded(node, job.job)
    if before is None and not os.path.lexists(notes):
        return ""
    known = before.directories if before is not None and before.uid == job.uid else ()
    try:
        directories, files = as_user(job.uid, gid, partial(_look, notes, job.job, known), seconds=_bound(node))
        record = SpillRecord(job=job.job, uid=job.uid, gid=gid, restart=job.restart, directories=tuple(directories))
        if files and (os.path.lexists(mark(node, job.job)) or not _over(node, record)):
            node.spills.keep(record)
            return f"{KEPT}: {', '.join(directories)}"
        return _clear(node, record)
    except (ResilienceError, OSError) as error:
        return f"not looked at: {error}"


def sweep(node: Node, *, most: int = _MOST, rest: float = _REST) -> list[tuple[SpillRecord, str]]:
    """Go through the records of jobs about which Slurm was not asked lately; each with what became of it."""
    done: list[tuple[SpillRecord, str]] = []
    for asked, record in node.spills.all():
        if len(done) >= most:
            break
        if 0 <= node.clock.wall() - asked < rest:  # a time to come is of a clock that was stepped back
            continue
        done.append((record, _again(node, record)))
    return done


def recheck(node: Node, job: JobId) -> None:
    """A requeue has been answered: what the epilog has left in place for it may have no purpose any more."""
    if (record := _recorded(node, job)) is not None:
        _again(node, record)


def mark(node: Node, job: JobId) -> str:
    """The file that says that the agent asks Slurm just now to start this job again."""
    return contract.path("requeue_mark", run=node.settings.paths.run, node=node.name, job=job)


def _again(node: Node, record: SpillRecord) -> str:
    try:
        over = _over(node, record)
        node.spills.asked(record.job)
        return (_clear(node, record) or "removed") if over else KEPT
    except (ResilienceError, OSError) as error:
        return f"kept: {error}"


def _recorded(node: Node, job: JobId) -> SpillRecord | None:
    return next((record for _, record in node.spills.all() if record.job == job), None)


def _look(notes: str, job: int, known: tuple[str, ...]) -> list[object]:
    """As the user: directories, and the number of files there."""
    from resilience.state import leftover  # most jobs have left nothing, and their epilogs do without

    directories = list(dict.fromkeys([*known, *leftover.noted(notes)]))
    return [directories, sum(leftover.count(directory, job) for directory in directories)]


def _remove(directories: tuple[str, ...], job: int) -> list[str]:
    """As the user."""
    from resilience.state import leftover

    return [wrong for directory in directories for wrong in leftover.clear(directory, job)]


def _over(node: Node, record: SpillRecord) -> bool:
    """Whether the job is over for good; False as well when Slurm does not say."""
    try:
        return node.over(record.job, record.restart)
    except ResilienceError:
        return False


def _clear(node: Node, record: SpillRecord) -> str:
    """Remove everything as the job's user; what is left, in words."""
    work = partial(_remove, record.directories, record.job)
    left = as_user(record.uid, record.gid, work, seconds=_bound(node))
    node.spills.forget(record.job)
    return f"left behind: {'; '.join(left)}" if left else ""


def _bound(node: Node) -> float:
    return min(_SECONDS, node.left())
