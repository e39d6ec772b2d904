"""Jobs that are over and whose epilog never ran: slurmd was killed while it ended them (22.05, seen), or could not start it.

Their leases would keep their servers for ever. Slurm is asked about a job that holds a lease and of which no task is here, after
FIRST seconds and then after twice as long each time: a batch script may do without tasks for days. What it says twice
holds; then the epilog is run, as slurmd would have.
On failure: a Slurm that does not answer leaves the lease, and is asked again.
"""

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from resilience.model.ids import JobId
from resilience.model.lease import Lease
from resilience.model.world import State
from resilience.ports import Clock, Epilogs, Worker

FIRST = 15.0
MOST = 3600.0
"""Seconds between two questions at most."""
_AGAIN = 5.0
"""Seconds from the first word that a job is over to the second."""
_LANE = "forgotten"


@dataclass(slots=True)
class _Watch:
    lease: Lease
    at: float
    pause: float = FIRST
    over: bool = False
    """Slurm has said so once."""


class Forgotten:
    def __init__(self, epilogs: Epilogs | None, worker: Worker, clock: Clock, *, state: Callable[[], State]) -> None:
        self._epilogs = epilogs
        self._worker = worker
        self._clock = clock
        self._state = state
        self._jobs: dict[JobId, _Watch] = {}

    def leases(self, leases: dict[JobId, Lease]) -> None:
        """The open leases of now."""
        if self._epilogs is None:
            return
        now, before = self._clock.monotonic(), self._jobs
        self._jobs = {
            job: before[job] if job in before and before[job].lease == lease else _Watch(lease, now + FIRST)
            for job, lease in leases.items()
        }

    def due(self) -> float:
        """When there is something to do next."""
        return min((watch.at for watch in self._jobs.values()), default=math.inf)

    def run(self) -> None:
        now = self._clock.monotonic()
        for job, watch in self._jobs.items():
            if watch.at > now:
                continue
            if any(ref.job == job for ref in self._state().tasks):
                watch.at, watch.pause, watch.over = now + FIRST, FIRST, False
                continue
            watch.at = math.inf
            assert self._epilogs is not None
            self._worker.submit(_LANE, partial(self._epilogs.over, watch.lease), partial(self._answered, watch))

    def _answered(self, watch: _Watch, over: bool | Exception) -> None:
        now = self._clock.monotonic()
        assert self._epilogs is not None
        if over is True and watch.over:
            watch.at = now + MOST
            self._worker.submit(_LANE, partial(self._epilogs.run, watch.lease), partial(_ran, watch.lease))
        elif over is True:
            watch.at, watch.over = now + _AGAIN, True
        else:
            watch.at, watch.over = now + watch.pause, False
            watch.pause = min(2 * watch.pause, MOST)


def _ran(lease: Lease, wrong: str | Exception) -> None:
    what = f"had no epilog and gets it now{f': {wrong}' if wrong else ''}"
    print(f"mpsr: agent: job {lease.job} is over by Slurm, {what}", file=sys.stderr, flush=True)
