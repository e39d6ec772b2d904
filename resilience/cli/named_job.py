"""The jobs that a user names on the command line, as Slurm's own numbers.

Slurm is asked only for tasks of arrays and components: slurmctld first, which forgets a job some minutes after its end,
then the accounting where there is one.
"""

import argparse

from resilience.adapters.slurm import sacct
from resilience.adapters.slurm.scontrol import Scontrol
from resilience.model.errors import ConfigError, ResilienceError
from resilience.model.ids import JobId
from resilience.model.settings import Settings
from resilience.parse import job_name
from resilience.parse.job_name import JobName


def add(parser: argparse.ArgumentParser, help_text: str) -> None:
    parser.add_argument("-j", "--job", type=_argument, metavar="JOB", help=help_text)


def _argument(text: str) -> JobName:
    try:
        return job_name.parse(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(f"{error}; {error.hint}") from error


def numbers(name: JobName, chosen: Settings) -> tuple[JobId, ...]:
    """The jobs that are meant, one at least. Raises ConfigError when Slurm does not know which they are."""
    if name.plain:
        return (name.job,)
    slurm = Scontrol(program=chosen.paths.scontrol, timeout=chosen.slurm.timeout, requeue_timeout=chosen.slurm.timeout)
    why: list[str] = []
    for ask in (slurm.members, lambda job: sacct.members(job, timeout=chosen.slurm.timeout)):
        try:
            found = tuple(job for job, task, component in ask(name.job) if name.means(task, component))
        except ResilienceError as error:
            why.append(str(error))
            continue
        if found:
            return tuple(dict.fromkeys(found))
        why.append(f"no such {'task' if name.tasks else 'component'}")
    hint = f"give the job's own number: sacct -X -o JobID%20,JobIDRaw -j {name.job}"
    raise ConfigError(
        f"job {name.text}", "Slurm does not say which job that is", "; ".join(dict.fromkeys(why)), hint=hint
    )
