"""The Slurm port through `scontrol`, in forms that Slurm 22.05 to 26.05 share.

Relies on `scontrol show job` (one line of fixed fields each, a path to the end of its line), `requeue` and `update`; on
exit statuses and, where they do not tell, on the fixed English messages of slurm_errno. Each call has a deadline.
A task of a job array is always named `array_task`: the bare number of the last task means the whole array, and asking
for that would requeue healthy jobs. Raises SlurmError when there is no scontrol or no such job, SlurmAway when no controller answers;
everything else that Slurm will not do is Refused in its own words.
"""

import os
import re
import subprocess
from dataclasses import dataclass

from resilience.adapters.slurm import admin_comment, requeue_sequence
from resilience.adapters.slurm.requeue_sequence import Snapshot, one_line
from resilience.model.errors import SlurmAway, SlurmError, UnknownJob
from resilience.model.ids import JobId, NodeName
from resilience.parse.job_environment import devices
from resilience.ports import Done, JobInfo, Refused

_NODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")
_FIELD = re.compile(r"(\S+?)=(\S*)")
_FREE = re.compile(
    r"(?:^|\s)(JobName|SubmitLine|WorkDir|StdOut|StdErr|StdIn|Command|Comment|AdminComment|SystemComment|Extra)=(.*)"
)
"""Fields with a text of the user's, which may have blanks. Each is the last of its line. SubmitLine: seen in 26.05."""
_UNREACHABLE = ("contact slurm controller", "timed out", "communication", "connection", "protocol", "authentication")
"""Parts of messages that mean nobody answered, or not in a language that we share."""
_UNKNOWN_JOB = "invalid job id"
_NONE = ("", "(null)", "None")
_HELD = re.compile(r"^\s+Nodes=(\S+) .*\bGRES=(\S*)", re.MULTILINE)
_REQUEUE_EXIT = re.compile(r"^RequeueExit(?:Hold)?\s*=\s*(\S+)", re.MULTILINE)
_NAMES = 4096
"""Names of jobs that are remembered."""
_INDEX = re.compile(r"\(IDX:([0-9,-]+)\)")
_SHARES = re.compile(r"\((\d+/\d+(?:,\d+/\d+)*)\)")
"""What 24.11 and later say of gres that share a GPU: units held of units there are, for each GPU in turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    status: int
    out: str
    err: str

    def refusal(self) -> str:
        """The last line of what was said, without the program's name."""
        said = [line for line in (self.err.strip() or self.out.strip()).splitlines() if line.strip()]
        return re.sub(r"^(?:scontrol|slurm_\w+)(?: error)?: ", "", said[-1].strip()) if said else "no reason given"


class Scontrol:
    """See the module. `program` is a name on PATH or a path, times are seconds."""

    def __init__(self, *, program: str, timeout: float, requeue_timeout: float) -> None:
        self._program = program
        self._timeout = timeout
        self._requeue_timeout = requeue_timeout
        self._names: dict[JobId, str] = {}

    def job(self, job: JobId) -> JobInfo:
        return self.snapshot(job).info

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
        state, why = re.search(r"\bState=(\S+)", shown.out), re.search(r"\bReason=(.*)", shown.out)
        if state and "DRAIN" in state[1]:
            return Done(detail=f"already drained: {why[1].strip() if why else 'no reason'}")
        tagged = reason if reason.startswith("mpsr:") else f"mpsr:{reason}"
        return self._done(self._run("update", f"NodeName={node}", "State=DRAIN", f"Reason={one_line(tagged)}"))

    def gpus(self, job: JobId, node: NodeName) -> tuple[str, ...]:
        """Slurm's numbers of the GPUs that the job holds on a node, from `scontrol show job -d`."""
        shown = self._run("show", "job", "-d", str(job))
        if shown.status != 0:
            raise SlurmError(f"job {job}", "cannot be asked for", shown.refusal())
        for nodes, gres in _HELD.findall(shown.out):
            if node in self._run("show", "hostnames", nodes).out.split():
                return held_gpus(gres)
        return ()

    def over(self, job: JobId, restart: int) -> bool:
        """Whether a job, seen from its run number `restart`, is over for good: no other run of it is to come.

        While a job completes Slurm shows whether it was requeued by its restarts and by an end that is unknown; but not
        that it will be for its exit status (RequeueExit), which is looked up (22.05, seen). A job that Slurm does not
        know any more is over.
        """
        try:
            record = self._record(job)
        except UnknownJob:
            return True
        state = record.get("JobState", "")
        if state != "COMPLETING":
            return state in requeue_sequence.ENDED
        again = not record.get("Restarts", "").isdigit() or int(record["Restarts"]) > restart
        return not again and record.get("EndTime") != "Unknown" and not self._requeued_for(record.get("ExitCode", ""))

    def _requeued_for(self, status: str) -> bool:
        """Whether the site has Slurm requeue jobs that end with this exit status (`75:0`)."""
        number = status.partition(":")[0]
        if number in ("", "0"):
            return False
        shown = self._run("show", "config")
        if shown.status != 0:
            raise SlurmError("slurmctld", "does not show its configuration", shown.refusal())
        return any(number in _numbers(text) for text in _REQUEUE_EXIT.findall(shown.out))

    # ------------------------------------------------------------------ what requeue_sequence is made of

    def snapshot(self, job: JobId) -> Snapshot:
        return _snapshot(job, self._record(job))

    def ask_requeue(self, job: JobId) -> Done | Refused:
        return self._done(self._run("requeue", self._name(job)))

    def ask_update(
        self, job: JobId, *, comment: str = "", excluded: str | None = None, start_now: bool = False
    ) -> Done | Refused:
        changes = [f"AdminComment={comment}"] * bool(comment)
        changes += [f"ExcNodeList={excluded}"] * (excluded is not None)
        changes += ["StartTime=now"] * start_now
        if not changes:
            return Done()
        return self._done(self._run("update", f"JobId={self._name(job)}", *changes))

    def _name(self, job: JobId) -> str:
        """What stands for exactly this job in a request. It never changes: Slurm is asked for it once."""
        if job not in self._names:
            if len(self._names) >= _NAMES:
                self._names.clear()
            self._names[job] = self._look_up_name(job)
        return self._names[job]

    def _look_up_name(self, job: JobId) -> str:
        record = self._record(job)
        array, task = record.get("ArrayJobId", ""), record.get("ArrayTaskId", "")
        if not array:
            return str(job)
        if not task.isdigit():
            raise SlurmError(f"job {job}", "is a whole array, not a task of it", f"{array}_{task}")
        return f"{array}_{task}"

    def _record(self, job: JobId) -> dict[str, str]:
        answer = self._run("show", "job", str(job))
        if answer.status != 0 and _UNKNOWN_JOB not in answer.err.lower():
            raise SlurmError(f"job {job}", "cannot be asked for", answer.refusal())
        for record in re.split(r"\n\s*\n", answer.out):
            fields = parse_record(record)
            if fields.get("JobId") == str(job):
                return fields
        raise UnknownJob(f"job {job}", "is unknown to Slurm", hint="it may have ended more than MinJobAge ago")

    def _done(self, answer: Answer) -> Done | Refused:
        return Done() if answer.status == 0 else Refused(reason=answer.refusal())

    def _run(self, *words: str) -> Answer:
        """One call. Raises SlurmError when nobody answered."""
        keep = {name: os.environ[name] for name in ("PATH", "SLURM_CONF") if name in os.environ}
        try:
            done = subprocess.run(
                [self._program, *words],
                env={**keep, "LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=self._timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise SlurmAway("scontrol", f"gave no answer within {self._timeout:g} s", " ".join(words)[:80]) from error
        except OSError as error:
            hint = "set paths.scontrol in mpsr.yaml"
            raise SlurmError(self._program, "cannot be run", error.strerror or error, hint=hint) from error
        answer = Answer(status=done.returncode, out=done.stdout, err=done.stderr)
        if answer.status != 0 and any(part in answer.err.lower() for part in _UNREACHABLE):
            raise SlurmAway("slurmctld", "cannot be asked", answer.refusal())
        return answer


def _numbers(text: str) -> set[str]:
    """Of a list such as 75,80-82."""
    found: set[str] = set()
    for word in text.split(","):
        span = re.fullmatch(r"(\d{1,3})(?:-(\d{1,3}))?", word.strip())
        if span:
            found |= set(map(str, range(int(span[1]), int(span[2] or span[1]) + 1)))
    return found


def held_gpus(gres: str) -> tuple[str, ...]:
    """The GPUs in a job's gres on one node: `gpu:2(IDX:0-1)`, `shard:2(IDX:1)`, since 24.11 `shard:2(0/8,2/8)`."""
    found = [index for text in _INDEX.findall(gres) for index in devices(text)]
    for shares in _SHARES.findall(gres):
        found += [str(index) for index, share in enumerate(shares.split(",")) if not share.startswith("0/")]
    return tuple(dict.fromkeys(found))


def parse_record(text: str) -> dict[str, str]:
    """The fields of one job in the text of `scontrol show job`. A field's first appearance counts."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        free = _FREE.search(line)
        if free:
            fields.setdefault(free[1], free[2].rstrip())
        for name, value in _FIELD.findall(line[: free.start()] if free else line):
            fields.setdefault(name, value)
    return fields


def _snapshot(job: JobId, record: dict[str, str]) -> Snapshot:
    def text(key: str) -> str:
        value = record.get(key, "")
        return "" if value in _NONE else value

    try:
        info = JobInfo(
            job=job,
            state=record["JobState"],
            batch=record["BatchFlag"] != "0",
            requeue=record["Requeue"] == "1",
            restarts=int(record["Restarts"]),
            stdout=text("StdOut") if text("StdOut").startswith("/") else "",
            workdir=text("WorkDir"),
            excluded=text("ExcNodeList"),
        )
    except (KeyError, ValueError) as error:
        raise SlurmError(f"job {job}", "is shown in a form that we do not know", error) from error
    return Snapshot(info=info, held=record.get("Priority") == "0", reason=text("Reason"))
