"""What `mpsr status` shows of a node: the fields of its --json, and the lines for a person. Pure.

The same value is made on the node and read back from another node's answer, so both are told in the same words.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from resilience.model.guard import Level
from resilience.model.ids import JobId
from resilience.model.lease import Isolation, LeaseState, in_force
from resilience.model.records.words import printable
from resilience.parse.hostlist import folded

_ISOLATION = {
    Level.ABSENT: "domains (no guard module)",
    Level.OFF: "domains (the guard module is loaded and off)",
    Level.BLIND: "domains (the guard module is enabled and knows no GPU: the agent tells it)",
    Level.OBSERVE: "domains (the guard module only observes)",
    Level.ON: "guard",
}
"""What the prolog would write into a lease now, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plain:
    """A client that no supervisor has: a command of a batch script, what mpirun or ssh has started."""

    pid: int
    job: JobId | None
    """By its environment; None: it says none."""
    program: str

    def __str__(self) -> str:
        job = f"job {self.job}" if self.job is not None else "no job that it names"
        return f"process {self.pid} of {job} ({printable(self.program)}): without a supervisor"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerRow:
    domain: str
    gpu: int
    color: str
    state: str
    clients: int
    active: bool
    """New tasks join this one."""
    needed: bool
    """An open lease names it."""
    partitions: int = 0
    """SM partitions that it is cut into."""
    pids: tuple[int, ...] = ()
    """Its clients' process ids."""
    plain: tuple[Plain, ...] = ()
    """Those of them that no supervisor has."""
    gpus: tuple[int, ...] = ()
    """All that it is over; `gpu` is the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRow:
    job: JobId
    user: str
    state: LeaseState
    reason: str
    domain: str
    gpus: tuple[int, ...]
    isolation: Isolation
    slots: tuple[int, ...]
    """SM partitions, in the order of the GPUs."""
    colors: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StrikeRow:
    uid: int
    program: str
    faults: int
    last: str
    """The task that caused the last of them."""
    state: str
    """What its next task has: as any other, apart, refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus:
    node: str
    agent: bool
    good: bool
    guard: Level
    """The kernel module that keeps a client's MMU fault to that client."""
    guard_cancels: tuple[str, ...] = ()
    """Generations of GPUs whose faults the guard module sees."""
    sm_partitions: str = "off"
    """The setting mps.sm_partitions."""
    servers: tuple[ServerRow, ...] | None
    """None when the caller may not ask."""
    leases: tuple[LeaseRow, ...]
    strikes: tuple[StrikeRow, ...] = ()
    """Programs that have caused GPU faults here; root sees them."""
    broken: tuple[str, ...]


def lines(status: NodeStatus) -> list[str]:
    """As shown to a person."""
    said = [f"node {status.node}: the agent {'answers' if status.agent else 'does not answer'}"]
    if not status.agent and status.leases:
        said.append("  without it tasks run, but a fault ends them: systemctl start mpsr-agent")
    also = ", and SM partitions where the driver isolates them" if status.sm_partitions == "auto" else ""
    hooked = f" (hooks the cancels of {', '.join(status.guard_cancels)})" if status.guard is Level.ON else ""
    said.append(f"isolation of new jobs: {_ISOLATION[status.guard]}{hooked}{also}")
    for row in status.servers or ():
        notes = [f"over GPUs {','.join(map(str, row.gpus))}"] * (len(row.gpus) > 1)
        notes += [f"{row.clients} client{'' if row.clients == 1 else 's'}"]
        notes += [f"{row.partitions} SM partitions"] * (row.partitions > 0)
        notes += ["new tasks join it"] * row.active + ["no lease names it"] * (not row.needed)
        said.append(f"server {row.domain}/g{row.gpu}/{row.color}: {row.state}, {', '.join(notes)}")
        said += [f"  {one}" for one in row.plain]
    for strike in status.strikes:
        many = f"{strike.faults} GPU fault{'' if strike.faults == 1 else 's'}, the last by {strike.last}"
        said.append(f"program {strike.program} of uid {strike.uid}: {many}; its next task: {strike.state}")
    said += [_lease(lease, status.guard) for lease in status.leases]
    said += [f"lease that cannot be read: {broken}" for broken in status.broken]
    if not status.leases and not status.broken:
        said.append("no leases" if status.servers is not None else "no leases of yours")
    return said


def of_many(found: Iterable[NodeStatus]) -> list[str]:
    """The lines of many nodes; nodes that have the same to tell are told of together."""
    groups: dict[NodeStatus, list[str]] = {}
    for status in found:
        groups.setdefault(replace(status, node=""), []).append(status.node)
    return [line for same, names in groups.items() for line in lines(replace(same, node=folded(names)))]


def _lease(lease: LeaseRow, guard: Level) -> str:
    about = f"lease of job {lease.job} ({lease.user}): {lease.state.value}"
    if lease.state is not LeaseState.OPEN:
        return f"{about}: {lease.reason}"
    gpus = ",".join(map(str, lease.gpus)) or "none"
    today = in_force(lease.isolation, guard is Level.ON, bool(lease.slots))
    began = "" if today is lease.isolation else f" ({lease.isolation.value} when the job began)"
    about += f", domain {lease.domain}, GPU {gpus}, isolation {today.value}{began}"
    about += f" (SM partition {', '.join(map(str, lease.slots))})" if lease.slots else ""
    about += f", standby {'yes' if len(lease.colors) > 1 else 'no'}"
    return about + (f"; {lease.reason}" if lease.reason else "")
