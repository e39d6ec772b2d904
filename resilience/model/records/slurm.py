"""Records of what Slurm is asked and answers, and of the breaker."""

from dataclasses import dataclass
from typing import ClassVar

from resilience.model.ids import JobId
from resilience.model.observation import Client
from resilience.model.records.base import Record, said
from resilience.model.records.words import because


@dataclass(frozen=True, slots=True, kw_only=True)
class SlurmIntent(Record):
    EVENT: ClassVar[str] = "slurm.intent"
    ask: str = said("requeue, drain or comment", "")
    job: JobId | None = said("number of the job; absent for a drain")
    uid: int | None = said("its user")
    node: str = said("of a drain: Slurm's name of the node", "")
    reason: str = said("why, for people", "")
    gpu: str = said("UUID of the GPU that the fault was on", "", since="0.2.0")
    fault: str = said("what the fault was, with the driver's numbers", "", since="0.2.0")
    culprit: Client | None = said("who did it", since="0.2.0")
    suspects: int = said("of how many tasks one did it, when nobody is named", 0, since="0.2.0")
    blameless: bool = said("true: nobody did it", False, since="0.2.0")

    def sentence(self) -> str:
        about = f" for job {self.job}" if self.job is not None else ""
        return f"Slurm is asked to {self.ask or 'do something'}{about}{because(self.reason)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SlurmOutcome(Record):
    EVENT: ClassVar[str] = "slurm.outcome"
    ask: str = said("requeue, drain or comment", "")
    job: JobId | None = said("number of the job; absent for a drain")
    ok: bool | None = said("whether Slurm did it")
    detail: str = said("Slurm's answer, for people", "")
    again: bool | None = said("true: nobody answered, and Slurm is asked again", since="0.2.0")
    outcome: str = said("interrupted: an agent ended before the answer came", "")

    def sentence(self) -> str:
        verb = {True: "did it", False: "refused", None: "answered"}[self.ok]
        return f"Slurm {verb} ({self.ask or 'the request'}){because(self.detail)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerOpen(Record):
    EVENT: ClassVar[str] = "breaker.open"
    what: str = said("the request that is not made: drain or requeue", "")
    limit: int | None = said("most requests of the kind in an hour")
    job: JobId | None = said("number of the job; absent for a drain")
    reason: str = said("why, for people", "")

    def sentence(self) -> str:
        about = f" for job {self.job}" if self.job is not None else ""
        return f"Slurm is not asked to {self.what or 'do something'}{about}{because(self.reason)}"
