"""The Slurm port through pyslurm, which runs in processes of its own (pyslurm_process.py).

pyslurm names a job by number only, which for the last task of a job array means the whole array, and shows any job of an
array or of a heterogeneous job for the number of its first; so those go through the scontrol adapter. So does an empty list
of excluded nodes, which pyslurm does not send (25.11). Relies on RPCError for everything that Slurm will not do.
"""

from typing import Any, Protocol

from resilience.adapters.slurm import admin_comment, requeue_sequence
from resilience.adapters.slurm.account_text import one_line
from resilience.adapters.slurm.requeue_sequence import Snapshot
from resilience.adapters.slurm.scontrol import Scontrol
from resilience.adapters.slurm.slurm_program import UNKNOWN_JOB, UNREACHABLE
from resilience.model.errors import SlurmAway, SlurmError, UnknownJob
from resilience.model.ids import JobId, NodeName
from resilience.ports import Done, JobInfo, Refused

_JOBS = 4096
"""Jobs of which is remembered how they are asked for."""


class Asker(Protocol):
    def ask(self, call: str, **words: Any) -> dict[str, Any]:
        """`ok`, `refused` or `failed`: pyslurm_calls.answer."""


class Pyslurm:
    """See the module. `scontrol` is what arrays and heterogeneous jobs go through."""

    def __init__(self, pyslurm: Asker, *, scontrol: Scontrol, timeout: float, requeue_timeout: float) -> None:
        self._pyslurm = pyslurm
        self._scontrol = scontrol
        self._timeout = timeout
        self._requeue_timeout = requeue_timeout
        self._of_several: dict[JobId, bool] = {}

    def job(self, job: JobId) -> JobInfo:
        if self._several(job):
            return self._scontrol.job(job)
        found = self._load(job)
        return JobInfo(
            job=job,
            state=found["state"],
            batch=found["batch"],
            requeue=found["requeue"],
            restarts=found["restarts"],
            stdout=found["stdout"] if found["batch"] else "",
            workdir=found["workdir"],
            no_requeue="" if found["requeue"] else self._scontrol.why_no_requeue(),
        )

    def requeue(self, job: JobId, *, comment: str, exclude: NodeName | None = None) -> Done | Refused:
        if self._several(job):
            return self._scontrol.requeue(job, comment=comment, exclude=exclude)
        return requeue_sequence.requeue(self, job, comment=comment, exclude=exclude, timeout=self._requeue_timeout)

    def comment(self, job: JobId, text: str) -> Done | Refused:
        if self._several(job):
            return self._scontrol.comment(job, text)
        return admin_comment.comment(self, job, text, patience=self._timeout)

    def drain(self, node: NodeName, reason: str) -> Done | Refused:
        found = self._ask("node", name=node)
        if isinstance(found, Refused):
            return found
        if "DRAIN" in found["state"]:
            return Done(detail=f"already drained: {found['reason'] or 'no reason'}")
        return self._done(
            "drain", name=node, reason=one_line(reason if reason.startswith("mpsr:") else f"mpsr:{reason}")
        )

    def kill_wait(self) -> float:
        return self._scontrol.kill_wait()

    def ended_at(self, job: JobId) -> float | None:
        return self._scontrol.ended_at(job)

    # ------------------------------------------------------------------ what requeue_sequence is made of

    def snapshot(self, job: JobId) -> Snapshot:
        found = self._load(job)
        return Snapshot(
            state=found["state"],
            batch=found["batch"],
            restarts=found["restarts"],
            held=found["held"],
            reason="" if found["reason"] == "None" else found["reason"],
        )

    def excluded(self, job: JobId) -> str:
        return str(self._load(job)["excluded"])

    def admin_comment(self, job: JobId) -> str:
        return str(self._load(job)["comment"])

    def ask_requeue(self, job: JobId) -> Done | Refused:
        return self._done("requeue", job=job)

    def ask_update(
        self, job: JobId, *, comment: str = "", excluded: str | None = None, start_now: bool = False
    ) -> Done | Refused:
        if excluded == "":
            return self._scontrol.ask_update(job, comment=comment, excluded="", start_now=start_now)
        changes: dict[str, str] = {}
        if comment:
            changes["admin_comment"] = comment
        if excluded is not None:
            changes["excluded_nodes"] = excluded
        if start_now:
            changes["begin_time"] = "now"
        return self._done("modify", job=job, changes=changes) if changes else Done()

    def _several(self, job: JobId) -> bool:
        """Whether the number may mean more than this job. It never changes: Slurm is asked for it once."""
        if job not in self._of_several:
            found = self._load(job)
            if len(self._of_several) >= _JOBS:
                self._of_several.clear()
            self._of_several[job] = found["several"] or found["id"] != job
        return self._of_several[job]

    def _load(self, job: JobId) -> dict[str, Any]:
        found = self._ask("load", job=job)
        if isinstance(found, Refused):
            if UNKNOWN_JOB in found.reason.lower():
                hint = "it may have ended more than MinJobAge ago"
                raise UnknownJob(f"job {job}", "is unknown to Slurm", hint=hint)
            raise SlurmError(f"job {job}", "cannot be asked for", found.reason)
        return found

    def _done(self, call: str, **words: Any) -> Done | Refused:
        found = self._ask(call, **words)
        return found if isinstance(found, Refused) else Done()

    def _ask(self, call: str, **words: Any) -> dict[str, Any] | Refused:
        """Raises SlurmAway when nobody answered, SlurmError when pyslurm is not as we know it."""
        answer = self._pyslurm.ask(call, **words)
        if "failed" in answer:
            raise SlurmError("pyslurm", f"{call} failed", answer["failed"])
        if "refused" not in answer:
            return answer["ok"] or {}
        if any(part in answer["refused"].lower() for part in UNREACHABLE):
            raise SlurmAway("slurmctld", "cannot be asked", answer["refused"])
        return Refused(reason=answer["refused"])
