"""Running one of Slurm's programs: an environment of our own, a deadline, and what its silence or its words mean.

Relies on exit statuses and, where they do not tell, on the fixed English messages of slurm_errno. Raises SlurmError when
there is no such program, SlurmAway when no controller answers.
"""

import os
import re
import subprocess
from dataclasses import dataclass

from resilience.model.errors import SlurmAway, SlurmError

UNREACHABLE = ("contact slurm controller", "timed out", "communication", "connection", "protocol", "authentication")
"""Parts of messages that mean nobody answered, or not in a language that we share."""
UNKNOWN_JOB = "invalid job id"
_KEPT = ("PATH", "SLURM_CONF")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramAnswer:
    status: int
    out: bytes
    """As it came: where fields have fixed widths each byte counts."""
    err: str

    def refusal(self) -> str:
        """The last line of what was said, without the program's name."""
        said = [line for line in (self.err.strip() or self.text().strip()).splitlines() if line.strip()]
        return (
            re.sub(r"^(?:scontrol|squeue|slurm_\w+)(?: error)?: ", "", said[-1].strip()) if said else "no reason given"
        )

    def text(self) -> str:
        return self.out.decode(errors="replace")


def run(program: str, *words: str, timeout: float) -> ProgramAnswer:
    """One call, bounded by `timeout` seconds."""
    keep = {name: os.environ[name] for name in _KEPT if name in os.environ}
    name = os.path.basename(program)
    try:
        done = subprocess.run(
            [program, *words],
            env={**keep, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise SlurmAway(name, f"gave no answer within {timeout:g} s", " ".join(words)[:80]) from error
    except OSError as error:
        hint = "set paths.scontrol in mpsr.yaml; squeue lies beside it"
        raise SlurmError(program, "cannot be run", error.strerror or error, hint=hint) from error
    answer = ProgramAnswer(status=done.returncode, out=done.stdout, err=done.stderr.decode(errors="replace"))
    if answer.status != 0 and any(part in answer.err.lower() for part in UNREACHABLE):
        raise SlurmAway("slurmctld", "cannot be asked", answer.refusal())
    return answer


def beside(scontrol: str, name: str) -> str:
    """Another of Slurm's programs, where scontrol is: a name on PATH, or in the same directory."""
    directory, slash, file = scontrol.rpartition("/")
    return f"{directory}{slash}{file.replace('scontrol', name)}"
