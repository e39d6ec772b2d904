"""The Slurm port through pyslurm, as its 25.11 documentation and source describe it.

Sources: https://pyslurm.github.io/25.11/reference/job/ (Job.load, requeue, modify, JobSubmitDescription),
https://pyslurm.github.io/25.11/reference/node/ (Node.load, modify); the same calls in github.com/PySlurm/pyslurm,
pyslurm/core/job/job.pyx, job/submission.pxd, node.pyx, error.pyx. pyslurm is imported by `load` alone, and refuses to be
imported with another Slurm release than its own.

Relies on RPCError for everything that Slurm will not do. pyslurm has no deadline of its own: a call is bounded by
slurm.conf's MessageTimeout. It names a job by number only, which for the last task of a job array means the whole
array; so tasks of arrays go through the scontrol adapter.
"""

import importlib
from typing import Any

from resilience.adapters.slurm import admin_comment, requeue_sequence
from resilience.adapters.slurm.requeue_sequence import Snapshot, one_line
from resilience.adapters.slurm.scontrol import Scontrol
from resilience.model.errors import SlurmAway, SlurmError
from resilience.model.ids import JobId, NodeName
from resilience.ports import Done, JobInfo, Refused

_NEEDED = ("Job", "JobSubmitDescription", "Node", "RPCError")
_UNREACHABLE = ("contact slurm controller", "timed out", "communication", "connection", "protocol", "authentication")


def load() -> Any:
    """The module, if it is here and has what we call. Raises ImportError or RuntimeError, in pyslurm's words."""
    module = importlib.import_module("pyslurm")
    if missing := [name for name in _NEEDED if not hasattr(module, name)]:
        raise ImportError(
            f"pyslurm {getattr(module, '__version__', '?')} has no {missing[0]}: 25.11 or later is needed"
        )
    return module


class Pyslurm:
    """See the module. `api` is the module pyslurm, `arrays` what tasks of job arrays go through."""

    def __init__(self, api: Any, *, arrays: Scontrol, timeout: float, requeue_timeout: float) -> None:
        self._api = api
        self._arrays = arrays
        self._timeout = timeout
        self._requeue_timeout = requeue_timeout

    def job(self, job: JobId) -> JobInfo:
        return self.snapshot(job).info

    def requeue(self, job: JobId, *, comment: str, exclude: NodeName | None = None) -> Done | Refused:
        if self._of_array(job):
            return self._arrays.requeue(job, comment=comment, exclude=exclude)
        return requeue_sequence.requeue(self, job, comment=comment, exclude=exclude, timeout=self._requeue_timeout)

    def comment(self, job: JobId, text: str) -> Done | Refused:
        if self._of_array(job):
            return self._arrays.comment(job, text)
        return admin_comment.comment(self, job, text, patience=self._timeout)

    def drain(self, node: NodeName, reason: str) -> Done | Refused:
        tagged = one_line(reason if reason.startswith("mpsr:") else f"mpsr:{reason}")
        try:
            found = self._api.Node.load(node)
            if "DRAIN" in str(found.state):
                return Done(detail=f"already drained: {found.reason or 'no reason'}")
            found.modify(self._api.Node(state="DRAIN", reason=tagged))
        except self._api.RPCError as error:
            return _refused(error)
        return Done()

    # ------------------------------------------------------------------ what requeue_sequence is made of

    def snapshot(self, job: JobId) -> Snapshot:
        found = self._load(job)
        info = JobInfo(
            job=job,
            state=str(found.state),
            batch=bool(found.is_batch_job),
            requeue=bool(found.is_requeueable),
            restarts=int(found.requeue_count or 0),
            stdout=str(found.standard_output or "") if found.is_batch_job else "",
            workdir=str(found.working_directory or ""),
            excluded=_nodes(found.excluded_nodes),
        )
        reason = str(found.state_reason or "")
        return Snapshot(info=info, held=found.priority == 0, reason="" if reason == "None" else reason)

    def ask_requeue(self, job: JobId) -> Done | Refused:
        try:
            self._api.Job(job).requeue()
        except self._api.RPCError as error:
            return _refused(error)
        return Done()

    def ask_update(
        self, job: JobId, *, comment: str = "", excluded: str | None = None, start_now: bool = False
    ) -> Done | Refused:
        changes: dict[str, str] = {}
        if comment:
            changes["admin_comment"] = comment
        if excluded is not None:
            changes["excluded_nodes"] = excluded
        if start_now:
            changes["begin_time"] = "now"
        if not changes:
            return Done()
        try:
            self._api.Job(job).modify(self._api.JobSubmitDescription(**changes))
        except self._api.RPCError as error:
            return _refused(error)
        return Done()

    def _of_array(self, job: JobId) -> bool:
        return self._load(job).array_id is not None

    def _load(self, job: JobId) -> Any:
        try:
            return self._api.Job.load(job)
        except self._api.RPCError as error:
            raise SlurmError(f"job {job}", "cannot be asked for", error) from error


def _refused(error: Exception) -> Refused:
    """Slurm's own words. Raises SlurmAway when nobody answered."""
    words = " ".join(str(error).split()) or "no reason given"
    if any(part in words.lower() for part in _UNREACHABLE):
        raise SlurmAway("slurmctld", "cannot be asked", words) from error
    return Refused(reason=words)


def _nodes(value: object) -> str:
    """A node list, which pyslurm gives as a text or as a list."""
    if not value:
        return ""
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
