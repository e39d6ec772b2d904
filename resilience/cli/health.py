"""`mpsr check --health`: one line and a Nagios status of this node. Asks neither Slurm nor other nodes, and changes nothing."""

from collections.abc import Callable

from resilience.check.finding import Finding
from resilience.cli import status
from resilience.config import settings
from resilience.config.node_name import node_name
from resilience.model.errors import ConfigError, ResilienceError
from resilience.model.settings import Settings
from resilience.report import health
from resilience.report.health import Code


def run(config: str | None, node: Callable[[Settings], list[Finding]]) -> int:
    """`node` finds what is wrong with the node's programs, directories and GPUs."""
    try:
        chosen = settings.find(config).settings
    except ConfigError as error:
        print(health.line(Code.CRITICAL, [str(error)]))
        return Code.CRITICAL
    try:
        seen = status.shown(status.look(chosen, node_name(None, chosen.paths.run)))
        code, text = health.judge(seen, node(chosen))
    except ResilienceError as error:
        code, text = Code.UNKNOWN, health.line(Code.UNKNOWN, [str(error)])
    print(text)
    return code
