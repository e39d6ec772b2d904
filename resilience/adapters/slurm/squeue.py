"""What Slurm says of a job, through `squeue -O`: fields asked for by name, each of a width of our own.

`scontrol show job` prints a job's texts (name, directories, comments, whatever its user likes, newlines as well) between
its lines, so a user can write lines of it. Here each record is exactly as many bytes as we asked for, whatever is in them:
a text cannot get out of its place. What does not come out like that is refused, and so is a number that is none.

Slurm 22.05 to 26.05 have these fields. A job that Slurm does not know any more raises UnknownJob; what is not shown as
described here SlurmError.
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from resilience.adapters.slurm.slurm_program import UNKNOWN_JOB, ProgramAnswer
from resilience.model.errors import SlurmError, UnknownJob
from resilience.model.ids import JobId
from resilience.parse.gpu_request import FIELDS

_ALL = ("--noheader", "--local", "--all", "--states=all")
"""Jobs of hidden partitions and those that have ended as well; no other cluster's."""
_NUMBER = 24
"""Bytes of a field that is a number, a time or one word."""
_PATH = 8300
"""Of a path: PATH_MAX, twice, since Slurm may put the working directory before it."""
_TEXT = 16384
"""Of an AdminComment."""
_NAME = 2048
_NODES = 16384
"""Of a list of nodes."""
_FREE = {
    "NodeList": _NODES,
    "Reason": 256,
    "UserName": 300,
    "Name": _NAME,
    "WorkDir": _PATH,
    "StdOut": _PATH,
    "admin_comment": _TEXT,
}
_FREE |= dict.fromkeys(FIELDS, _NAME)
"""Fields that are texts. A reason is Slurm's own and only shown: it may be cut."""
_KEPT = ("admin_comment", "ExcNodeList")
"""Texts that are written back with something added."""
_NONE = ("", "(null)", "None", "N/A")

Ask = Callable[..., ProgramAnswer]
"""squeue, with its arguments."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What a job is called in requests. None of it ever changes."""

    job: JobId
    name: str
    """What stands for exactly this job: its number, `array_task`, or `leader+component`."""
    leader: JobId | None
    """Of a heterogeneous job its first component, whose number stands for all of it."""


def identity(ask: Ask, job: JobId) -> Identity:
    """Who a job is. Raises SlurmError for a number that means a whole array."""
    found = fields(ask, str(job), job, ("ArrayJobID", "ArrayTaskID", "HetJobID", "HetJobOffset"))
    array, task = found["ArrayJobID"], found["ArrayTaskID"]
    if task not in _NONE:
        if not (_digits(task) and _digits(array)):
            raise SlurmError(f"job {job}", "is a whole array, not a task of it", f"{array}_{task}"[:80])
        return Identity(job=job, name=f"{array}_{task}", leader=None)
    leader, component = found["HetJobID"], found["HetJobOffset"]
    if leader in (*_NONE, "0"):
        return Identity(job=job, name=str(job), leader=None)
    if not (_digits(leader) and _digits(component)):
        raise _strange(job, f"component {leader}+{component}"[:80])
    return Identity(job=job, name=f"{leader}+{component}", leader=JobId(int(leader)))


def fields(ask: Ask, name: str, job: JobId, wanted: tuple[str, ...]) -> Mapping[str, str]:
    """The fields of the record of `job`, of what squeue shows for `name`. Texts come without blanks at their end."""
    widths = {"JobID": _NUMBER, **{field: _FREE.get(field, _NUMBER) for field in wanted}}
    form = ",".join(f"{field}:{width}" for field, width in widths.items())
    return _record(ask(*_ALL, f"--jobs={name}", f"--Format={form}"), job, widths)


def any_completes(ask: Ask, leader: JobId) -> bool:
    """Whether a component of this heterogeneous job is still being ended."""
    widths = {"JobID": _NUMBER, "HetJobID": _NUMBER, "State": _NUMBER}
    form = ",".join(f"{field}:{width}" for field, width in widths.items())
    rows = _rows(ask(*_ALL, f"--jobs={leader}", f"--Format={form}"), leader, widths)
    mine = [row for row in rows if row["HetJobID"].rstrip(b" ") == str(leader).encode()]
    return any(row["State"].rstrip(b" ") == b"COMPLETING" for row in mine)


def members(ask: Ask, job: JobId) -> tuple[tuple[JobId, str, str], ...]:
    """Of an array or a heterogeneous job: each own number, with the index in the array or the offset of the component."""
    widths = dict.fromkeys(("JobID", "ArrayJobID", "ArrayTaskID", "HetJobID", "HetJobOffset"), _NUMBER)
    form = ",".join(f"{field}:{width}" for field, width in widths.items())
    found: list[tuple[JobId, str, str]] = []
    for row in _rows(ask(*_ALL, f"--jobs={job}", f"--Format={form}"), job, widths):
        shown = {field: value.decode("ascii", "replace").rstrip(" ") for field, value in row.items()}
        if str(job) in (shown["ArrayJobID"], shown["HetJobID"]):
            task, component = (
                shown[field] if _digits(shown[field]) else "" for field in ("ArrayTaskID", "HetJobOffset")
            )
            found.append((JobId(int(shown["JobID"])), task, component if shown["HetJobID"] == str(job) else ""))
    if not found:
        raise _unknown(job)
    return tuple(found)


def excluded(ask: Ask, name: str, job: JobId) -> str:
    """ExcNodeList, which -O does not have. It is as its user wrote it."""
    widths = {"JobID": _NUMBER, "ExcNodeList": _PATH}
    form = f"%{_NUMBER}A%{_PATH}x"
    text = _record(ask(*_ALL, f"--jobs={name}", f"--format={form}"), job, widths)["ExcNodeList"]
    return "" if text in _NONE else text


def _record(answer: ProgramAnswer, job: JobId, widths: Mapping[str, int]) -> Mapping[str, str]:
    mine = [row for row in _rows(answer, job, widths) if int(row["JobID"]) == job]
    if not mine:
        raise _unknown(job)
    if len(mine) > 1:
        raise SlurmError(f"job {job}", "is shown more than once", f"{len(mine)} times")
    return {field: _text(job, field, value) for field, value in mine[0].items()}


def _rows(answer: ProgramAnswer, job: JobId, widths: Mapping[str, int]) -> list[dict[str, bytes]]:
    """The records of an answer, each exactly as long as its fields are together."""
    if answer.status != 0:
        if UNKNOWN_JOB in answer.err.lower():
            raise _unknown(job)
        raise SlurmError(f"job {job}", "cannot be asked for", answer.refusal())
    length = sum(widths.values()) + 1
    if len(answer.out) % length:
        raise _strange(job, f"{len(answer.out)} bytes of records of {length}")
    found = [_cut(answer.out[start : start + length], widths) for start in range(0, len(answer.out), length)]
    ends = answer.out[length - 1 :: length]
    for row in found:
        if ends.strip(b"\n") or not _digits(row["JobID"].decode("ascii", "replace").rstrip(" ")):
            raise _strange(job, row["JobID"])
    return found


def _cut(row: bytes, widths: Mapping[str, int]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    at = 0
    for field, width in widths.items():
        found[field] = row[at : at + width]
        at += width
    return found


def _text(job: JobId, field: str, value: bytes) -> str:
    """A field that fills its width may have been cut: then it is not known, as if the job had none."""
    if not value.endswith(b" ") and field != "Reason":
        if field in _KEPT:
            raise SlurmError(f"job {job}", f"has a longer {field} than can be kept", f"{len(value)} bytes and more")
        return ""
    return value.rstrip(b" ").decode(errors="replace")


def output_path(shown: Mapping[str, str], job: JobId) -> str:
    """The batch job's output file, from StdOut, WorkDir, UserName, Name, ArrayJobID and ArrayTaskID.

    squeue shows the name as it was given (22.05); sbatch(1), "filename pattern", says what stands for what. Empty for a
    job without one, and where a pattern is left that only slurmstepd can fill in.
    """
    pattern = shown["StdOut"]
    if pattern in _NONE:
        return ""
    task = shown["ArrayTaskID"]
    stands = {
        "A": shown["ArrayJobID"] if _digits(shown["ArrayJobID"]) and int(shown["ArrayJobID"]) else str(job),
        "a": task if _digits(task) else "4294967294",
        "j": str(job),
        "u": shown["UserName"],
        "x": shown["Name"],
        "%": "%",
    }

    def fill(found: re.Match[str]) -> str:
        value = stands.get(found[2])
        if value is None:
            return found[0]
        return value.zfill(min(int(found[1] or 0), 10)) if found[2] in "Aaj" else value

    return os.path.join(shown["WorkDir"], re.sub(r"%(\d{0,2})([A-Za-z%])", fill, pattern))


def _digits(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 20


def _unknown(job: JobId) -> UnknownJob:
    return UnknownJob(f"job {job}", "is unknown to Slurm", hint="it may have ended more than MinJobAge ago")


def _strange(job: JobId, what: object) -> SlurmError:
    return SlurmError(f"job {job}", "is shown in a form that we do not know", what)
