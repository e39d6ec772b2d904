"""`mpsr status`: agent, servers and leases of this node, or of many, as they are now.

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

from resilience.adapters.gpu.guard import found, level
from resilience.adapters.linux.leases import LeaseFiles
from resilience.adapters.linux.procfs import ProcfsTree
from resilience.adapters.linux.strike_file import StrikeFile
from resilience.adapters.mps.domain_locks import DomainLocks
from resilience.adapters.mps.mps_control import ControlDaemons
from resilience.cli import named_job, over_nodes
from resilience.config import settings
from resilience.config.node_name import node_name
from resilience.contract import exit_code, path
from resilience.model.errors import ResilienceError
from resilience.model.guard import Level
from resilience.model.ids import NodeName, ServerId
from resilience.model.lease import Lease, LeaseState
from resilience.model.records import Record
from resilience.model.settings import Recovery, Settings
from resilience.model.world import ServerState
from resilience.report import node_status
from resilience.report.node_status import LeaseRow, NodeStatus, Plain, ServerRow, StrikeRow

_CONNECT_TIMEOUT = 2.0
_SUPERVISOR = "mpsr-launch"


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    node: str
    agent: bool
    leases: tuple[Lease, ...]
    broken: tuple[str, ...]
    servers: tuple[ServerRow, ...] | None
    guard: Level = Level.ABSENT
    guard_cancels: tuple[str, ...] = ()
    sm_partitions: str = "off"
    strikes: tuple[StrikeRow, ...] = ()

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
    named_job.add(
        parser, "only the leases of this job, on its nodes: 4711, 4711_3 (a task of an array), 4711+1 (a component)"
    )
    over_nodes.add(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.add_argument("--node", help="Slurm's name of the node (default: this one)")
    parser.add_argument("--config", metavar="FILE", help="another mpsr.yaml")


def run(arguments: argparse.Namespace) -> int:
    chosen = settings.find(arguments.config).settings
    wanted = named_job.numbers(arguments.job, chosen) if arguments.job else ()
    if where := over_nodes.target(arguments, chosen, wanted, admins=False):
        return _of_many(arguments, chosen, where)
    status = look(chosen, node_name(arguments.node, chosen.paths.run))
    if wanted:
        status = replace(status, leases=tuple(lease for lease in status.leases if lease.job in wanted))
    if arguments.json:
        print(json.dumps(asdict(shown(status))))
    else:
        print("\n".join(node_status.lines(shown(status))))
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
        kept = StrikeFile(path("strikes", state=chosen.paths.state, node=node)).read()
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


def shown(status: Status) -> NodeStatus:
    """What is told of it, to a person and as JSON."""
    return NodeStatus(
        node=status.node,
        agent=status.agent,
        good=status.good(),
        guard=status.guard,
        guard_cancels=status.guard_cancels,
        sm_partitions=status.sm_partitions,
        servers=status.servers,
        leases=tuple(map(_row, status.leases)),
        strikes=status.strikes,
        broken=status.broken,
    )


def _row(lease: Lease) -> LeaseRow:
    return LeaseRow(
        job=lease.job,
        user=lease.user,
        state=lease.state,
        reason=lease.reason,
        domain=lease.domain,
        gpus=tuple(minor for minor, _ in lease.gpus),
        isolation=lease.isolation,
        slots=tuple(slot for _, slot in lease.slots),
        colors=lease.colors,
    )


def _of_many(arguments: argparse.Namespace, chosen: Settings, where: over_nodes.Target) -> int:
    job = ["--job", arguments.job.text] if arguments.job else []
    found = over_nodes.ask(where, chosen, lambda node: ["status", "--json", "--node", node, *job], NodeStatus)
    found.answers = {node: replace(one, node=node) for node, one in found.answers.items()}
    if arguments.json:
        print(json.dumps({"nodes": {n: asdict(one) for n, one in found.answers.items()}, "no_answer": found.missing}))
    else:
        print("\n".join(node_status.of_many(found.answers.values())))
    return found.tell(exit_code("ok" if all(one.good for one in found.answers.values()) else "failed"))
