"""Closing what nobody holds any more: shared by the epilog and by a prolog that failed.

The caller holds the domain's lock. A lease that cannot be read might name the domain: then nothing is closed and
that is told, since closing a server under a living job is worse than leaving one.
"""

import os
from functools import partial

from resilience import contract
from resilience.hooks.node import Node, at_once
from resilience.model.ids import DomainKey, NodeName
from resilience.model.records import DomainClosed
from resilience.placement.domain_plan import unused

_KEEP_LOGS = 7 * 24 * 3600.0
"""Seconds that the logs of a job's own domain are kept; those of users and `shared` go with their next opening."""


def close_unused(node: Node, key: DomainKey) -> tuple[str, ...]:
    """Close the servers of a domain on each GPU that no open lease names; returns what is left of those."""
    servers = node.leases.servers(key)
    leases, broken = node.leases.survey()
    free = unused(servers, leases)
    if not free:
        return () if servers else _forget(node, key)
    if broken and not key.startswith("j"):
        return tuple(f"domain {key} stays open, a lease cannot be read: {wrong}" for wrong in broken)
    left: list[str] = []
    for server, result in at_once({one: partial(node.mps.close, one) for one in free}, node.left()).items():
        residue = (str(result),) if isinstance(result, Exception) else result
        left += residue
        node.journal.append(
            DomainClosed(
                domain=key,
                gpu=server.gpu,
                color=server.color,
                residue=tuple(residue),
                ended=node.mps.ended.pop(server, ""),
            )
        )
    if not left:
        for gpu in sorted({server.gpu for server in free}):
            left += node.leases.forget_gpu(key, gpu)
        if not node.leases.servers(key):
            left += _forget(node, key)
    return tuple(left)


def _forget(node: Node, key: DomainKey) -> tuple[str, ...]:
    """The logs first: with its directory a domain's lock is gone, and another may open it."""
    node.rooms.keep_logs(key)
    with node.rooms.changing(key):
        return node.leases.forget_domain(key)


def prune_logs(node: Node, name: NodeName) -> None:
    """Remove the logs of jobs' own domains that are long closed: their names never come back."""
    paths = node.settings.paths
    directory = os.path.dirname(
        contract.path("mps_log", run=paths.run, log=paths.log, node=name, key="x", gpu=0, color="a")
    )
    logs = os.path.dirname(os.path.dirname(directory))
    open_now = set(node.leases.domains())
    try:
        entries = [entry for entry in os.scandir(logs) if entry.name.startswith("j") and entry.name not in open_now]
    except OSError:
        return
    for entry in entries:
        if node.clock.wall() - entry.stat(follow_symlinks=False).st_mtime > _KEEP_LOGS:
            node.discards.discard(entry.path)
