"""How prolog and epilog begin, and how they end when they failed: the same for both.

What is wrong with slurmd's environment is said on standard error; then there is no job to work for. A failure of ours
ends with status 0, or, where the site wants its nodes drained for that, with 1 and the word `drain` on standard output:
the word keeps a drain apart from a program that crashed (also status 1).
"""

import sys
from collections.abc import Callable, Mapping

from resilience.contract import exit_code
from resilience.hooks.node import Node, build
from resilience.model.errors import ConfigError
from resilience.model.settings import Settings
from resilience.parse.job_environment import JobEnvironment, job_environment
from resilience.ports import Clock, Gpus, Journal


def begin(
    environ: Mapping[str, str], settings: Settings, *, gpus: Callable[[], Gpus], clock: Clock, journal: Journal
) -> tuple[JobEnvironment, Node] | None:
    """The job that Slurm runs us for, and what to act through; None when that cannot be told."""
    try:
        job = job_environment(environ)
    except ConfigError as error:
        print(error.lines(), file=sys.stderr)
        return None
    return job, build(job.node, environ, settings, gpus=gpus, clock=clock, journal=journal)


def failed(settings: Settings) -> int:
    """Exit status after a failure of ours."""
    if settings.prolog.on_failure != "drain":
        return exit_code("ok")
    print("drain")
    return exit_code("failed")
