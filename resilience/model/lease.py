"""A job's lease on a node: which fault domain and servers it holds (docs/reference/protocols.md §3)."""

from dataclasses import dataclass
from enum import StrEnum

from resilience.model.ids import Color, DomainKey, GpuMinor, GpuUuid, JobId, NodeName
from resilience.model.options import JobOptions, Servers

Devices = tuple[tuple[GpuMinor, GpuUuid], ...]
"""GPUs, in the order of the job's CUDA_VISIBLE_DEVICES."""


class LeaseState(StrEnum):
    OPEN = "open"
    REFUSED = "refused"
    WITHOUT = "without"
    """The job has no GPU, and MPS is the default of its site or partition: without MPS unless it asked by itself."""


class Isolation(StrEnum):
    NONE = "none"
    DOMAINS = "domains"
    SM = "sm"
    GUARD = "guard"


def in_force(began: Isolation, guard: bool, partition: bool) -> Isolation:
    """What keeps faults from neighbours now, for a job that began with `began`: the guard module may have come or gone."""
    if began is Isolation.NONE:
        return began
    if guard:
        return Isolation.GUARD
    return Isolation.SM if partition else Isolation.DOMAINS


def spans(gpus: Devices, servers: Servers) -> tuple[Devices, ...]:
    """The GPUs that each pair of servers is over: one each, or all of them. The first one names the servers."""
    return (gpus,) if gpus and servers is Servers.JOB else tuple((gpu,) for gpu in gpus)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    job: JobId
    uid: int
    gid: int
    user: str
    node: NodeName
    restart: int
    state: LeaseState
    reason: str
    options: JobOptions
    domain: DomainKey
    isolation: Isolation
    slots: tuple[tuple[GpuMinor, int], ...]
    """On each GPU the job's static SM partition: which one of its servers' (counted from 1). Empty without partitions."""
    colors: tuple[Color, ...]
    gpus: Devices
    run: str
    log: str
    agent: str
    python: str
    spill: str
    opened: float
    """Seconds since the epoch."""
    partition: str = ""
    """Slurm's partition, whose rules hold for the job; empty in a lease that an older version wrote."""
    numbers: tuple[int, ...] = ()
    """Slurm's own numbers of `gpus`, as SLURM_STEP_GPUS has them; empty: not known."""

    @property
    def spans(self) -> tuple[Devices, ...]:
        """The GPUs of each of its pairs of servers."""
        return spans(self.gpus, self.options.servers)

    def span(self, gpu: GpuMinor) -> Devices:
        """The GPUs of the servers that a GPU belongs to. Raises KeyError for one that is not the job's."""
        for span in self.spans:
            if gpu in dict(span):
                return span
        raise KeyError(gpu)

    def slot(self, gpu: GpuMinor) -> int:
        """The job's SM partition on a GPU, 0 without one."""
        return dict(self.slots).get(gpu, 0)
