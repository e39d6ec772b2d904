"""`mpsr prolog` and `mpsr epilog` as Slurm's scripts start them: their adapters put together, with few imports.

Everything comes from slurmd's environment and mpsr.yaml. What is wrong with the configuration is the site's and never
the node's fault: it is said on standard error, the status is `ok`, and the plugin refuses the job's steps because there
is no lease (docs/reference/protocols.md §4).
"""

import os
import sys

from resilience.adapters.linux.clock import SystemClock
from resilience.adapters.linux.guarded_files import make_dirs
from resilience.adapters.linux.journal import JournalFile
from resilience.config import settings
from resilience.contract import exit_code, path
from resilience.model.errors import ConfigError, ResilienceError
from resilience.parse.job_environment import job_environment
from resilience.ports import Gpus


def run(name: str) -> int:
    """Runs `prolog` or `epilog`; the exit status for the script. A ResilienceError is said in its own words."""
    try:
        return _run(name)
    except ResilienceError as error:
        print(error.lines(), file=sys.stderr)
        return exit_code("usage" if isinstance(error, ConfigError) else "failed")


def _run(name: str) -> int:
    try:
        chosen = settings.find().settings
        node = job_environment(os.environ).node
    except ConfigError as error:
        print(error.lines(), file=sys.stderr)
        return exit_code("ok")
    clock = SystemClock()
    journal = JournalFile(path("journal", log=chosen.paths.log, node=node), clock)
    try:
        make_dirs(os.path.dirname(path("journal", log=chosen.paths.log, node=node)))
    except OSError as error:
        print(f"mpsr: {name}: no journal: {error.strerror}: {error.filename}", file=sys.stderr)
    if name == "prolog":
        from resilience.hooks.prolog import prolog

        return prolog(os.environ, chosen, gpus=_gpus, clock=clock, journal=journal)
    from resilience.hooks.epilog import epilog

    return epilog(os.environ, chosen, gpus=_gpus, clock=clock, journal=journal)


def _gpus() -> Gpus:
    from resilience.adapters.gpu.nvml import NvmlGpus

    return NvmlGpus()
