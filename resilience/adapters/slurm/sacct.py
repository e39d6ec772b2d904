"""Slurm's accounting through `sacct`: the own numbers of an array's tasks and a heterogeneous job's components.

Relies on `JobIDRaw` and `JobID` in parsable form. Raises SlurmError when there is no sacct, no accounting, or no answer.
"""

import os
import subprocess

from resilience.model.errors import ConfigError, SlurmError
from resilience.model.ids import JobId
from resilience.parse import job_name


def members(job: JobId, *, timeout: float) -> tuple[tuple[JobId, str, str], ...]:
    """Of an array or a heterogeneous job: each own number, with the index in the array or the offset of the component."""
    command = ["sacct", "-n", "-X", "-P", "-o", "JobIDRaw,JobID", "-j", str(job)]
    keep = {name: os.environ[name] for name in ("PATH", "SLURM_CONF") if name in os.environ}
    try:
        done = subprocess.run(
            command,
            env={**keep, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise SlurmError("sacct", "gave no answer in time", f"{timeout:g} s") from error
    except OSError as error:
        raise SlurmError("sacct", "cannot be run", error.strerror or error) from error
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or ["no reason given"]
        raise SlurmError("sacct", "cannot say", said[-1][:200])
    return tuple(parsed for line in done.stdout.splitlines() if (parsed := _row(line)) is not None)


def _row(line: str) -> tuple[JobId, str, str] | None:
    """`4713|4711_3` → (4713, "3", ""); tasks that have not begun have no number of their own."""
    number, _, shown = line.strip().partition("|")
    try:
        name = job_name.parse(shown)
    except ConfigError:
        return None
    if not (number.isascii() and number.isdigit()) or len(name.tasks) > 1:
        return None
    return JobId(int(number)), next(iter(name.tasks), ""), name.component
