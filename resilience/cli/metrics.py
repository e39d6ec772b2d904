"""`mpsr metrics`: the figures of a whole journal, in the text that the agent writes for Prometheus (paths.metrics).

The agent's own figures begin when it starts; these begin with the journal's first record. For admins, who may read it.
"""

import argparse
import sys

from resilience.cli.log import journal_path
from resilience.config import settings
from resilience.contract import exit_code
from resilience.metrics import Fold
from resilience.report import journal_lines


def add(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Print the figures of a node's whole journal in Prometheus's text format. Only admins may read the journal. Where "
        "paths.metrics in mpsr.yaml(5) names a directory, the agent keeps such a file itself."
    )
    parser.add_argument("--node", help="Slurm's name of the node (default: this one)")
    parser.add_argument("--journal", metavar="FILE", help="another journal file")
    parser.add_argument("--config", metavar="FILE", help="another mpsr.yaml")


def run(arguments: argparse.Namespace) -> int:
    chosen = settings.find(arguments.config).settings
    read = journal_lines.read(arguments.journal or journal_path(chosen, arguments.node))
    fold = Fold()
    for entry in read.entries:
        fold.take(entry)
    fold.skip(read.skipped)
    sys.stdout.write(fold.text())
    return exit_code("ok")
