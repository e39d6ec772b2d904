"""Closing what nobody holds any more: shared by the epilog and by a prolog that failed.

The caller holds the domain's lock. A lease that cannot be read might name the domain: then nothing is closed and
that is told, since closing a server under a living job is worse than leaving one.
"""

from functools import partial

from resilience.cli.node import Node, at_once
from resilience.domain_plan import unused
from resilience.model.ids import DomainKey


def close_unused(node: Node, key: DomainKey) -> tuple[str, ...]:
    """Close the servers of a domain on each GPU that no open lease names; returns what is left of those."""
    servers = node.leases.servers(key)
    leases, broken = node.leases.survey()
    free = unused(servers, leases)
    if not free:
        return () if servers else node.leases.forget_domain(key)
    if broken and not key.startswith("j"):
        return tuple(f"domain {key} stays open, a lease cannot be read: {wrong}" for wrong in broken)
    left: list[str] = []
    for server, result in at_once({one: partial(node.mps.close, one) for one in free}, node.left()).items():
        residue = (str(result),) if isinstance(result, Exception) else result
        left += residue
        node.journal.append("domain.closed", domain=key, gpu=server.gpu, color=server.color, residue=list(residue))
    if not left:
        for gpu in sorted({server.gpu for server in free}):
            left += node.leases.forget_gpu(key, gpu)
        left += node.leases.forget_domain(key)
    return tuple(left)
