"""What a job asked for, after parsing: the typed form of the `--mps…` options."""

from dataclasses import dataclass
from enum import StrEnum


class Domain(StrEnum):
    JOB = "job"
    USER = "user"
    SHARED = "shared"


class Rung(StrEnum):
    STANDBY = "standby"
    RESTORE = "restore"
    RELAUNCH = "relaunch"
    REQUEUE = "requeue"


class OnCulprit(StrEnum):
    FAIL = "fail"
    QUARANTINE = "quarantine"
    REQUEUE = "requeue"


class Ranks(StrEnum):
    AUTO = "auto"
    INDEPENDENT = "independent"
    TOGETHER = "together"


class Servers(StrEnum):
    AUTO = "auto"
    GPU = "gpu"
    """A pair of servers for each GPU."""
    JOB = "job"
    """One pair over all GPUs of the job on a node: a task can use several of them."""


class Unattached(StrEnum):
    WARN = "warn"
    FAIL = "fail"


class Endings(StrEnum):
    PLAIN = "plain"
    SAFE = "safe"


class Require(StrEnum):
    MPS = "mps"
    STANDBY = "standby"
    ISOLATION = "isolation"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOptions:
    """Sizes in MiB; None where the user set no limit. Defaults are those of contract.toml."""

    mps: bool = False
    domain: Domain = Domain.USER
    threads: int | None = None
    memory: int | None = None
    state: int | None = None
    standby: bool = True
    recover: tuple[Rung, ...] = tuple(Rung)
    retries: int = 3
    on_culprit: OnCulprit = OnCulprit.FAIL
    ranks: Ranks = Ranks.AUTO
    servers: Servers = Servers.AUTO
    unattached: Unattached = Unattached.WARN
    endings: Endings = Endings.PLAIN
    require: Require = Require.MPS
