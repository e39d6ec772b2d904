"""`mpsr run [--] PROGRAM`: a program of a batch script, or of salloc's shell, under a supervisor of its own.

It becomes mpsr-launch, which becomes the program's parent: exit status, signals and streams are the program's. Relies on
what the plugin and Slurm have put into the job's environment; in a job without a lease it starts nothing. Where there is no
Slurm at all, as on a laptop, it keeps the program's state itself (resilience/state/alone.py).
"""

import argparse
import os

from resilience.config import settings
from resilience.contract import env, path
from resilience.model.errors import ConfigError, ResilienceError
from resilience.state import alone

_HINT = "in a job that asked for MPS: sbatch --mps, salloc --mps"


def add(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Run a program of a batch script under a supervisor, so that it is recovered after a fault as a task of srun is. "
        "It ends with the program's exit status. Outside Slurm it keeps the state of the program's session across its death."
    )
    parser.add_argument("--config", metavar="FILE", help="another mpsr.yaml")
    parser.add_argument("program", nargs=argparse.REMAINDER, metavar="PROGRAM", help="the program and its arguments")


def run(arguments: argparse.Namespace) -> int:
    """Does not return unless the supervisor cannot be started."""
    command = arguments.program[1:] if arguments.program[:1] == ["--"] else arguments.program
    if not command:
        raise ConfigError("run", "no program given", hint="mpsr run PROGRAM [ARGUMENT...]")
    if not any(name.startswith("SLURM") for name in os.environ) and env("lease") not in os.environ:
        try:
            alone.run(command, os.environ)
        except OSError as error:
            raise ResilienceError(command[0], "cannot be run", error.strerror or error) from error
    paths = settings.find(arguments.config).settings.paths
    launcher = paths.launcher if arguments.config else os.environ.get(env("launcher")) or paths.launcher
    environ = {key: value for key, value in os.environ.items() if key != env("argv0")}
    if not environ.get(env("lease")):
        environ[env("lease")] = lease_of(environ, paths.run)
    try:
        os.execve(launcher, [launcher, *command], environ)
    except OSError as error:
        raise ResilienceError(launcher, "cannot be run", error.strerror or error, hint="mpsr check") from error


def lease_of(environ: dict[str, str], run: str) -> str:
    """The path of the lease of the job that this process is in. Raises ResilienceError when it is in none, or asked for
    no MPS."""
    job, node = environ.get("SLURM_JOB_ID", ""), environ.get("SLURMD_NODENAME", "")
    if not job or not node:
        raise ResilienceError("run", "not in a Slurm job", "no SLURM_JOB_ID and SLURMD_NODENAME", hint=_HINT)
    lease = path("lease", run=run, node=node, job=job)
    if not os.path.exists(lease):
        raise ResilienceError("run", "this job did not ask for MPS", f"no {lease}", hint=_HINT)
    return lease
