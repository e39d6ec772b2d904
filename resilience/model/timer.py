"""Moments that the machine waits for: a closed union. One that is set anew moves; a stale one does nothing."""

from dataclasses import dataclass

from resilience.model.ids import IncidentId, JobId, ServerId, TaskRef


@dataclass(frozen=True, slots=True)
class Decide:
    """The wait for the culprit's name is over."""

    incident: IncidentId


@dataclass(frozen=True, slots=True)
class Window:
    """No sighting joins the incident any more; a look whether it is over."""

    incident: IncidentId


@dataclass(frozen=True, slots=True)
class RungDue:
    """What a task was told in an incident must have worked by now."""

    incident: IncidentId
    ref: TaskRef


@dataclass(frozen=True, slots=True)
class Settle:
    """A failed process of a task has waited for news of a fault long enough."""

    ref: TaskRef
    pid: int


@dataclass(frozen=True, slots=True)
class StandbyAgain:
    """A standby that ended by itself is started again."""

    ref: TaskRef


@dataclass(frozen=True, slots=True)
class AskState:
    """The control daemon is asked for a server's state once."""

    server: ServerId


@dataclass(frozen=True, slots=True)
class ProveState:
    """The same, to show that a fault stayed in its SM partition."""

    server: ServerId


@dataclass(frozen=True, slots=True)
class PollState:
    """The same, again and again, while the server recovers."""

    server: ServerId


@dataclass(frozen=True, slots=True)
class RebuildDue:
    """The server must have recovered by now."""

    server: ServerId


@dataclass(frozen=True, slots=True)
class SpillDue:
    """The tasks of a job must have spilled by now."""

    job: JobId


@dataclass(frozen=True, slots=True)
class RequeueAgain:
    """Slurm did not answer about a requeue: it is asked again."""

    job: JobId


@dataclass(frozen=True, slots=True)
class Unanswered:
    """An answer about a requeue is not waited for any more."""

    job: JobId


@dataclass(frozen=True, slots=True)
class LookUpAgain:
    """Slurm has said nothing of a job so far."""

    job: JobId


StoppedCounts = RungDue | SpillDue | RequeueAgain
"""Time in which a task is stopped does not count for these: it is looked at first."""
OfServer = AskState | ProveState | PollState | RebuildDue
Timer = Decide | Window | Settle | StandbyAgain | Unanswered | LookUpAgain | StoppedCounts | OfServer
