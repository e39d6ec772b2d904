"""What the node agent and the commands need of the world, as protocols; `resilience/adapters/` holds one file per port.

The agent sees these and never an adapter. Expected outcomes are values; what a caller cannot go on from is the port's
exception (`resilience.model.errors`). Every call is bounded in time by its adapter's settings.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from resilience.model.ids import Color, DomainKey, GpuUuid, JobId, NodeName, ProcessId, ServerId
from resilience.model.lease import Lease
from resilience.model.records import Record
from resilience.model.records.journal import Entry
from resilience.model.world import ServerState, Strike
from resilience.parse.guard import GuardRecord

if TYPE_CHECKING:  # a third of the time that a command takes to start
    from resilience.model.event import Event

T = TypeVar("T")


class Clock(Protocol):
    def wall(self) -> float:
        """Seconds since the epoch."""

    def monotonic(self) -> float:
        """Seconds of CLOCK_MONOTONIC: the clock that orders events on one boot."""

    def worked(self) -> float:
        """Seconds of CPU time that this thread has used."""

    def boot_id(self) -> str:
        """/proc/sys/kernel/random/boot_id."""


class Journal(Protocol):
    def append(self, record: Record) -> None:
        """One JSON line; wall and monotonic time are added.

        A full disk or an unwritable file never raises: the loss is counted and told in the next line that gets through.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOwner:
    """Who a server runs as. `shared` servers belong to root and take clients of every user."""

    uid: int
    gid: int
    shared: bool


class Mps(Protocol):
    """The MPS control daemons of this node, one per ServerId. Raises MpsControlError."""

    def state(self, server: ServerId) -> ServerState:
        """What get_server_status says."""

    def clients(self, server: ServerId) -> tuple[int, ...]:
        """Process ids of the server's clients."""

    def end_clients(self, server: ServerId, meant: Callable[[int], bool]) -> tuple[int, ...]:
        """End the contexts of those clients of the server that are meant, also busy ones: their process ids, within a second.

        The processes live on, and get error 810. Raises MpsControlError also when the daemon refuses or does not answer."""

    def open(self, server: ServerId, uuids: tuple[GpuUuid, ...], owner: ServerOwner) -> None:
        """Have a living daemon with an ACTIVE server over these GPUs; idempotent. Clears away what a dead one left."""

    def close(self, server: ServerId) -> tuple[str, ...]:
        """End server and daemon, remove its directories; returns what could not be removed, in words."""

    def daemon(self, server: ServerId) -> ProcessId | None:
        """The control daemon's process, None when there is none that answers. Raises when that cannot be told."""

    def pipe(self, server: ServerId) -> str:
        """The pipe directory that clients need (CUDA_MPS_PIPE_DIRECTORY)."""

    def logs(self, server: ServerId) -> str:
        """The directory of control.log and server.log."""

    def partition(self, server: ServerId, slot: int) -> str:
        """The value of CUDA_MPS_SM_PARTITION for a slot (counted from 1) of the server; empty when it has none."""


class Leases(Protocol):
    def read(self, job: JobId) -> Lease | None:
        """The job's lease on this node; None when it has none. Raises WireError when the file is not to be trusted."""

    def all(self) -> tuple[Lease, ...]:
        """Every readable lease of this node; an unreadable one is journalled and left out."""

    def active(self, server: ServerId) -> Color | None:
        """Colour that new tasks of this server's domain and GPU join."""

    def servers(self, key: DomainKey) -> tuple[ServerId, ...]:
        """The pipe directories of a domain, living or not."""

    def set_active(self, server: ServerId) -> None:
        """Make `server` the one that new tasks join."""


class Procfs(Protocol):
    def starttime(self, pid: int) -> int | None:
        """Field 22 of /proc/<pid>/stat, None when the process is gone or a zombie."""

    def ancestors(self, pid: int) -> tuple[int, ...]:
        """Parent, grandparent, … up to 1; empty when the process is gone."""

    def stopped(self, pid: int) -> bool:
        """Whether the process, or one that it has started, is stopped: by a signal, a debugger or a frozen cgroup."""

    def uid(self, pid: int) -> int | None:
        """Whose process it is (its real uid), None when it is gone."""

    def environ(self, pid: int) -> Mapping[str, str] | None:
        """The process's environment as it began, None when it is gone or may not be read."""

    def name(self, pid: int) -> str:
        """The name of its program as the kernel has it, empty when it is gone. The user's own choice of characters."""

    def has_cuda(self, pid: int) -> bool:
        """Whether it has CUDA's library in its memory, as all have that compute; also when that cannot be told."""

    def job(self, pid: int) -> JobId | None:
        """The job whose cgroup the process is in, else the one that its environment names
        (parse.job_environment.process_job); None when unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobInfo:
    job: JobId
    state: str
    """RUNNING, PENDING, COMPLETING, …"""
    batch: bool
    requeue: bool
    """False where Slurm takes no requeue of it: `no_requeue` says why."""
    restarts: int
    stdout: str
    """Absolute path of the batch job's output file; empty without one."""
    workdir: str
    no_requeue: str = ""
    """Why `requeue` is False: --no-requeue, or the site's JobRequeue=0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    reason: str


class Slurm(Protocol):
    """Asking Slurm. Each call takes tens of milliseconds: never on the loop's own thread. Raises SlurmError."""

    def job(self, job: JobId) -> JobInfo: ...

    def requeue(self, job: JobId, *, comment: str, exclude: NodeName | None = None) -> Done | Refused:
        """The sequence that starts again within seconds: requeue, exclude and comment, wait for PENDING, start now."""

    def comment(self, job: JobId, text: str) -> Done | Refused:
        """Put our word into AdminComment, beside those of others, asking again while nobody answers. A job that has ended
        refuses."""

    def drain(self, node: NodeName, reason: str) -> Done | Refused:
        """Drain a node with a reason that starts `mpsr:`."""

    def kill_wait(self) -> float:
        """Seconds from SIGTERM to SIGKILL with which Slurm ends a job."""

    def ended_at(self, job: JobId) -> float | None:
        """When Slurm began to end a job, in seconds since the epoch; 0.0 where that cannot be told. None: it lets the job run,
        as after a signal of a user's, or one that warns of a preemption or a time limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    minor: int
    uuid: GpuUuid
    name: str
    driver: str
    bus_id: str
    """As NVML prints it, e.g. 00000000:06:00.0."""
    mig: bool | None = False
    """It is cut into MIG instances, or takes no work until it is. The kernel driver knows these by UUIDs that NVML does not tell.
    None: NVML answered with an error, which is in `unanswered`."""
    capability: int | None = 0
    """Major number of the compute capability; 0 when the driver knows no such question, None after an error."""
    unanswered: tuple[str, ...] = ()
    """What NVML answered with an error, in words."""


class Gpus(Protocol):
    def all(self) -> tuple[Gpu, ...]:
        """The node's GPUs. Raises GpuError naming what is missing (library, driver)."""

    def mps_processes(self, uuid: GpuUuid) -> Iterable[int]:
        """Processes that hold the GPU through MPS (nvmlDeviceGetMPSComputeRunningProcesses)."""

    def plain_processes(self, uuid: GpuUuid) -> Iterable[int]:
        """Processes that hold the GPU outside MPS."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """A process that computes on a GPU, as NVML lists it."""

    uuid: GpuUuid
    pid: int
    mps: bool
    """Among the clients of MPS."""


# ---------------------------------------------------------------- what the agent's loop waits on
class Feed(Protocol):
    """Something that the loop waits on. `read` never blocks and may return nothing."""

    def fileno(self) -> int:
        """A descriptor that is readable when there may be something to read."""


class Listening(Protocol):
    """Of a feed in users' hands: whom it hears, and what that costs."""

    def hush(self, uid: int) -> None:
        """A user is not heard until `listen`: nothing that they write or say wakes anybody."""

    def listen(self, uid: int) -> None: ...

    def costs(self) -> Mapping[int, float]:
        """Seconds of CPU time that reading has taken for each user since the last call."""


class Computing(Feed, Protocol):
    """Readable when a process has come to compute on a GPU that is watched, or has changed from one list to the other."""

    def watch(self, uuids: frozenset[GpuUuid]) -> None:
        """From now on these GPUs and no other."""

    def read(self) -> tuple[Context, ...]:
        """The new contexts."""


class Openings(Feed, Protocol):
    """Readable when leases have come or gone."""

    def read(self) -> None:
        """Take note of the news."""


class Notes(Protocol):
    def write(self, uid: int, gid: int, path: str, line: str, *, create: bool) -> None:
        """Append a line to a job's file as its user. Raises ResilienceError."""


class Strikes(Protocol):
    """What programs have caused, for the next agent. Raises ResilienceError."""

    def read(self) -> tuple[Strike, ...]: ...

    def write(self, strikes: tuple[Strike, ...]) -> None: ...


class KernelLog(Feed, Protocol):
    @property
    def names_our_processes(self) -> bool:
        """Process ids in the lines are those that this process sees; False in a container, whose kernel counts anew."""

    def read(self) -> tuple[str, ...]:
        """New lines of the kernel log."""


class GpuEvents(Feed, Protocol):
    def read(self) -> tuple[tuple[GpuUuid, int], ...]:
        """New Xid events: GPU and number (NVML names no process)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLine:
    """One new line of a server's logs."""

    server: ServerId
    control: bool
    """Of control.log; else of server.log."""
    text: str
    uid: int = 0
    """Who may write into the log."""


class ServerLogs(Feed, Listening, Protocol):
    def watch(self, server: ServerId, directory: str, uid: int = 0) -> tuple[ServerLine, ...]:
        """Follow control.log and server.log in a user's `directory`, which need not exist yet; returns the last lines so far."""

    def unwatch(self, server: ServerId) -> None: ...

    def read(self, busy: Collection[int] = ()) -> tuple[ServerLine, ...]:
        """New lines, in the order of each file; those of `busy` users stay for the next time."""


class Daemons(Feed, Protocol):
    """The deaths of control daemons, which may leave no trace in a log."""

    def watch(self, server: ServerId, daemon: ProcessId | None, pipe: str = "") -> None:
        """None: it has ended already. `pipe`: its directory, whose removal counts as its end."""

    def unwatch(self, server: ServerId) -> None: ...

    def read(self) -> tuple[ServerId, ...]:
        """Servers whose daemon has ended since, or cannot be reached any more."""


class Guard(Feed, Protocol):
    """The kernel module that keeps a client's MMU fault to that client. Raises ResilienceError."""

    def read(self) -> tuple[GuardRecord, ...]:
        """What it has told since, oldest first."""

    def isolates(self) -> bool:
        """Whether it keeps faults to their clients now; changes only while one of the other calls runs."""

    def learn(self, uuid: GpuUuid) -> None:
        """Teach it a GPU: it isolates on those that it knows."""

    def acknowledge(self, incident: int) -> bool:
        """Say that we end the client of one of its incidents; False when it does not know it any more."""


class ClientEnd(Protocol):
    def __call__(self, process: ProcessId, server: ServerId | None, /) -> str:
        """End a client in the safe order, its server first. What could not be done, in words; never raises."""


class Epilogs(Protocol):
    """What slurmd does for a job that is over, for those of which it has not."""

    def over(self, lease: Lease) -> bool:
        """Whether Slurm says that this run of the job is over. Raises SlurmError."""

    def run(self, lease: Lease) -> str:
        """Run the job's epilog; what went wrong, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A connected supervisor, as the kernel vouches for it (SO_PEERCRED)."""

    id: int
    pid: int
    uid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    """What came from a peer; None when it has gone."""

    peer: Peer
    data: bytes | None


class Supervisors(Feed, Listening, Protocol):
    """The agent's end of its sockets: one for each user with a lease, which nobody else can connect to, and one for all."""

    def admit(self, uids: Collection[int]) -> None:
        """Have a socket for each of these users, and for nobody else. Raises ResilienceError, after the others."""

    def read(self, busy: Collection[int] = ()) -> tuple[Packet, ...]:
        """New packets and departures; those of `busy` users stay for the next time."""

    def send(self, peer: Peer, data: bytes) -> None:
        """Send without blocking; a peer that does not read is dropped and comes up as gone."""

    def drop(self, peer: Peer) -> None:
        """Close the connection; it does not come up as gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A finished call, with what is to be done with it: `take()` on the loop's thread, which gives the event that follows."""

    lane: str
    take: Callable[[], "Event | None"]


class Worker(Feed, Protocol):
    """Threads for what takes its time, one a lane, each in order: `mps:<domain>` for the MPS daemons of a fault domain, `slurm`
    for Slurm; `account` for jobs' accounts and `last_call` for jobs that are being ended, which must not wait behind a requeue."""

    def submit(self, lane: str, call: Callable[[], T], then: Callable[[T | Exception], "Event | None"]) -> None:
        """Have `call` made on a lane's thread; `then` is given what it returned or raised."""

    def read(self) -> tuple[Answer, ...]:
        """Calls that have finished, each with its `then`."""


class AgentJournal(Journal, Protocol):
    def recent(self) -> tuple[Entry, ...]:
        """The last entries, oldest first; what cannot be read is left out."""


class Alive(Protocol):
    """Who starts the agent again when its loop no longer turns. No call waits, none raises."""

    def ready(self) -> None:
        """The loop begins."""

    def beat(self) -> float:
        """The loop turns. Returns in how many seconds that is to be told again at the latest."""

    def stopping(self) -> None:
        """The loop has ended because it was told to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """All that the agent needs of the world. Built and closed by the caller; the agent only uses them."""

    clock: Clock
    journal: AgentJournal
    leases: Leases
    mps: Mps
    """Called from the worker's lanes `mps:<domain>` only, each for its domain, but for pipe() and logs(), which are pure."""
    slurm: Slurm
    """Called from the worker's lanes `slurm`, `account` and `last_call` only."""
    gpus: Gpus
    """Asked once, at the start."""
    procfs: Procfs
    supervisors: Supervisors
    kernel_log: KernelLog
    gpu_events: GpuEvents
    server_logs: ServerLogs
    daemons: Daemons
    worker: Worker
    guard: Guard | None = None
    """The guard module may come and go; None: this node never has one."""
    end_client: ClientEnd | None = None
    """Called on the worker's lane of the server's domain, or `end`."""
    openings: Openings | None = None
    """None: jobs are known by their supervisors alone."""
    computing: Computing | None = None
    """None: nobody compares processes with the servers' clients."""
    notes: Notes | None = None
    """Called on the worker's lane `notes`; None: only supervisors write into jobs' files."""
    strikes: Strikes | None = None
    """Written on the worker's lane `strikes`; None: an agent begins without."""
    epilogs: Epilogs | None = None
    """Called on the worker's lane `forgotten`; None: slurmd has run them all."""
    alive: Alive | None = None
    """None: nobody watches the loop."""
