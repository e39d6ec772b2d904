"""Records of a fault's life: sightings, the incident, who did it, what each task was told and how it ended."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from resilience.model.ids import JobId, ServerId, TaskRef
from resilience.model.observation import Client
from resilience.model.records.base import Record, said, server_id, task_id
from resilience.model.records.words import ACTIONS, PARTS, after, because, counted, names, whom


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting(Record):
    EVENT: ClassVar[str] = "observation"
    source: str = said("kmsg, nvml, server_log, control_log, client, exit, control, process, guard, leases", "")
    what: str = said("what was seen, such as culprit, handling, xid, cuda", "")
    text: str = said("as the source had it, cut to a line", "")
    at: float | None = said("when it was seen, seconds since the epoch")
    at_mono: float | None = said("the same by the monotonic clock, seconds")
    boot: str = said("the kernel's boot id", "")
    gpu: int | None = said("minor number of the GPU")
    server: ServerId | None = said("the server that it is about")
    pid: int | None = said("the process that it names, as the source counts processes")
    who: Client | None = said("who that is")
    task: TaskRef | None = said("the task whose supervisor said it")
    fault: str = said("class of fault that it means by itself", "")
    guard_incident: int | None = said("the guard module's own number")

    def sentence(self) -> str:
        who = f" by {self.who}" if self.who else ""
        where = f" on server {server_id(self.server)}" if self.server else ""
        return f"seen{where}{who} ({self.source or '?'}): {self.text}".rstrip(": ")


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentOpened(Record):
    EVENT: ClassVar[str] = "incident.opened"
    server: ServerId | None = said("the server that was hit")
    gpu: str = said("UUID of the GPU; of a server over several, all that it may be", "")
    partition: int | None = said("the SM partition that the fault was seen in")
    clients: tuple[TaskRef, ...] = said("tasks whose active process used the server", ())

    def sentence(self) -> str:
        hit = f"; its tasks are {names(map(task_id, self.clients))}" if self.clients else ""
        where = server_id(self.server) if self.server else "?"
        return f"incident {self.incident}: a GPU fault on server {where}{hit}"


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentClassified(Record):
    EVENT: ClassVar[str] = "incident.classified"
    fault: str = said("class of the fault", "")
    words: str = said("what it was, with the driver's numbers", "")
    gpu: str = said("UUID of the GPU; of a server over several, all that it may be", "", since="0.2.0")

    def sentence(self) -> str:
        return f"it is a fault of class {self.fault or '?'}" + (f" ({self.words})" if self.words else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentAttributed(Record):
    EVENT: ClassVar[str] = "incident.attributed"
    fault: str = said("class of the fault", "")
    culprit: Client | None = said("who did it; absent when nobody is named")
    confidence: str = said("certain, strong, weak or none", "")
    suspects: tuple[TaskRef, ...] = said("tasks of which one did it", ())
    why: tuple[str, ...] = said("the evidence that decided", ())
    isolated: bool | None = said("true: the fault was kept from all neighbours")
    ms: float | None = said("milliseconds since the first sighting")
    blameless: bool | None = said("true: hardware or a daemon failed, nobody did it", since="0.2.0")
    gpu: str = said("UUID of the GPU; of a server over several, all that it may be", "", since="0.2.0")
    words: str = said("what the fault was, with the driver's numbers", "", since="0.2.0")
    parts: Mapping[TaskRef, str] = said("each task's part", {}, since="0.2.0")
    isolation: str = said("what keeps faults from neighbours in this domain", "", since="0.2.0")

    def sentence(self) -> str:
        why = because(self.why)
        if self.culprit is not None:
            return f"the culprit is {self.culprit}, confidence {self.confidence or '?'}{why}"
        if self.suspects:
            return f"nobody is named; the suspects are {names(map(task_id, self.suspects))}{why}"
        return f"nobody is named{why}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict(Record):
    EVENT: ClassVar[str] = "verdict"
    task: TaskRef | None = said("the task")
    action: str = said("what it is told to do: none, promote, restore, relaunch, quarantine, requeue, fail", "")
    part: str = said("culprit, bystander, suspect or unknown", "")
    server: ServerId | None = said("the server that it goes to")
    reason: str = said("why, for people", "")
    ms: float | None = said("milliseconds since the first sighting")
    dry_run: bool | None = said("true: only written down (recovery.mode: observe)")
    would: str = said("of a dry run without a task: what else would have been done", "")
    job: JobId | None = said("of a dry run: the job that it is about")

    def sentence(self) -> str:
        action = self.action or self.would or "?"
        does = ACTIONS.get(action, "see its fields")
        part = f", {PARTS[self.part]}," if self.part in PARTS else ""
        return f"verdict for {whom(self.task, self.job)}{part} {action}: {does}{because(self.reason)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered(Record):
    EVENT: ClassVar[str] = "recovered"
    task: TaskRef | None = said("the task")
    action: str = said("what it had been told", "")
    seq: int | None = said("the commit that it goes on from; -1: none")
    ms: float | None = said("milliseconds from the first sighting to its first step, or its new start")
    done_mono: float | None = said("when that was, by the monotonic clock, seconds")
    supervisor_ms: float | None = said("milliseconds from the verdict at the supervisor to the program's word")

    def sentence(self) -> str:
        seq = f" from commit {self.seq}" if self.seq is not None else ""
        return f"{whom(self.task)} goes on{seq}{after(self.ms)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryFailed(Record):
    EVENT: ClassVar[str] = "recovery.failed"
    task: TaskRef | None = said("the task")
    rung: str = said("standby, restore, relaunch or requeue", "")
    reason: str = said("why, for people", "")

    def sentence(self) -> str:
        return f"{whom(self.task)}: {self.rung or 'a rung'} did not work{because(self.reason)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobAccounted(Record):
    """What a fault came to for one job: the recovery log's last line of it, and the job's AdminComment."""

    EVENT: ClassVar[str] = "job.accounted"
    SINCE: ClassVar[str] = "0.2.0"
    job: JobId | None = said("number of the job", since="0.2.0")
    gpu: str = said("UUID of the GPU; of a server over several, all that it may be", "", since="0.2.0")
    fault: str = said("what the fault was, with the driver's numbers", "", since="0.2.0")
    faults: int = said("how many faults the job has met", 1, since="0.2.0")
    own: bool = said("true: a task of the job caused it", False, since="0.2.0")
    culprit: Client | None = said("who did it", since="0.2.0")
    suspects: int = said("of how many tasks one did it, when nobody is named", 0, since="0.2.0")
    blameless: bool = said("true: nobody did it", False, since="0.2.0")
    isolated: bool = said("true: the fault was kept from all neighbours", False, since="0.2.0")
    outcome: str = said("the worst of its tasks' outcomes", "", since="0.2.0")
    action: str = said("what the slowest recovered task had been told", "", since="0.2.0")
    tasks: int = said("how many tasks recovered", 0, since="0.2.0")
    ms: float | None = said("milliseconds of the slowest recovery", since="0.2.0")
    reason: str = said("why it failed", "", since="0.2.0")
    outside: tuple[int, ...] = said(
        "processes of the job without a supervisor that are not recovered", (), since="0.2.0"
    )

    def sentence(self) -> str:
        return f"for job {self.job} the fault came to: {self.outcome or 'nothing done'}{after(self.ms)}{because(self.reason)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentClosed(Record):
    EVENT: ClassVar[str] = "incident.closed"
    server: ServerId | None = said("the server that was hit")
    gpu: str = said("UUID of the GPU; of a server over several, all that it may be", "")
    fault: str = said("what the fault was, with the driver's numbers", "")
    fault_class: str = said("class of the fault", "")
    xid: int | None = said("the driver's number; absent when none was seen")
    culprit: str = said("who did it, for people", "")
    confidence: str = said("certain, strong, weak or none; absent when it was never decided", "")
    blameless: bool | None = said("true: hardware or a daemon failed, nobody did it")
    isolated: bool | None = said("true: the fault was kept from all neighbours")
    parts: Mapping[TaskRef, str] = said("each task's part", {})
    outcomes: Mapping[TaskRef, str] = said("each task's outcome", {})
    outcome: str = said("instead of outcomes: why it is over", "")
    same_as: str = said("it was the same fault as this incident's", "")
    ok: bool | None = said("false: an agent ended before the incident did")
    detail: str = said("words for people", "")
    ms: float | None = said("milliseconds since the first sighting")

    def sentence(self) -> str:
        how = counted(self.outcomes) or self.outcome
        return f"incident {self.incident} is over{because(how)}"
