"""Names of things, as types of their own so that they cannot be mixed up."""

from dataclasses import dataclass
from typing import NewType

from resilience.contract import step

JobId = NewType("JobId", int)
StepId = NewType("StepId", int)
TaskId = NewType("TaskId", int)
"""Rank of a task in its step (SLURM_PROCID)."""
NodeName = NewType("NodeName", str)
"""Slurm's name of a node (SLURMD_NODENAME), never the host name."""
GpuMinor = NewType("GpuMinor", int)
GpuUuid = NewType("GpuUuid", str)
DomainKey = NewType("DomainKey", str)
"""j<jobid>, u<uid> or shared."""
Color = NewType("Color", str)
"""a, b, or q<n> for quarantine: one control daemon and its server."""
IncidentId = NewType("IncidentId", str)
STEPS = {step(name): name for name in ("interactive", "batch")}
"""Slurm's numbers of steps that its commands show by name."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class ProcessId:
    """A process that cannot be mistaken for a later one with the same number.

    starttime is field 22 of /proc/<pid>/stat, in clock ticks since boot (proc(5)).
    """

    pid: int
    starttime: int


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class ServerId:
    """One MPS control daemon with its server: the clients that die together."""

    domain: DomainKey
    gpu: GpuMinor
    """Its GPU; the first of a server over several (model/lease.py)."""
    color: Color


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class TaskRef:
    """One task of one step of one job on this node."""

    job: JobId
    step: StepId
    task: TaskId

    def in_job(self) -> str:
        """`step 1 task 0`: what tells it from the other tasks of its job, in words."""
        return f"step {STEPS.get(self.step, self.step)} task {self.task}"

    def words(self) -> str:
        """`job 12 step 1 task 0`."""
        return f"job {self.job} {self.in_job()}"
