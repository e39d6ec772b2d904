"""Records of tasks: their supervisors come and go, their processes end."""

from dataclasses import dataclass
from typing import ClassVar

from resilience.model.ids import JobId, ServerId, TaskRef
from resilience.model.records.base import Record, said, server_id
from resilience.model.records.words import because, whom


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskHello(Record):
    EVENT: ClassVar[str] = "task.hello"
    task: TaskRef | None = said("<job>.<step>.<rank>")
    server: ServerId | None = said("the server that it runs on")
    resumed: bool | None = said("true: its supervisor came back to a new agent")
    mpi: bool | None = said(
        "true: it takes part in MPI, or Slurm has wired it for that and its program had not been looked at yet"
    )

    def sentence(self) -> str:
        came = "is back at the agent, it runs" if self.resumed else "begins"
        return f"{whom(self.task)} {came} on server {server_id(self.server)}" if self.server else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskGone(Record):
    EVENT: ClassVar[str] = "task.gone"
    task: TaskRef | None = said("the task; absent for one that was turned away")
    refused: bool | None = said("true: a process that was turned away at the agent's socket")
    pid: int | None = said("its process id")
    uid: int | None = said("its user")
    reason: str = said("why it was turned away", "")

    def sentence(self) -> str:
        if self.refused:
            return f"a supervisor was turned away (uid {'?' if self.uid is None else self.uid}){because(self.reason)}"
        return f"the supervisor of {whom(self.task)} left"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskStopped(Record):
    """Time in which a task is stopped counts for no deadline."""

    EVENT: ClassVar[str] = "task.stopped"
    SINCE: ClassVar[str] = "0.2.0"
    task: TaskRef | None = said("the task", since="0.2.0")

    def sentence(self) -> str:
        return f"{whom(self.task)} is stopped, perhaps suspended: its time goes on when it does"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientEnded(Record):
    EVENT: ClassVar[str] = "client.ended"
    SINCE: ClassVar[str] = "0.2.0"
    task: TaskRef | None = said("the task whose process is about to end", since="0.2.0")
    server: ServerId | None = said("the server whose clients they are", since="0.2.0")
    pids: tuple[int, ...] = said("process ids of the clients that terminate_client has ended", (), since="0.2.0")
    wrong: str = said("why that could not be done", "", since="0.2.0")

    def sentence(self) -> str:
        if self.wrong:
            return f"clients of {whom(self.task)} could not be ended before their processes{because(self.wrong)}"
        ended = ", ".join(map(str, self.pids)) or "?"
        where = f" off server {server_id(self.server)}" if self.server else ""
        return f"{whom(self.task)}: work of process {ended} was taken{where} before its end"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientKilledBusy(Record):
    """SIGKILL cannot be caught: whether there was work in flight is not known."""

    EVENT: ClassVar[str] = "client.killed_busy"
    SINCE: ClassVar[str] = "0.2.0"
    task: TaskRef | None = said("the task whose process it was", since="0.2.0")
    server: ServerId | None = said(
        "its server: what others there suffer in the next 10 s is put down to it", since="0.2.0"
    )
    pid: int | None = said("its process id", since="0.2.0")

    def sentence(self) -> str:
        where = f" on server {server_id(self.server)}" if self.server else ""
        return f"{whom(self.task)} was killed with a client{where}, perhaps with work in flight: that can hurt others there"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Strike(Record):
    uid: int | None = said("the program's user", since="0.2.0")
    program: str = said("digest of the program (protocols.md)", "", since="0.2.0")

    @property
    def whose(self) -> str:
        return f"program {self.program or '?'} of uid {'?' if self.uid is None else self.uid}"


@dataclass(frozen=True, slots=True, kw_only=True)
class StrikeGiven(_Strike):
    EVENT: ClassVar[str] = "strike.given"
    SINCE: ClassVar[str] = "0.2.0"
    task: TaskRef | None = said("the task that caused the fault", since="0.2.0")
    count: int | None = said("faults of the program that count by now", since="0.2.0")

    def sentence(self) -> str:
        return f"{self.whose} has caused {self.count} GPU fault{'' if self.count == 1 else 's'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class StrikeTaken(_Strike):
    EVENT: ClassVar[str] = "strike.taken"
    SINCE: ClassVar[str] = "0.2.0"
    reason: str = said("why, for people", "", since="0.2.0")

    def sentence(self) -> str:
        return f"a fault of {self.whose} does not count any more{because(self.reason)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class StrikesApplied(_Strike):
    EVENT: ClassVar[str] = "strikes.applied"
    SINCE: ClassVar[str] = "0.2.0"
    task: TaskRef | None = said("the task", since="0.2.0")
    count: int | None = said("faults of its program", since="0.2.0")
    action: str = said("apart: a server of its own; refused", "", since="0.2.0")

    def sentence(self) -> str:
        what = "is refused" if self.action == "refused" else "gets a server of its own"
        return f"{whom(self.task)} {what}: {self.whose} has caused {self.count} GPU faults"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessUnattached(Record):
    """A process of a job that asked for MPS, outside its servers or its share."""

    EVENT: ClassVar[str] = "process.unattached"
    SINCE: ClassVar[str] = "0.2.0"
    job: JobId | None = said("its job", since="0.2.0")
    task: TaskRef | None = said("its task, where a supervisor has it", since="0.2.0")
    pid: int | None = said("its process id", since="0.2.0")
    program: str = said("the name of its program", "", since="0.2.0")
    gpu: str = said("UUID of the GPU that it computes on", "", since="0.2.0")
    reason: str = said("what is wrong", "", since="0.2.0")
    ended: bool | None = said("true: it is ended, as the job wants (--mps-unattached=fail)", since="0.2.0")
    dry_run: bool | None = said("true: it would be ended, but for recovery.mode observe", since="0.2.0")

    def sentence(self) -> str:
        who = f"process {self.pid} ({self.program}) of {self.task.in_job() if self.task else 'the job'}"
        ended = "; it is ended (--mps-unattached=fail)" if self.ended else ""
        would = "; observing only, it would be ended" if self.dry_run else ""
        return f"{who} {self.reason}{ended}{would}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskExit(Record):
    EVENT: ClassVar[str] = "task.exit"
    task: TaskRef | None = said("the task")
    role: str = said("active or standby", "")
    pid: int | None = said("process id")
    status: int | None = said("raw wait status")

    def sentence(self) -> str:
        status = self.status
        how = f"with raw status {status}"
        if status is not None and 0 <= status <= 0xFFFF:
            how = f"by signal {status & 0x7F}" if status & 0x7F else f"with exit status {status >> 8}"
        return f"the {self.role or 'active'} process of {whom(self.task)} ended {how}"
