"""`mpsr hooks`: the hook server of this node (hooks/server.py), which the agent starts."""

import argparse

from resilience.config import settings
from resilience.config.node_name import node_name
from resilience.contract import exit_code
from resilience.hooks.server import serve


def add(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Serve the prologs and epilogs of this node. The agent starts it, and it ends with its standard input; see "
        "mpsr-agent(8)."
    )
    parser.add_argument("--node", help="Slurm's name of this node (default: $SLURMD_NODENAME, else the host's name)")
    parser.add_argument("--config", metavar="FILE", help="another mpsr.yaml")


def run(arguments: argparse.Namespace) -> int:
    serve(node_name(arguments.node), settings.find(arguments.config).settings.paths)
    return exit_code("ok")
