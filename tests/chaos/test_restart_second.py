"""The start of a requeued job is asked for in the second whole second after it is pending, never before."""

import time
from dataclasses import dataclass, field

from resilience.adapters.slurm.requeue_sequence import Snapshot, requeue
from resilience.model.ids import JobId
from resilience.ports import Done


@dataclass(slots=True)
class Slurm:
    """Takes a job back at once; remembers when."""

    state: str = "RUNNING"
    pending: float = 0.0
    started: list[float] = field(default_factory=list)

    def snapshot(self, job: JobId) -> Snapshot:
        if self.state == "PENDING":
            self.pending = time.time()
        return Snapshot(state=self.state, batch=True, restarts=0, held=False, reason="")

    def excluded(self, job: JobId) -> str:
        return ""

    def admin_comment(self, job: JobId) -> str:
        return ""

    def ask_requeue(self, job: JobId) -> Done:
        self.state = "PENDING"
        return Done()

    def ask_update(
        self, job: JobId, *, comment: str = "", excluded: str | None = None, start_now: bool = False
    ) -> Done:
        if start_now:
            self.started.append(time.time())
        return Done()


def test_slurmd_has_forgotten_the_old_credential() -> None:
    slurm = Slurm()
    assert isinstance(requeue(slurm, JobId(1), comment="x", exclude=None, timeout=10), Done)
    assert [int(moment) - int(slurm.pending) for moment in slurm.started] == [2]
