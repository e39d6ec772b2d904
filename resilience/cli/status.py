"""`mpsr status`: this node's agent, servers and leases, as they are now.

Anybody sees whether the agent answers, and the leases of the own jobs; root sees all leases and asks the control daemons
for the state of each server. Only looks: starts nothing and ends nothing. Exit status `failed` when leases are held but
no agent answers, or a server that a lease names is not ACTIVE.
"""

import argparse
import json
import os
import socket
import sys
import time
from dataclasses import asdict, dataclass, replace
from typing import Any

from resilience.adapters.gpu.guard import found, level
from resilience.adapters.linux.leases import LeaseFiles
from resilience.adapters.linux.procfs import ProcfsTree
from resilience.adapters.linux.strike_file import StrikeFile
from resilience.adapters.mps.domain_locks import DomainLocks
from resilience.adapters.mps.mps_control import ControlDaemons
from resilience.cli import named_job
from resilience.config import settings
from resilience.config.node_name import node_name
from resilience.contract import exit_code, path
from resilience.model.errors import ResilienceError
from resilience.model.guard import Level
from resilience.model.ids import JobId, NodeName, ServerId
from resilience.model.lease import Isolation, Lease, LeaseState, in_force
from resilience.model.records import Record
from resilience.model.records.words import printable
from resilience.model.settings import Recovery, Settings
from resilience.model.world import ServerState

_CONNECT_TIMEOUT = 2.0
_SUPERVISOR = "mpsr-launch"
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
    gpus: tuple[int, ...] = ()
    """All that it is over; `gpu` is the first."""
    partitions: int = 0
    """SM partitions that it is cut into."""
    pids: tuple[int, ...] = ()
    """Its clients' process ids."""
    plain: tuple[Plain, ...] = ()
    """Those of them that no supervisor has."""


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
class Status:
    node: str
    agent: bool
    leases: tuple[Lease, ...]
    broken: tuple[str, ...]
    servers: tuple[ServerRow, ...] | None
    """None when the caller may not ask."""
    guard: Level = Level.ABSENT
    guard_cancels: tuple[str, ...] = ()
    """Generations of GPUs whose faults the guard module sees."""
    """The kernel module that keeps a client's MMU fault to that client."""
    sm_partitions: str = "off"
    """The setting mps.sm_partitions."""
    strikes: tuple[StrikeRow, ...] = ()
    """Programs that have caused GPU faults here; root sees them."""

    def good(self) -> bool:
        down = [row for row in self.servers or () if row.needed and row.state != ServerState.ACTIVE]
        return not self.broken and not down and (self.agent or not self.leases)


class _NoJournal:
    """A look leaves no trace."""

    def append(self, record: Record) -> None:
        pass


def add(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Show the node agent, the MPS servers and the leases of this node. Root sees every lease and the state of each "
        "server, a user the leases of their own jobs."
    )
    named_job.add(parser, "only the leases of this job: 4711, 4711_3 (a task of an array), 4711+1 (a component)")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--node", help="Slurm's name of the node (default: this one)")
    parser.add_argument("--config", metavar="FILE", help="another mpsr.yaml")


def run(arguments: argparse.Namespace) -> int:
    chosen = settings.find(arguments.config).settings
    status = look(chosen, node_name(arguments.node, chosen.paths.run))
    if arguments.job:
        wanted = named_job.numbers(arguments.job, chosen)
        status = replace(status, leases=tuple(lease for lease in status.leases if lease.job in wanted))
    if arguments.json:
        print(json.dumps(_plain(status)))
    else:
        print("\n".join(lines(status)))
    return exit_code("ok" if status.good() else "failed")


def look(chosen: Settings, node: NodeName) -> Status:
    files = LeaseFiles(chosen.paths.run, node, _NoJournal())
    leases, broken = files.survey()
    root = os.geteuid() == 0
    mine = leases if root else tuple(lease for lease in leases if lease.uid == os.geteuid())
    return Status(
        node=node,
        agent=answers(path("agent_socket", run=chosen.paths.run, node=node)),
        leases=mine,
        broken=broken,
        servers=_servers(chosen, node, files, leases) if root else None,
        guard=level(),
        guard_cancels=found().cancels,
        sm_partitions=chosen.mps.sm_partitions,
        strikes=_strikes(chosen, node) if root else (),
    )


def _strikes(chosen: Settings, node: NodeName) -> tuple[StrikeRow, ...]:
    try:
        kept = StrikeFile(path("strikes", log=chosen.paths.log, node=node)).read()
    except ResilienceError as error:
        print(error.lines(), file=sys.stderr)
        return ()
    limits, rows = chosen.recovery, dict[tuple[int, str], list[str]]()
    for strike in kept:
        if strike.at > time.time() - limits.strikes_window:
            rows.setdefault((strike.uid, strike.program), []).append(strike.task)
    return tuple(
        StrikeRow(uid=uid, program=program, faults=len(tasks), last=tasks[-1], state=_state(len(tasks), limits))
        for (uid, program), tasks in rows.items()
    )


def _state(faults: int, limits: Recovery) -> str:
    if limits.strikes_refuse and faults >= limits.strikes_refuse:
        return "refused"
    return "apart" if limits.strikes and faults >= limits.strikes else "as any other"


def answers(sock: str) -> bool:
    """Whether somebody takes connections at a supervisors' socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        probe.settimeout(_CONNECT_TIMEOUT)
        try:
            probe.connect(sock)
        except OSError:
            return False
    return True


def _servers(chosen: Settings, node: NodeName, files: LeaseFiles, leases: tuple[Lease, ...]) -> tuple[ServerRow, ...]:
    mps = ControlDaemons(chosen, node, DomainLocks(chosen.paths.run, node), os.environ)
    needed = {
        ServerId(domain=lease.domain, gpu=minor, color=color)
        for lease in leases
        if lease.state is LeaseState.OPEN
        for (minor, _), *_ in lease.spans
        for color in lease.colors
    }
    several = {
        (lease.domain, span[0][0]): tuple(minor for minor, _ in span)
        for lease in leases
        for span in lease.spans
        if len(span) > 1
    }
    there = {server for key in files.domains() for server in files.servers(key)}
    rows = []
    for server in sorted(needed | there):
        try:
            state, pids = str(mps.state(server)), mps.clients(server)
        except ResilienceError as error:
            state, pids = f"? ({error})", ()
        rows.append(
            ServerRow(
                domain=server.domain,
                gpu=server.gpu,
                color=server.color,
                gpus=several.get((server.domain, server.gpu), (server.gpu,)),
                state=state,
                clients=len(pids),
                active=files.active(server) == server.color,
                needed=server in needed,
                partitions=mps.partitions.count(server),
                pids=pids,
                plain=tuple(filter(None, map(_plain_client, pids))),
            )
        )
    return tuple(rows)


def _plain_client(pid: int) -> Plain | None:
    """None: a supervisor has it, or it has gone."""
    procfs = ProcfsTree()
    ancestors = procfs.ancestors(pid)
    if not ancestors or any(procfs.name(one) == _SUPERVISOR for one in ancestors):
        return None
    return Plain(pid=pid, job=procfs.job(pid), program=procfs.name(pid))


def lines(status: Status) -> list[str]:
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
    for lease in status.leases:
        gpus = ",".join(str(minor) for minor, _ in lease.gpus) or "none"
        about = f"lease of job {lease.job} ({lease.user}): {lease.state.value}"
        if lease.state is LeaseState.OPEN:
            about += f", domain {lease.domain}, GPU {gpus}, isolation {_isolation(lease, status.guard)}"
            about += f" (SM partition {', '.join(str(slot) for _, slot in lease.slots)})" if lease.slots else ""
            about += f", standby {'yes' if len(lease.colors) > 1 else 'no'}"
            about += f"; {lease.reason}" if lease.reason else ""
        else:
            about += f": {lease.reason}"
        said.append(about)
    said += [f"lease that cannot be read: {broken}" for broken in status.broken]
    if not status.leases and not status.broken:
        said.append("no leases" if status.servers is not None else "no leases of yours")
    return said


def isolation_now(lease: Lease, guard: Level) -> Isolation:
    return in_force(lease.isolation, guard is Level.ON, bool(lease.slots))


def _isolation(lease: Lease, guard: Level) -> str:
    today = isolation_now(lease, guard)
    return today.value if today is lease.isolation else f"{today.value} ({lease.isolation.value} when the job began)"


def _plain(status: Status) -> dict[str, Any]:
    return {
        "node": status.node,
        "agent": status.agent,
        "good": status.good(),
        "guard": status.guard.value,
        "guard_cancels": list(status.guard_cancels),
        "sm_partitions": status.sm_partitions,
        "servers": None if status.servers is None else [asdict(row) for row in status.servers],
        "leases": [
            {
                "job": lease.job,
                "user": lease.user,
                "state": lease.state.value,
                "reason": lease.reason,
                "domain": lease.domain,
                "gpus": [minor for minor, _ in lease.gpus],
                "isolation": lease.isolation.value,
                "slots": [slot for _, slot in lease.slots],
                "colors": list(lease.colors),
            }
            for lease in status.leases
        ],
        "strikes": [asdict(row) for row in status.strikes],
        "broken": list(status.broken),
    }
