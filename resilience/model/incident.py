"""A fault's life: who was hit, who did it, what each task was told and how it ended. Frozen values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from resilience.model.fault import Fault
from resilience.model.ids import GpuUuid, IncidentId, JobId, ServerId, TaskRef
from resilience.model.observation import Client, Source
from resilience.model.options import Rung
from resilience.model.radius import Partition, Radius


class Part(StrEnum):
    """What a task was in an incident (contract: `[words] parts`)."""

    CULPRIT = "culprit"
    BYSTANDER = "bystander"
    SUSPECT = "suspect"
    UNKNOWN = "unknown"


class Action(StrEnum):
    """What a supervisor is told (contract: `[words] actions`)."""

    NONE = "none"
    PROMOTE = "promote"
    RESTORE = "restore"
    RELAUNCH = "relaunch"
    QUARANTINE = "quarantine"
    REQUEUE = "requeue"
    FAIL = "fail"


class Confidence(StrEnum):
    CERTAIN = "certain"
    STRONG = "strong"
    WEAK = "weak"
    NONE = "none"

    @property
    def names(self) -> bool:
        """Enough to call someone the culprit."""
        return self in (Confidence.CERTAIN, Confidence.STRONG)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One reason to think that `client` did it."""

    client: Client
    confidence: Confidence
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """Who did it. `culprit` is set when the confidence names someone; `suspects` when it must be one of several."""

    confidence: Confidence
    culprit: Client | None = None
    suspects: frozenset[TaskRef] = frozenset()
    alone: TaskRef | None = None
    """Weak evidence points at this suspect: it is tried apart from the others."""
    blameless: bool = False
    """Hardware or a daemon failed: nobody did it."""
    why: tuple[str, ...] = ()


class Outcome(StrEnum):
    WAITING = "waiting"
    """For a server that can take the task."""
    TOLD = "told"
    RECOVERED = "recovered"
    FAILED = "failed"
    REQUEUED = "requeued"
    PASSED = "passed"
    """Nothing was done: verdict `none`."""
    GONE = "gone"
    """The task ended, or another incident took it over."""

    @property
    def settled(self) -> bool:
        return self not in (Outcome.WAITING, Outcome.TOLD)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One task in one incident."""

    part: Part
    outcome: Outcome
    tried: tuple[Rung, ...] = ()
    action: Action | None = None
    target: ServerId | None = None
    told_at: float = 0.0
    due: float = 0.0
    """When what it was told must have worked; 0 while its process has not noticed the fault."""
    looked: float = 0.0
    """When it was last seen whether its processes are stopped."""
    stood: bool = False
    """They were."""
    steps: bool = False
    """Its recovery ends with a first step, not with a new process."""
    counted: bool = False
    """This incident has cost the task one of its retries."""
    reasons: tuple[str, ...] = ()
    ms: float = 0.0
    """From the first sighting to the first step (or the new start) after it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    id: IncidentId
    server: ServerId
    gpus: tuple[GpuUuid, ...]
    """Of the server; one, as soon as it is known which it was."""
    opened_wall: float
    opened: float
    deadline: float
    """When the wait for the culprit's name ends."""
    fault: Fault
    sources: tuple[Source, ...]
    address: int | None = None
    """Where the GPU was when it faulted."""
    slot: int = 0
    """The SM partition that the fault was seen in; 0: not known, or a server without partitions."""
    radius: Radius | None = None
    """How far it reached, when that was last worked out."""
    evidence: tuple[Evidence, ...] = ()
    hit: bool = False
    """The server itself is hit: every client is."""
    missed: bool = False
    """It came and went while no agent was there: the tasks that fail now are those that it hit."""
    clients: frozenset[TaskRef] = frozenset()
    """Tasks whose active process used the server."""
    hits: frozenset[TaskRef] = frozenset()
    """Tasks whose own process reported a fault or ended with a failure."""
    outside: Mapping[int, JobId] = field(default_factory=dict)
    """Clients of the server without a supervisor, by process id, as the fault began: whose they are."""
    told: frozenset[JobId] = frozenset()
    """Jobs that have heard of theirs."""
    attribution: Attribution | None = None
    parts: Mapping[TaskRef, Part] = field(default_factory=dict)
    apart: Mapping[TaskRef, ServerId] = field(default_factory=dict)
    """Suspects that go on on a server of their own: which one."""
    cases: Mapping[TaskRef, Case] = field(default_factory=dict)
    accounted: frozenset[JobId] = frozenset()
    """Jobs that have got their one-line account."""

    @property
    def uuid(self) -> str:
        """Its GPU; of a server over several, all that it may be, with commas."""
        return ",".join(self.gpus)

    @property
    def decided(self) -> bool:
        return self.attribution is not None

    @property
    def isolated(self) -> bool:
        """Kept from all neighbours, by the guard module or by an SM partition."""
        proven = isinstance(self.radius, Partition) and self.radius.proven
        return not self.hit and (proven or Source.GUARD in self.sources)
