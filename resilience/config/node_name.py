"""Which node's files a command reads: --node, else SLURMD_NODENAME, else the only node that has any, else the host's name.

Slurm's name of a node is not always the host's: several slurmd of one host share it. So the host's name is only the last
guess, cut at its first dot as Slurm does.
"""

import os
import socket

from resilience.model.errors import ConfigError
from resilience.model.ids import NodeName


def node_name(named: str | None, root: str = "") -> NodeName:
    """The node; `root` is the directory with one directory per node. Raises ConfigError when several would do."""
    chosen = named or os.environ.get("SLURMD_NODENAME", "")
    if chosen:
        if "/" in chosen or chosen.startswith("."):
            raise ConfigError("--node", "is not a node's name", chosen)
        return NodeName(chosen)
    host = socket.gethostname().split(".")[0]
    try:
        there = sorted(one.name for one in os.scandir(root) if one.is_dir() and one.name[0] != ".") if root else []
    except OSError:
        there = []
    if not there or host in there:
        return NodeName(host)
    if len(there) > 1:
        raise ConfigError("node", "is not clear: there are several", " ".join(there), hint="give --node NODE")
    return NodeName(there[0])
