"""A sighting: what one source said about a GPU, a server or a process, and when."""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from resilience.model.ids import STEPS, GpuMinor, JobId, ServerId, StepId, TaskId, TaskRef

_BY_NAME = {name: number for number, name in STEPS.items()}
_CLIENT = re.compile(
    r"(?:job (?P<job>\d{1,10}))?"
    rf"(?: step (?P<step>\d{{1,10}}|{'|'.join(_BY_NAME)}) task (?P<task>\d{{1,10}})| ?process (?P<pid>\d{{1,10}}))",
    re.ASCII,
)


class Source(StrEnum):
    KMSG = "kmsg"
    NVML = "nvml"
    SERVER_LOG = "server_log"
    CONTROL_LOG = "control_log"
    CLIENT = "client"
    """A program's `fault` message."""
    EXIT = "exit"
    CONTROL = "control"
    """get_server_status of the control daemon."""
    PROCESS = "process"
    """A process that was watched has ended."""
    GUARD = "guard"
    """The kernel module that isolates MMU faults."""


class What(StrEnum):
    CULPRIT = "culprit"
    """The server names the process that made the GPU fault."""
    HANDLING = "handling"
    """The server goes through its fault sequence: every client is hit."""
    RECREATING = "recreating"
    """The server makes its contexts anew."""
    SERVER_GONE = "server_gone"
    DAEMON_GONE = "daemon_gone"
    FAULT_STATE = "fault_state"
    XID = "xid"
    CUDA = "cuda"
    EXIT = "exit"
    ISOLATED = "isolated"
    """The guard kept a fault to its culprit."""
    UNKNOWN = "unknown"
    """A line of a server that the catalogue does not have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    source: Source
    what: What
    text: str
    """As the source had it, cut to a line."""
    wall: float
    mono: float
    boot_id: str
    gpu: GpuMinor | None = None
    server: ServerId | None = None
    pid: int | None = None
    xid: int = 0
    cuda: int = 0
    recovery: int | None = None
    """The recovery action that the driver asks for (Xid 154)."""
    address: int | None = None
    """The faulting address, when the source has one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """Who a process is, as far as we know. Without a task it runs outside our supervisors, e.g. in a batch script."""

    pid: int
    task: TaskRef | None = None
    job: JobId | None = None

    def __str__(self) -> str:
        if self.task is not None:
            return self.task.words()
        if self.job is not None:
            return f"job {self.job} process {self.pid}"
        return f"process {self.pid}"

    @classmethod
    def of(cls, text: str) -> Self | None:
        """The client that `str` has written; None for another text. A task's process id is not in it."""
        if (found := _CLIENT.fullmatch(text)) is None:
            return None
        job = JobId(int(found["job"])) if found["job"] else None
        task = None
        if job is not None and found["step"]:
            step = StepId(_BY_NAME.get(found["step"]) or int(found["step"]))
            task = TaskRef(job=job, step=step, task=TaskId(int(found["task"])))
        return cls(pid=int(found["pid"] or 0), task=task, job=job)
