"""`mpsr prolog` and `mpsr epilog`: the two functions with their adapters. Imports little: every job that asked waits for it."""

import os

from resilience import contract
from resilience.adapters.clock import SystemClock
from resilience.adapters.journal import JournalFile
from resilience.cli import settings as chosen
from resilience.cli.epilog import epilog
from resilience.cli.prolog import prolog
from resilience.ports import Gpus


def run(name: str) -> int:
    """Exit status of the script that `name` says; the node is the one in slurmd's environment."""
    settings = chosen.find().settings
    clock = SystemClock()
    node = os.environ.get("SLURMD_NODENAME", "")
    journal = JournalFile(contract.path("journal", log=settings.paths.log, node=node), clock)
    script = {"prolog": prolog, "epilog": epilog}[name]
    return script(os.environ, settings, gpus=_gpus, clock=clock, journal=journal)


def _gpus() -> Gpus:
    from resilience.adapters.nvml import NvmlGpus

    return NvmlGpus()
