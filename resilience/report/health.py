"""A node in one line with a status of Nagios' plugins, for HealthCheckProgram and for monitoring. Pure.

Critical is what costs a job its recovery or its start; warning is what will, or what the agent is about to mend.
"""

from collections.abc import Iterable
from enum import IntEnum

from resilience.check.finding import Finding, Severity
from resilience.report.node_status import NodeStatus

_SAID = 3
"""Reasons in the line; monitoring cuts long ones."""


class Code(IntEnum):
    """Exit statuses of the Monitoring Plugins' guidelines."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


def judge(status: NodeStatus, findings: Iterable[Finding]) -> tuple[Code, str]:
    """The exit status and the line."""
    bad = [(Code.CRITICAL, f"lease that cannot be read: {broken}") for broken in status.broken]
    if not status.agent and status.leases:
        bad.append((Code.CRITICAL, f"the agent does not answer, and jobs have leases: {len(status.leases)}"))
    elif not status.agent:
        bad.append((Code.WARNING, "the agent does not answer"))
    for row in status.servers or ():
        if row.needed and row.state != "ACTIVE":
            bad.append((Code.WARNING, f"server {row.domain}/g{row.gpu}/{row.color} is {row.state}"))
    levels = {Severity.ERROR: Code.CRITICAL, Severity.WARNING: Code.WARNING}
    bad += [(levels[one.level], f"{one.subject}: {one.text}") for one in findings if one.level in levels]
    code = max((code for code, _ in bad), default=Code.OK)
    return code, line(code, [text for _, text in sorted(bad, key=lambda item: -item[0])], status)


def line(code: Code, reasons: list[str], status: NodeStatus | None = None) -> str:
    """`MPSR CRITICAL - reason; reason | figures`; a reason has no `|`, which begins the figures."""
    more = f"; and {len(reasons) - _SAID} more: mpsr check" if len(reasons) > _SAID else ""
    text = ("; ".join(reasons[:_SAID]) + more).replace("|", "/") or "the agent answers"
    if status is None:
        return f"MPSR {code.name} - {text}"
    servers = status.servers or ()
    clients = sum(row.clients for row in servers)
    return f"MPSR {code.name} - {text} | servers={len(servers)} clients={clients} leases={len(status.leases)}"
