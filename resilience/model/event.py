"""What can happen: the events that the machine takes, a closed union. It has an answer to each in any state."""

from dataclasses import dataclass
from enum import StrEnum

from resilience.model.ids import Color, GpuMinor, IncidentId, JobId, ServerId, TaskRef
from resilience.model.lease import Lease
from resilience.model.observation import Client, Observation
from resilience.model.timer import StoppedCounts, Timer
from resilience.model.world import ServerState


class Role(StrEnum):
    ACTIVE = "active"
    STANDBY = "standby"


class Ask(StrEnum):
    """What Slurm was asked."""

    REQUEUE = "requeue"
    DRAIN = "drain"
    COMMENT = "comment"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """A supervisor reported in; the agent has checked it against the lease."""

    ref: TaskRef
    lease: Lease
    server: ServerId
    """Its domain and GPU, and the colour: what it runs on (resumed), else the `active` file's."""
    mpi: bool
    resumed: bool
    retries: int
    retried: float = 0.0
    """Seconds since the last of these recoveries."""
    active: int
    session: bool
    program: str = ""
    """Digest of the task's program."""
    dead: frozenset[Color] = frozenset()
    """Colours whose control daemon had gone when it came; told of a domain and GPU that was unknown till then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    ref: TaskRef
    role: Role
    pid: int
    color: Color


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOpened:
    ref: TaskRef
    role: Role
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    ref: TaskRef
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RanksKnown:
    """The supervisor has seen whether the task's program takes part in MPI."""

    ref: TaskRef
    mpi: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Exited:
    ref: TaskRef
    role: Role
    pid: int
    status: int
    """Raw wait status."""
    told: bool = False
    """Ended by a signal that Slurm has sent to the whole step: nothing is to be recovered."""
    ours: bool = False
    """Ended because a verdict said so: its status says nothing about the task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Missed:
    """A task has failed whose server had a fault while no agent was there; told before the failure itself."""

    ref: TaskRef
    seen: tuple[tuple[Observation, Client | None], ...]
    """What the server's log has of it, with who the named process is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """A supervisor asks that the clients of these processes be ended before they are; it awaits `number`."""

    ref: TaskRef
    number: int
    pids: tuple[int, ...]
    color: Color
    alone: bool = False
    """What these processes have started lives on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OnServer:
    """A process of a task has become a client of a server (`on`), or its clients there were ended for it."""

    ref: TaskRef
    server: ServerId
    on: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsure:
    """A client of a server could not be ended, and its control daemon does not answer."""

    server: ServerId


@dataclass(frozen=True, slots=True, kw_only=True)
class Stepped:
    ref: TaskRef
    incident: IncidentId
    seq: int
    ms: float
    """From the verdict at the supervisor to the word of the program."""
    at: float = 0.0
    """When the step was done, by the program's own clock (CLOCK_MONOTONIC, seconds); 0 when it did not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RungFailed:
    ref: TaskRef
    incident: IncidentId
    rung: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Spilled:
    ref: TaskRef
    seq: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Gone:
    """The supervisor's connection ended."""

    ref: TaskRef


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A sighting, with the process it names resolved as far as possible (also a program's `fault` message)."""

    observation: Observation
    client: Client | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOpened:
    """A lease was opened. `active`: the colour of each of its GPUs that new clients join."""

    lease: Lease
    active: tuple[tuple[GpuMinor, Color], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobClosed:
    """The job's lease is gone."""

    job: JobId


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientJoined:
    """A client that is no task's process connected to a server."""

    server: ServerId
    client: Client
    uid: int | None = None
    """Whose process it is; None when it has gone already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientLeft:
    server: ServerId
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSeen:
    """The control daemon's answer to a question put at monotonic time `asked`; None when it gave none."""

    server: ServerId
    sight: ServerState | None
    asked: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOpened:
    """Open or Replace is done."""

    server: ServerId
    ok: bool
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobKnown:
    """What Slurm says of a job."""

    job: JobId
    batch: bool
    requeueable: bool
    why: str = ""
    """Why it is not requeueable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlurmAnswered:
    ask: Ask
    job: JobId | None
    ok: bool
    detail: str
    away: bool = False
    """Nobody answered: it may be asked again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardTurned:
    """The guard module isolates from now on, or does so no more."""

    on: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """Which of the tasks that were to be looked at have a process that is stopped."""

    about: StoppedCounts
    stopped: frozenset[TaskRef]


@dataclass(frozen=True, slots=True, kw_only=True)
class TimerFired:
    timer: Timer


Event = (
    Hello
    | Started
    | SessionOpened
    | Ready
    | RanksKnown
    | Exited
    | Stepped
    | RungFailed
    | Spilled
    | Gone
    | OnServer
    | Unsure
    | Seen
    | Missed
    | JobOpened
    | JobClosed
    | ClientJoined
    | ClientLeft
    | ServerSeen
    | ServerOpened
    | JobKnown
    | SlurmAnswered
    | GuardTurned
    | Looked
    | TimerFired
)
