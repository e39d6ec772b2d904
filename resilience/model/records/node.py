"""Records of the node: its agent, fault domains, servers, and jobs as prolog and epilog see them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from resilience.model.ids import JobId, ServerId
from resilience.model.records.base import Record, said, server_id
from resilience.model.records.words import after, because, names


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentStarted(Record):
    EVENT: ClassVar[str] = "agent.started"
    node: str = said("Slurm's name of the node", "")
    mode: str = said("recovery.mode: act or observe", "")
    boot: str = said("the kernel's boot id", "")

    def sentence(self) -> str:
        return f"the node agent runs, mode {self.mode}" if self.mode else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentStopped(Record):
    EVENT: ClassVar[str] = "agent.stopped"
    node: str = said("Slurm's name of the node", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Domain(Record):
    domain: str = said("key of the fault domain: j<job>, u<uid> or shared", "")
    gpu: int | None = said("minor number of the GPU")
    color: str = said("color of the server", "")

    @property
    def where(self) -> str:
        return f"{self.domain or '?'}/g{'?' if self.gpu is None else self.gpu}/{self.color or '?'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainOpened(_Domain):
    EVENT: ClassVar[str] = "domain.opened"

    def sentence(self) -> str:
        return f"server {self.where} answers"


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainClosed(_Domain):
    EVENT: ClassVar[str] = "domain.closed"
    residue: tuple[str, ...] = said("what could not be removed", ())
    ended: str = said("what was ended that is not NVIDIA's (enclosures.md)", "", since="0.2.0")

    def sentence(self) -> str:
        ended = f"; ended: {self.ended}" if self.ended else ""
        left = f"; left behind: {names(self.residue)}" if self.residue else ""
        return f"server {self.where} is closed{ended}{left}"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOpened(Record):
    EVENT: ClassVar[str] = "job.opened"
    job: JobId | None = said("number of the job")
    uid: int | None = said("its user")
    domain: str = said("key of its fault domain", "")
    gpus: tuple[int, ...] = said("minor numbers of its GPUs, in the job's order", ())
    colors: tuple[str, ...] = said("colors of the servers that it may use", ())
    isolation: str = said("what keeps faults from neighbours: none, domains, sm, guard", "")
    slots: tuple[int, ...] = said("its SM partition on each GPU", ())
    options: str = said("what it asked for, with the site's defaults: key=value pairs joined by ;", "", since="0.2.0")
    no_partition: str = said("why it has no SM partition", "")
    missing: tuple[str, ...] = said("spare servers that could not be started, and why", ())
    late: bool | None = said("true: the plugin had the prolog run, which slurmd had skipped")
    ms: float | None = said("milliseconds that the prolog took")

    def sentence(self) -> str:
        gpus = f", GPU {names(self.gpus)}" if self.gpus else ""
        slots = f", SM partition {names(self.slots)}" if self.slots else ""
        kept = f"; isolation: {self.isolation}" if self.isolation else ""
        less = f", {self.no_partition}" if self.no_partition else ""
        return f"job {self.job} holds domain {self.domain or '?'}{gpus}{slots}{kept}{less}"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRefused(Record):
    EVENT: ClassVar[str] = "job.refused"
    job: JobId | None = said("number of the job")
    uid: int | None = said("its user")
    domain: str = said("key of the fault domain that it would have had", "")
    reason: str = said("why, as the job's steps tell it", "")

    def sentence(self) -> str:
        return f"job {self.job} cannot have MPS{because(self.reason)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobClosed(Record):
    EVENT: ClassVar[str] = "job.closed"
    job: JobId | None = said("number of the job")
    uid: int | None = said("its user")
    domain: str = said("key of its fault domain", "")
    residue: tuple[str, ...] = said("what was left behind", ())
    later: tuple[str, ...] = said("files of users that are removed later", (), since="0.2.0")
    unproven: tuple[str, ...] = said("what could not be looked at", ())
    spill: str = said("what became of its spilled state", "")
    swept: Mapping[str, str] = said("other jobs' spilled state that was due: job to outcome", {})
    ms: float | None = said("milliseconds that the epilog took")

    def sentence(self) -> str:
        left = f"left behind: {names(self.residue)}" if self.residue else "nothing was left behind"
        return f"job {self.job} is closed; {left}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerUnavailable(Record):
    EVENT: ClassVar[str] = "server.unavailable"
    server: ServerId | None = said("<domain>/g<gpu>/<color>, such as u1001/g0/a")
    state: str = said("faulted, closed (its control daemon ended) or down", "")

    def sentence(self) -> str:
        return f"server {server_id(self.server)} takes no new clients: {self.state}" if self.server else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerRebuilt(Record):
    EVENT: ClassVar[str] = "server.rebuilt"
    server: ServerId | None = said("the server")
    ms: float | None = said("milliseconds since it was hit")

    def sentence(self) -> str:
        return f"server {server_id(self.server)} takes clients again{after(self.ms)}" if self.server else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerReplaced(Record):
    EVENT: ClassVar[str] = "server.replaced"
    server: ServerId | None = said("the server")
    ok: bool | None = said("false: it could not be started")
    reason: str = said("why not", "")
    ms: float | None = said("milliseconds since it was hit")

    def sentence(self) -> str:
        if self.server is None:
            return ""
        if self.ok is False:
            return f"server {server_id(self.server)} was ended and could not be started anew{because(self.reason)}"
        return f"server {server_id(self.server)} was ended and started anew{after(self.ms)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class UserThrottled(Record):
    """Once a minute for each user."""

    EVENT: ClassVar[str] = "user.throttled"
    SINCE: ClassVar[str] = "0.2.0"
    uid: int | None = said("the user", since="0.2.0")
    logs_ms: float | None = said("milliseconds of the agent's CPU time for logs of their MPS daemons", since="0.2.0")
    messages_ms: float | None = said("the same for connections and messages of supervisors", since="0.2.0")
    daemons_ms: float | None = said("for ends of their MPS daemons", since="0.2.0")
    answers_ms: float | None = said("for answers of their MPS daemons", since="0.2.0")
    seconds: float | None = said("within how many seconds", since="0.2.0")

    def sentence(self) -> str:
        parts = {
            "logs": self.logs_ms, "messages": self.messages_ms, "daemons": self.daemons_ms, "answers": self.answers_ms,
        }  # fmt: skip
        spent = ", ".join(f"{name} {cost:g} ms" for name, cost in parts.items() if cost)
        who = f"uid {'?' if self.uid is None else self.uid}"
        return f"{who} is heard less often: their share of the agent's time is used up{because(spent)}"
