"""What the machine wants done: a closed union that the agent carries out. Results come back as events."""

from dataclasses import dataclass

from resilience.model.ids import GpuUuid, IncidentId, JobId, ServerId, TaskRef
from resilience.model.incident import Action, Part
from resilience.model.records import JobAccounted, Record, SlurmIntent
from resilience.model.timer import StoppedCounts, Timer
from resilience.model.world import Strike


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Answer to a hello."""

    ref: TaskRef
    server: ServerId
    standby: ServerId | None
    isolation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refuse:
    """Answer to a hello: this task cannot have MPS here."""

    ref: TaskRef
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    ref: TaskRef
    incident: IncidentId
    """Empty when no fault is known (`none`)."""
    action: Action
    part: Part
    server: ServerId | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StartStandby:
    ref: TaskRef
    server: ServerId


@dataclass(frozen=True, slots=True, kw_only=True)
class JobLine:
    """What the job's recovery log is to tell."""

    job: JobId
    record: Record


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteJournal:
    record: Record


@dataclass(frozen=True, slots=True, kw_only=True)
class SetActive:
    server: ServerId


@dataclass(frozen=True, slots=True, kw_only=True)
class Poll:
    """Ask the control daemon for the server's state; ServerSeen follows."""

    server: ServerId
    asked: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """Start a server (quarantine), or end and start one anew (`anew`); ServerOpened follows."""

    server: ServerId
    uuids: tuple[GpuUuid, ...]
    uid: int
    gid: int
    shared: bool
    anew: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Close:
    """End a quarantine server that nobody uses."""

    server: ServerId


@dataclass(frozen=True, slots=True, kw_only=True)
class TerminateClient:
    """End a hung culprit's contexts; its process gets error 810 and ends by itself."""

    ref: TaskRef
    server: ServerId
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepStrikes:
    """What the next agent is to know of faults that programs have caused."""

    strikes: tuple[Strike, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """Follow the logs of a server."""

    server: ServerId
    uid: int
    """Who may write them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unwatch:
    server: ServerId


@dataclass(frozen=True, slots=True, kw_only=True)
class LookUpJob:
    job: JobId


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """Are processes of these tasks stopped? Looked about the same follows."""

    about: StoppedCounts
    refs: tuple[TaskRef, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AskRequeue:
    job: JobId
    intent: SlurmIntent
    """Its words become the job's AdminComment."""
    exclude: bool
    """Not on this node again."""
    until: float
    """Moment of the monotonic clock after which nobody is to be asked any more: the tasks hear of it then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AskDrain:
    intent: SlurmIntent


@dataclass(frozen=True, slots=True, kw_only=True)
class AskComment:
    job: JobId
    account: JobAccounted


@dataclass(frozen=True, slots=True, kw_only=True)
class SetTimer:
    """TimerFired at monotonic time `at`; a timer set anew moves."""

    timer: Timer
    at: float


Effect = (
    Place
    | Refuse
    | Verdict
    | StartStandby
    | JobLine
    | WriteJournal
    | SetActive
    | Poll
    | Open
    | Close
    | TerminateClient
    | Watch
    | Unwatch
    | LookUpJob
    | Look
    | KeepStrikes
    | AskRequeue
    | AskDrain
    | AskComment
    | SetTimer
)
