"""Putting a job's account where sacct and scontrol show it, shared by the two adapters of the Slurm port.

Slurm 22.05 takes an AdminComment while the job is pending or running, and while it is completing on the way to another
run; of a job that completes or has ended it says `Job has already finished` (seen). What others wrote there stays
(account_text.py). So whoever asks has to see to it
that the job still runs (the agent has its tasks stay), and the answer has to be had soon: what nobody answers is asked
again, with pauses that grow, for at most `patience` seconds; what Slurm refuses is final, but for a job whose state
changes just now.
"""

import time

from resilience.adapters.slurm import account_text
from resilience.adapters.slurm.requeue_sequence import Primitives
from resilience.model.errors import SlurmAway
from resilience.model.ids import JobId
from resilience.ports import Done, Refused

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 2.0
"""Seconds between two tries. A busy controller answers within a second or so, one that is restarted within ten."""
_LATER = "try again"
"""In Slurm's words for a job in transition (ESLURM_TRANSITION_STATE_NO_UPDATE)."""


def comment(slurm: Primitives, job: JobId, text: str, *, patience: float) -> Done | Refused:
    """Set the comment. Raises SlurmError when Slurm cannot be asked, SlurmAway when nobody answered in time."""
    deadline = time.monotonic() + patience
    pause = _FIRST_PAUSE
    while True:
        last = time.monotonic() + pause >= deadline
        try:
            answer = slurm.ask_update(job, comment=account_text.beside(slurm.admin_comment(job), text))
            if last or isinstance(answer, Done) or _LATER not in answer.reason.lower():
                return answer
        except SlurmAway:
            if last:
                raise
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
