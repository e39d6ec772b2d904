"""The Slurm port through `scontrol` and `squeue`, in forms that Slurm 22.05 to 26.05 share.

What a job is and does is read by squeue.py, whose fields no text of a user's can reach; scontrol requeues and updates,
and shows what is the site's own: nodes and configuration. Each call has a deadline.
A task of a job array is always named `array_task`: the bare number of the last task means the whole array, and asking
for that would requeue healthy jobs. A component of a heterogeneous job is requeued by its leader's number, and the others
with it: Slurm knows no other way. Raises SlurmError when there is no such program or no such job, SlurmAway when no
controller answers; everything else that Slurm will not do is Refused in its own words.
"""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime

from resilience.adapters.slurm import admin_comment, requeue_sequence, squeue
from resilience.adapters.slurm.account_text import one_line
from resilience.adapters.slurm.requeue_sequence import Snapshot
from resilience.adapters.slurm.slurm_program import ProgramAnswer, beside, run
from resilience.model.errors import SlurmError, UnknownJob
from resilience.model.ids import JobId, NodeName
from resilience.parse.gpu_request import FIELDS, GpuRequest, gpu_request
from resilience.parse.hostlist import numbers
from resilience.ports import Done, JobInfo, Refused

_NODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")
_NONE = ("", "(null)", "None", "N/A")
_SETTING = re.compile(r"^(\w+)\s*= ?(.*)$", re.MULTILINE)
_NAMES = 4096
"""Jobs whose names are remembered."""
_LIFE = ("State", "BatchFlag", "Requeue", "RestartCnt", "PriorityLong", "Reason")
_FILES = ("ArrayJobID", "ArrayTaskID", "UserName", "Name", "WorkDir", "StdOut")
_KILL_WAIT_LEAST = 5.0
"""Seconds: slurmd waits no less, whatever KillWait is (22.05, seen with KillWait=2)."""
_RUNS = ("RUNNING", "SUSPENDED", "STOPPED", "SIGNALING", "CONFIGURING", "RESIZING")
"""States of a job that nobody is ending."""
_NEVER = ("N/A", "NONE", "Unknown")
"""An end that Slurm does not know."""


class Scontrol:
    """See the module. `program` is a name on PATH or a path, with squeue beside it; times are seconds."""

    def __init__(self, *, program: str, timeout: float, requeue_timeout: float) -> None:
        self._program = program
        self._timeout = timeout
        self._requeue_timeout = requeue_timeout
        self._names: dict[JobId, squeue.Identity] = {}

    def job(self, job: JobId) -> JobInfo:
        shown = squeue.fields(self._squeue, self._who(job).name, job, (*_LIFE, *_FILES))
        batch = _flag(job, shown, "BatchFlag")
        requeue = _flag(job, shown, "Requeue")
        return JobInfo(
            job=job,
            state=shown["State"],
            batch=batch,
            requeue=requeue,
            restarts=_number(job, shown, "RestartCnt"),
            stdout=squeue.output_path(shown, job) if batch else "",
            workdir="" if shown["WorkDir"] in _NONE else shown["WorkDir"],
            no_requeue="" if requeue else self.why_no_requeue(),
        )

    def requeue(self, job: JobId, *, comment: str, exclude: NodeName | None = None) -> Done | Refused:
        return requeue_sequence.requeue(self, job, comment=comment, exclude=exclude, timeout=self._requeue_timeout)

    def comment(self, job: JobId, text: str) -> Done | Refused:
        return admin_comment.comment(self, job, text, patience=self._timeout)

    def drain(self, node: NodeName, reason: str) -> Done | Refused:
        if not _NODE.match(node):
            return Refused(reason=f"not a node's name: {node!r}"[:80])
        shown = self._run("show", "node", node)
        if shown.status != 0:
            return Refused(reason=shown.refusal())
        state = re.search(r"^\s+State=(\S+)", shown.text(), re.MULTILINE)
        why = re.search(r"^\s+Reason=(.*)", shown.text(), re.MULTILINE)
        if state and "DRAIN" in state[1]:
            return Done(detail=f"already drained: {why[1].strip() if why else 'no reason'}")
        tagged = reason if reason.startswith("mpsr:") else f"mpsr:{reason}"
        return _done(self._run("update", f"NodeName={node}", "State=DRAIN", f"Reason={one_line(tagged)}"))

    def kill_wait(self) -> float:
        text = self.config().get("KillWait", "")
        found = re.match(r"([0-9]{1,5}) sec", text)
        if found is None:
            raise SlurmError("slurmctld", "shows no KillWait", text[:40])
        return max(float(found[1]), _KILL_WAIT_LEAST)

    def ended_at(self, job: JobId) -> float | None:
        try:
            shown = squeue.fields(self._squeue, self._who(job).name, job, ("State", "EndTime"))
        except UnknownJob:
            return 0.0
        if shown["State"] in _RUNS:
            return None
        with suppress(ValueError):  # a job that is requeued has no end
            if shown["State"] == "COMPLETING":
                return datetime.fromisoformat(shown["EndTime"]).timestamp()
        return 0.0

    def over(self, job: JobId, restart: int) -> bool:
        """Whether a job, seen from its run number `restart`, is over for good: no other run of it is to come.

        While a job completes Slurm shows whether it was requeued by its restarts and by an end that is unknown; but not
        that it will be for its exit status (RequeueExit), which is looked up (22.05, seen). A job that Slurm does not
        know any more is over.
        """
        try:
            wanted = ("State", "RestartCnt", "EndTime", "exit_code")
            shown = squeue.fields(self._squeue, self._who(job).name, job, wanted)
        except UnknownJob:
            return True
        if shown["State"] != "COMPLETING":
            return shown["State"] in requeue_sequence.ENDED
        again = _number(job, shown, "RestartCnt") > restart
        return not again and shown["EndTime"] not in _NEVER and not self._requeued_for(shown["exit_code"])

    def _requeued_for(self, status: str) -> bool:
        """Whether the site has Slurm requeue jobs that end so: a wait status (22.05), or `75:0`."""
        number = str(int(status) >> 8) if status.isdigit() else status.partition(":")[0]
        if number in ("", "0"):
            return False
        config = self.config()
        return any(number in numbers(config.get(key, "")) for key in ("RequeueExit", "RequeueExitHold"))

    def why_no_requeue(self) -> str:
        """Why a job may have no Requeue flag: its user's word, or the site's."""
        if self.config().get("JobRequeue") == "0":
            return "JobRequeue=0 in slurm.conf, and the job was not submitted with --requeue"
        return "submitted with --no-requeue"

    def config(self) -> dict[str, str]:
        """slurmctld's configuration, by Slurm's names. Raises SlurmError when nobody shows it."""
        shown = self._run("show", "config")
        if shown.status != 0:
            raise SlurmError("slurmctld", "does not show its configuration", shown.refusal())
        return {key: value.strip() for key, value in _SETTING.findall(shown.text())}

    def gpu_request(self, job: JobId) -> GpuRequest:
        """How a job has asked for GPUs. `--ntasks-per-gpu` stands in no field of squeue (22.05 to 26.05): for it scontrol's
        record is looked at, in which a user's texts stand too. A job can lie there about its own tasks, and no more."""
        request = gpu_request(squeue.fields(self._squeue, str(job), job, FIELDS))
        if not request.whole or request.one_each:
            return request
        shown = self._run("show", "job", str(job))
        beside = shown.status == 0 and re.search(r"^\s+NtasksPerTRES=[1-9]", shown.text(), re.MULTILINE)
        return replace(request, one_each=bool(beside))

    def members(self, job: JobId) -> tuple[tuple[JobId, str, str], ...]:
        """Of an array or a heterogeneous job: each own number, with the index in the array or the offset of the component."""
        return squeue.members(self._squeue, job)

    def placed(self, job: JobId) -> tuple[str, str]:
        """The job's state and its list of nodes as Slurm writes it, empty while it has none."""
        shown = squeue.fields(self._squeue, self._who(job).name, job, ("State", "NodeList"))
        return shown["State"], "" if shown["NodeList"] in _NONE else shown["NodeList"]

    # ------------------------------------------------------------------ what requeue_sequence is made of

    def snapshot(self, job: JobId) -> Snapshot:
        who = self._who(job)
        shown = squeue.fields(self._squeue, who.name, job, _LIFE)
        state = shown["State"]
        if state == "PENDING" and who.leader and squeue.any_completes(self._squeue, who.leader):
            state = "COMPLETING"  # all of it starts, so all of it has to be ready for a start
        return Snapshot(
            state=state,
            batch=_flag(job, shown, "BatchFlag"),
            restarts=_number(job, shown, "RestartCnt"),
            held=shown["PriorityLong"] == "0",
            reason="" if shown["Reason"] in _NONE else shown["Reason"],
        )

    def excluded(self, job: JobId) -> str:
        return squeue.excluded(self._squeue, self._who(job).name, job)

    def admin_comment(self, job: JobId) -> str:
        shown = squeue.fields(self._squeue, self._who(job).name, job, ("admin_comment",))["admin_comment"]
        return "" if shown in _NONE else shown

    def ask_requeue(self, job: JobId) -> Done | Refused:
        who = self._who(job)
        return _done(self._run("requeue", str(who.leader) if who.leader else who.name))

    def ask_update(
        self, job: JobId, *, comment: str = "", excluded: str | None = None, start_now: bool = False
    ) -> Done | Refused:
        who = self._who(job)
        changes = [f"AdminComment={comment}"] * bool(comment)
        changes += [f"ExcNodeList={excluded}"] * (excluded is not None)
        changes += ["StartTime=now"] * start_now
        if not changes:
            return Done()
        # a heterogeneous job starts as a whole: its leader's number means all of it
        name = str(who.leader) if start_now and who.leader else who.name
        return _done(self._run("update", f"JobId={name}", *changes))

    def _who(self, job: JobId) -> squeue.Identity:
        """It never changes: Slurm is asked for it once."""
        if job not in self._names:
            if len(self._names) >= _NAMES:
                self._names.clear()
            self._names[job] = squeue.identity(self._squeue, job)
        return self._names[job]

    def _run(self, *words: str) -> ProgramAnswer:
        return run(self._program, *words, timeout=self._timeout)

    def _squeue(self, *words: str) -> ProgramAnswer:
        return run(beside(self._program, "squeue"), *words, timeout=self._timeout)


def _done(answer: ProgramAnswer) -> Done | Refused:
    return Done() if answer.status == 0 else Refused(reason=answer.refusal())


def _number(job: JobId, shown: Mapping[str, str], field: str) -> int:
    text = shown[field]
    if not (text.isascii() and text.isdigit()):
        raise SlurmError(f"job {job}", "is shown in a form that we do not know", f"{field} {text}"[:80])
    return int(text)


def _flag(job: JobId, shown: Mapping[str, str], field: str) -> bool:
    return _number(job, shown, field) != 0
