"""Slurm's accounting through `sacct`: a job's nodes, and the own numbers of an array's tasks and a heterogeneous job's components.

Relies on `JobIDRaw` and `JobID` in parsable form. Raises SlurmError when there is no sacct, no accounting, or no answer.
"""

import os
import subprocess

from resilience.model.errors import ConfigError, SlurmError
from resilience.model.ids import JobId
from resilience.parse import job_name


def members(job: JobId, *, timeout: float) -> tuple[tuple[JobId, str, str], ...]:
    """Of an array or a heterogeneous job: each own number, with the index in the array or the offset of the component."""
    return tuple(parsed for line in _ask(job, "JobIDRaw,JobID", timeout) if (parsed := _row(line)) is not None)


def nodes(job: JobId, *, timeout: float) -> str:
    """The nodes on which a job ran last, as Slurm lists them; empty when it never ran."""
    listed = [line for line in _ask(job, "NodeList", timeout) if line and line != "None assigned"]
    return listed[-1] if listed else ""


def _ask(job: JobId, columns: str, timeout: float) -> list[str]:
    command = ["sacct", "-n", "-X", "-P", "-o", columns, "-j", str(job)]
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
    return [line.strip() for line in done.stdout.splitlines()]


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
