"""The admin's choices on a node, as one frozen tree. `resilience.config` fills it from mpsr.yaml.

Every field is a setting: its name is the key in the file, its default holds when the key is absent, its
`help` is what the reference page and `mpsr check` print. Times are seconds unless the name says otherwise.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Path(StrEnum):
    """What a text that names a file may be."""

    ABSOLUTE = "absolute"
    OPTIONAL = "optional"
    """Absolute, or empty."""
    PROGRAM = "program"
    """Absolute, or a name on PATH."""
    DEVICES = "devices"
    """Device files as gres.conf lists them in File=, or empty."""


def setting(
    default: Any,
    help: str,
    *,
    choices: tuple[str, ...] = (),
    within: tuple[float, float] | None = None,
    path: Path | None = None,
) -> Any:
    """A dataclass field that carries all that is known of a setting: its default, what it is for, what it may be.

    `within`: lowest and highest value of a number, in the number's own unit; `path`: what a text that names a file may be.
    """
    metadata = {"help": help, "choices": choices, "within": within, "path": path}
    if isinstance(default, list | tuple | dict):
        return field(default_factory=lambda: default, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class Paths:
    run: str = setting("/run/mpsr", "runtime directory; short, on a local file system", path=Path.ABSOLUTE)
    log: str = setting("/var/log/mpsr", "log directory", path=Path.ABSOLUTE)
    state: str = setting(
        "/var/lib/mpsr",
        "directory of what outlives a boot: which jobs have spilled state, which programs caused faults",
        path=Path.ABSOLUTE,
    )
    kmsg: str = setting("/dev/kmsg", "where the driver's Xid lines are read", path=Path.ABSOLUTE)
    python: str = setting("/usr/bin/python3", "interpreter for keeper and spiller", path=Path.ABSOLUTE)
    launcher: str = setting("/usr/libexec/mpsr/mpsr-launch", "the supervisor of a task", path=Path.ABSOLUTE)
    spill: str = setting(
        "",
        "directory for spilled state on a shared file system; empty: .mpsr-<job> in the task's directory",
        path=Path.OPTIONAL,
    )
    cgroup: str = setting(
        "/mpsr",
        "cgroup for what root starts as users, from the root of the hierarchy; empty: none, see enclosures.md",
        path=Path.OPTIONAL,
    )
    metrics: str = setting(
        "",
        "directory of node_exporter's textfile collector, for the agent's mpsr-<node>.prom; root's; empty: no metrics",
        path=Path.OPTIONAL,
    )
    job_mapping: str = setting(
        "",
        "directory of dcgm-exporter's job mapping files (--hpc-job-mapping-dir); root's; empty: none are written",
        path=Path.OPTIONAL,
    )
    devices: str = setting(
        "",
        "the GPUs' device files as gres.conf lists them in File=, {node} for the node's name; empty: the driver's order",
        path=Path.DEVICES,
    )
    mps_control: str = setting(
        "nvidia-cuda-mps-control", "the MPS control program, a name on PATH or a path", path=Path.PROGRAM
    )
    scontrol: str = setting(
        "scontrol", "Slurm's scontrol, a name on PATH or a path; squeue lies beside it", path=Path.PROGRAM
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionRules:
    """What holds for jobs of one of Slurm's partitions in place of the site's: each default, all locks, all that is
    forbidden. None: the site's."""

    defaults: dict[str, str] = setting({}, "option key -> value that holds when the user says nothing")
    locked: tuple[str, ...] | None = setting(None, "option keys that users cannot change")
    forbidden: tuple[str, ...] | None = setting(None, "key=value pairs that are refused")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What users may ask for, and what holds when they do not."""

    defaults: dict[str, str] = setting({}, "option key -> value that holds when the user says nothing")
    locked: tuple[str, ...] = setting((), "option keys that users cannot change")
    forbidden: tuple[str, ...] = setting(("domain=shared",), "key=value pairs that are refused")
    partitions: dict[str, PartitionRules] = setting(
        {}, "Slurm partition -> {defaults, locked, forbidden} for its jobs; each stands in place of the site's"
    )
    apptainer: str = setting(
        "on",
        "add the runtime directory to APPTAINER_BIND and SINGULARITY_BIND of jobs that asked",
        choices=("on", "off"),
    )
    batch_hint: str = setting(
        "on",
        "tell a batch script at its start when it starts programs without srun or mpsr run",
        choices=("on", "off"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class MpsSettings:
    start_timeout: float = setting(10.0, "time limit for a server to become ACTIVE", within=(0.1, 600))
    quit_timeout: float = setting(
        10.0, "time limit for a control daemon to quit; a signal ends it after that", within=(0.1, 600)
    )
    rebuild_timeout: float = setting(
        10.0, "time limit for a faulted server to recover; the agent replaces it after that", within=(0.1, 600)
    )
    compute_mode: str = setting(
        "default",
        "compute mode that the site has set; never changed by mpsr",
        choices=("default", "exclusive"),
    )
    sm_partitions: str = setting(
        "off",
        "auto: a job gets a static SM partition of its own where the driver isolates them (610 and later)",
        choices=("off", "auto"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    mode: str = setting("act", "observe: write verdicts to the journal, do nothing", choices=("act", "observe"))
    attribution_ms: int = setting(
        100, "longest wait for the culprit's name before suspects are split", within=(0, 60_000)
    )
    settle_ms: int = setting(30, "longest wait for news of a fault after a task's failure", within=(0, 60_000))
    incident_window_ms: int = setting(
        2000, "sightings of one server within this time are one incident", within=(1, 600_000)
    )
    grace: float = setting(1.0, "time that an unmodified program has to end by itself", within=(0, 600))
    restore_timeout: float = setting(
        30.0, "time limit from the verdict to the first step of a restored task", within=(0.1, 86_400)
    )
    requeue_timeout: float = setting(60.0, "time limit for Slurm to requeue a job", within=(1, 3_600))
    retries_window: float = setting(
        3600.0,
        "time without a recovery that gives a task one of its retries (--mps-retries) back",
        within=(1, 31_536_000),
    )
    max_requeues_per_hour: int = setting(
        20,
        "breaker: further requeues of this node are only logged; one user gets three quarters at most",
        within=(0, 100_000),
    )
    strikes: int = setting(
        0,
        "GPU faults of one user's program after which each of its tasks gets a server of its own; 0: never",
        within=(0, 1000),
    )
    strikes_refuse: int = setting(
        0, "GPU faults of one user's program after which its tasks are refused; 0: never", within=(0, 1000)
    )
    strikes_window: float = setting(86400.0, "time that a fault counts for these two", within=(1, 31_536_000))
    max_drains_per_hour: int = setting(1, "breaker: further drains of this node are only logged", within=(0, 1_000))


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptState:
    spill_seconds: float = setting(
        60.0, "shortest time between two commits that are also written to disk", within=(0, 86_400)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Prolog:
    timeout: float = setting(30.0, "deadline of mpsr prolog and mpsr epilog", within=(1, 3_600))
    room_mib: int = setting(
        64,
        "MiB, and 1024 times as many files, that a job's directory, a domain's pipes and its logs each may hold on a tmpfs "
        "of their own; 0: plain directories without a limit",
        within=(0, 65_536),
    )
    on_failure: str = setting(
        "refuse",
        "what a failure of ours does: refuse the job's steps, or drain the node",
        choices=("refuse", "drain"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SlurmSettings:
    adapter: str = setting(
        "auto",
        "pyslurm where it reaches slurmctld and has its release, else scontrol",
        choices=("auto", "pyslurm", "scontrol"),
    )
    timeout: float = setting(15.0, "deadline of one call to Slurm", within=(0.1, 600))


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """How `--nodes` and `--job` of the commands reach other nodes."""

    shell: str = setting("ssh", "what runs a command on another node, as the caller", choices=("ssh", "srun"))
    ssh: str = setting("ssh", "the ssh client, a name on PATH or a path", path=Path.PROGRAM)
    command: str = setting("mpsr", "the command mpsr on the nodes, a name on PATH or a path", path=Path.PROGRAM)
    fanout: int = setting(64, "nodes that are asked at the same time", within=(1, 256))
    timeout: float = setting(30.0, "time limit of one node's answer", within=(1, 3_600))


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    paths: Paths = field(default_factory=Paths)
    options: Options = field(default_factory=Options)
    mps: MpsSettings = field(default_factory=MpsSettings)
    recovery: Recovery = field(default_factory=Recovery)
    state: KeptState = field(default_factory=KeptState)
    prolog: Prolog = field(default_factory=Prolog)
    slurm: SlurmSettings = field(default_factory=SlurmSettings)
    remote: Remote = field(default_factory=Remote)
