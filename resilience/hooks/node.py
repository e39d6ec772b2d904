"""What prolog and epilog act through, put together once for a run on one node.

The GPUs come as a function, since opening NVML takes time and can fail, and a run that ends early needs none.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Thread
from typing import TYPE_CHECKING, TypeVar

from resilience import contract
from resilience.adapters.linux.discards import Discards
from resilience.adapters.linux.leases import LeaseFiles
from resilience.adapters.linux.rooms import Rooms
from resilience.adapters.linux.spill_records import SpillRecords
from resilience.adapters.mps.domain_locks import DomainLocks
from resilience.adapters.mps.mps_control import ControlDaemons
from resilience.model.errors import MpsControlError
from resilience.model.ids import JobId, NodeName, ServerId
from resilience.model.settings import Settings
from resilience.parse.gpu_request import GpuRequest
from resilience.parse.job_environment import JobEnvironment
from resilience.ports import Clock, Gpus, Journal

if TYPE_CHECKING:
    from resilience.adapters.slurm.scontrol import Scontrol

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    name: NodeName
    settings: Settings
    locks: DomainLocks
    leases: LeaseFiles
    mps: ControlDaemons
    spills: SpillRecords
    discards: Discards
    rooms: Rooms
    gpus: Callable[[], Gpus]
    clock: Clock
    journal: Journal
    deadline: float
    """On the monotonic clock."""

    def over(self, job: JobId, restart: int) -> bool:
        """Whether Slurm holds a job, seen from its run number `restart`, to be over for good. Raises SlurmError."""
        return self._scontrol().over(job, restart)

    def gpu_request(self, job: JobId) -> GpuRequest:
        """How a job has asked for GPUs. Raises SlurmError."""
        return self._scontrol().gpu_request(job)

    def _scontrol(self) -> "Scontrol":
        from resilience.adapters.slurm.scontrol import Scontrol

        limit = min(self.settings.slurm.timeout, self.left())
        return Scontrol(program=self.settings.paths.scontrol, timeout=limit, requeue_timeout=limit)

    def left(self) -> float:
        """Seconds until the deadline."""
        return max(0.0, self.deadline - self.clock.monotonic())


def build(
    name: NodeName,
    environ: Mapping[str, str],
    settings: Settings,
    *,
    gpus: Callable[[], Gpus],
    clock: Clock,
    journal: Journal,
) -> Node:
    rooms = Rooms(name, settings.paths, settings.prolog.room_mib)
    locks = DomainLocks(settings.paths.run, name, made=rooms.made_domain)
    return Node(
        name=name,
        settings=settings,
        locks=locks,
        leases=LeaseFiles(settings.paths.run, name, journal),
        mps=ControlDaemons(settings, name, locks, environ),
        spills=SpillRecords(settings.paths.state, name),
        discards=Discards(name, run=settings.paths.run, log=settings.paths.log),
        rooms=rooms,
        gpus=gpus,
        clock=clock,
        journal=journal,
        deadline=clock.monotonic() + settings.prolog.timeout,
    )


def agent_socket(settings: Settings, job: JobEnvironment) -> str:
    """Where supervisors of the job's user find the agent."""
    return contract.path("agent_door", run=settings.paths.run, node=job.node, uid=job.uid)


def at_once(work: Mapping[ServerId, Callable[[], T]], seconds: float) -> dict[ServerId, T | Exception]:
    """Do all at the same time and wait at most `seconds`; who is not done by then has a MpsControlError for a result.

    The threads are daemons: a process that has given up does not wait for them, and its locks end with it.
    """
    results: dict[ServerId, T | Exception] = {}

    def one(server: ServerId, act: Callable[[], T]) -> None:
        try:
            results[server] = act()
        except Exception as error:  # handed to the caller, who words it
            results[server] = error

    threads = [Thread(target=one, args=item, daemon=True) for item in work.items()]
    for thread in threads:
        thread.start()
    until = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    late = MpsControlError("deadline", "not done in time", f"{seconds:.1f} s")
    return {server: results.get(server, late) for server in work}
