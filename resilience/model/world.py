"""What the machine knows of its node: tasks, pairs of servers, jobs, incidents, history. One frozen tree."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from resilience.model.fault import Fault
from resilience.model.ids import Color, DomainKey, GpuMinor, GpuUuid, IncidentId, JobId, NodeName, ServerId, TaskRef
from resilience.model.incident import Incident
from resilience.model.lease import Devices, Isolation, Lease
from resilience.model.observation import Client, Observation
from resilience.model.options import JobOptions
from resilience.model.records import JobAccounted, SlurmIntent
from resilience.model.settings import MpsSettings, Recovery


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """Now, on both clocks."""

    wall: float
    mono: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    ref: TaskRef
    options: JobOptions
    mpi: bool
    server: ServerId
    """Where its active process runs, or was last told to run."""
    slot: int = 0
    """Its job's SM partition on the servers of its pair; 0 without one."""
    placed: bool = True
    """False: the answer to its hello waits for a healthy server."""
    resumed: bool = False
    """It was another agent's before: what that one told it is unknown."""
    active: int = 0
    """Process id of the active process, 0 when unknown or gone."""
    standby: int = 0
    standby_server: ServerId | None = None
    session: bool = False
    ready: bool = False
    """The standby waits for promotion."""
    retries: int = 0
    """Recoveries, less those that time without any has made good."""
    retried: float = 0.0
    """When the last of them was, or when the last one was made good."""
    left: tuple[int, ...] = ()
    """Processes of the task that it has left behind: what they still say is about the past."""
    asking: int = 0
    """Process whose failure waits for a verdict."""
    asked_at: float = 0.0
    reported: int = 0
    """Process that reported a fault and waits."""
    incident: IncidentId | None = None
    """The incident that this task's unsettled case belongs to."""
    standby_restarts: int = 0
    standby_restarted: float = 0.0
    """The same two of its standby."""
    program: str = ""
    """Digest of its program; empty: not known."""
    client: bool = False
    """Its present process is a client of the server: killed as it is, it may hurt others there."""
    over: bool = False
    """It was told to fail, to pass its status on, or it ended well: nothing more is done for it."""


class Health(StrEnum):
    UP = "up"
    OPENING = "opening"
    """A quarantine server that is being started."""
    FAULTED = "faulted"
    """Recovering by itself; polled."""
    REPLACING = "replacing"
    CLOSED = "closed"
    """Its control daemon has gone: its clients live on, nobody can join them."""
    DOWN = "down"
    """Could not be started."""


SERVING = (Health.UP, Health.CLOSED)
"""Whoever has joined such a server can go on."""


class ServerState(StrEnum):
    """What the control daemon says of its server: get_server_status, or the logs where the driver does not know that."""

    INITIALIZING = "INITIALIZING"
    ACTIVE = "ACTIVE"
    FAULT = "FAULT"
    ABSENT = "ABSENT"
    """No daemon, a daemon without a server, or one that has lost its SM partitions: nobody can join it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownServer:
    health: Health = Health.UP
    since: float = 0.0
    """When it was hit."""
    fault_seen: bool = False
    recreated: bool = False
    answered: float = 0.0
    """When the last answered question about its state was asked."""
    active: float = 0.0
    """The same of the last one whose answer was ACTIVE."""
    killed: Client | None = None
    """The last of its clients that was killed without terminate_client."""
    killed_at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """The servers of one fault domain on one GPU, or over several: the two that take turns, and quarantine servers."""

    domain: DomainKey
    gpus: Devices
    """The first one names its servers."""
    uid: int
    gid: int
    shared: bool
    isolation: Isolation
    partitioned: bool
    """Its servers are cut into SM partitions: who is hit by a fault is not known before it shows."""
    colors: tuple[Color, ...]
    """The colours that take turns; a quarantine colour is never one of them."""
    active: Color
    servers: Mapping[Color, KnownServer]
    strangers: Mapping[int, Color] = field(default_factory=dict)
    """Clients without a supervisor: process id → the server they use."""
    jobs: Mapping[int, JobId] = field(default_factory=dict)
    """The jobs of those of them that are a job's."""
    quarantines: int = 0
    """How many quarantine servers it has had: the next one's number."""

    @property
    def gpu(self) -> GpuMinor:
        return self.gpus[0][0]

    @property
    def uuids(self) -> tuple[GpuUuid, ...]:
        return tuple(uuid for _, uuid in self.gpus)

    def server(self, color: Color) -> ServerId:
        return ServerId(domain=self.domain, gpu=self.gpu, color=color)

    def health(self, color: Color) -> Health:
        known = self.servers.get(color)
        return known.health if known else Health.DOWN


class Requeue(StrEnum):
    SPILLING = "spilling"
    ASKED = "asked"
    TAKEN = "taken"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    job: JobId
    uid: int = 0
    lease: Lease | None = None
    """Its lease as it was opened; None for a job that is known by its supervisors alone."""
    held: bool = False
    """The lease is there."""
    batch: bool | None = None
    """None: Slurm has not been asked yet, or did not answer."""
    requeueable: bool | None = None
    faults: int = 0
    requeue: Requeue | None = None
    incident: IncidentId | None = None
    spilling: frozenset[TaskRef] = frozenset()
    parked: frozenset[TaskRef] = frozenset()
    """Tasks that were told of the requeue: they end by it, or have to hear that it came to nothing."""
    spill_due: float = 0.0
    looked: float = 0.0
    """When it was last seen whether they are stopped."""
    asked: float = 0.0
    """When Slurm was first asked for the requeue."""
    said: str = ""
    """What came instead of its answer."""
    intent: SlurmIntent | None = None
    """The requeue that is under way."""
    account: JobAccounted | None = None
    """What Slurm was last asked to show of the job."""
    exclude: bool = False
    untended: bool = False
    """The requeue that is under way is one of a job without tasks here."""
    refusal: str = ""
    """Why it cannot be requeued, in Slurm's words or of its record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stray:
    """A sighting of a GPU that names no server: it joins an incident of that GPU, or nothing."""

    observation: Observation
    fault: Fault


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspicion:
    """An unattributed fault: one of `suspects` did it."""

    at: float
    clients: frozenset[TaskRef]
    suspects: frozenset[TaskRef]


@dataclass(frozen=True, slots=True, kw_only=True)
class Strike:
    """A GPU fault that a user's program has caused."""

    at: float
    """Seconds since the epoch."""
    uid: int
    program: str
    address: int | None
    """Where the GPU was when it faulted."""
    task: str
    incident: str


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    strikes: tuple[Strike, ...] = ()
    requeues: tuple[tuple[float, int], ...] = ()
    """When, and for whose job."""
    drains: tuple[float, ...] = ()
    suspicions: Mapping[tuple[DomainKey, GpuMinor], Suspicion] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    node: NodeName
    recovery: Recovery
    mps: MpsSettings
    tasks: Mapping[TaskRef, Task] = field(default_factory=dict)
    pairs: Mapping[tuple[DomainKey, GpuMinor], Pair] = field(default_factory=dict)
    jobs: Mapping[JobId, Job] = field(default_factory=dict)
    incidents: Mapping[IncidentId, Incident] = field(default_factory=dict)
    strays: tuple[Stray, ...] = ()
    history: History = field(default_factory=History)
    count: int = 0
    """Incidents so far: part of the next one's name."""
    complete: float = 0.0
    """From this moment on every task of the node is known: supervisors of an agent's predecessor come back one by one."""
    guard: bool | None = None
    """Whether the guard module isolates; None while nobody has looked, and leases are believed."""
