"""What supervisors are told of Slurm's SIGKILL: how long after SIGTERM it comes, and whether it comes at all.

A supervisor whose program goes on after SIGTERM has its MPS clients ended just before SIGKILL (spank_plugin/launcher/last_call.h). How
long Slurm waits is asked once, and again for a task that comes FRESH seconds later: an admin may have changed it. Whether a SIGTERM
was the beginning of the end Slurm is asked only for programs that outlive it so long.

On failure: a Slurm that does not answer is no reason to end anything; the supervisor hears nothing.
"""

import sys
from functools import partial

from resilience.agent.peers import Peers
from resilience.model.errors import ResilienceError
from resilience.model.ids import TaskRef
from resilience.ports import Clock, Slurm, Worker

FRESH = 3600.0


class LastCalls:
    def __init__(self, slurm: Slurm, worker: Worker, clock: Clock, peers: Peers) -> None:
        self._slurm = slurm
        self._worker = worker
        self._clock = clock
        self._peers = peers
        self._wait = 0.0
        """Seconds from SIGTERM to SIGKILL; 0: not known."""
        self._asked_at: float | None = None

    def met(self, ref: TaskRef) -> None:
        """A task's supervisor has come."""
        if self._wait:
            self._tell(ref)
        if self._asked_at is None or self._clock.monotonic() - self._asked_at > FRESH:
            self._asked_at = self._clock.monotonic()
            self._worker.submit("slurm", self._slurm.kill_wait, self._learnt)

    def asked(self, ref: TaskRef) -> None:
        """It wants to know whether its program is about to be killed."""
        self._worker.submit("last_call", partial(self._slurm.ended_at, ref.job), partial(self._answer, ref))

    def _learnt(self, wait: float | Exception) -> None:
        if isinstance(wait, Exception):
            self._asked_at = None  # the next task's turn to ask
            _complain(wait)
            return
        self._wait = wait
        for ref in self._peers.all():
            self._tell(ref)

    def _tell(self, ref: TaskRef) -> None:
        self._peers.tell(ref, "kill_wait", ms=_ms(self._wait))

    def _answer(self, ref: TaskRef, ended: float | Exception | None) -> None:
        if isinstance(ended, Exception):
            _complain(ended)
            return
        if ended is None:
            self._peers.tell(ref, "kill_in", ms="")
            return
        left = ended + self._wait - self._clock.wall()
        self._peers.tell(ref, "kill_in", ms=_ms(min(max(0.0, left), self._wait)))


def _ms(seconds: float) -> int:
    return round(1000 * seconds)


def _complain(error: Exception) -> None:
    text = error.lines() if isinstance(error, ResilienceError) else f"mpsr: agent: {error}"
    print(text, file=sys.stderr, flush=True)
