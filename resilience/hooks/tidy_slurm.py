"""The Slurm port of the agent, with an eye on spilled state: while a requeue is asked for, no epilog may take it away.

The fault may end a job before Slurm is asked to take it back; its epilog would then find a job that has ended, and
remove what the next run is to go on from. So a mark stands beside the job's lease for as long as Slurm is asked. A
requeue that did not come about leaves a job that ends, or has ended: what was kept for it is looked at again.
"""

import os
from collections.abc import Callable
from contextlib import suppress

from resilience.hooks.leftovers import mark, recheck
from resilience.hooks.node import Node
from resilience.model.ids import JobId, NodeName
from resilience.ports import Done, JobInfo, Refused, Slurm


class TidySlurm:
    """`slurm` does the asking; `node` makes what cleaning works with, with a deadline of its own."""

    def __init__(self, slurm: Slurm, node: Callable[[], Node]) -> None:
        self._slurm = slurm
        self._node = node
        with suppress(OSError):
            for entry in os.scandir(os.path.dirname(mark(node(), JobId(0)))):
                if entry.name.endswith(".requeue"):  # of an agent that was killed while it asked
                    os.unlink(entry.path)

    def job(self, job: JobId) -> JobInfo:
        return self._slurm.job(job)

    def requeue(self, job: JobId, *, comment: str, exclude: NodeName | None = None) -> Done | Refused:
        path = mark(self._node(), job)
        with suppress(OSError):  # without a mark the job may have to begin from the start: still better than no requeue
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        done = False
        try:
            answer = self._slurm.requeue(job, comment=comment, exclude=exclude)
            done = isinstance(answer, Done)
            return answer
        finally:
            with suppress(OSError):
                os.unlink(path)
            if not done:
                recheck(self._node(), job)

    def comment(self, job: JobId, text: str) -> Done | Refused:
        return self._slurm.comment(job, text)

    def drain(self, node: NodeName, reason: str) -> Done | Refused:
        return self._slurm.drain(node, reason)

    def kill_wait(self) -> float:
        return self._slurm.kill_wait()

    def ended_at(self, job: JobId) -> float | None:
        return self._slurm.ended_at(job)
