"""The environment that slurmd gives to Prolog and Epilog, as values. Pure.

What Slurm sets is checked for its form, because it becomes part of paths; what comes from the user (SPANK_MPSR) is only
carried along as text. Raises ConfigError naming the variable.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from resilience import contract
from resilience.model.errors import ConfigError
from resilience.model.ids import JobId, NodeName
from resilience.parse.hostlist import numbers

OF_A_JOB = ("SLURM", "SPANK_", "MPSR", "CUDA_", "GPU_DEVICE_ORDINAL")
"""How the names of variables begin that Slurm, its user or our hooks set for one job."""

_NODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_USER = re.compile(r"[A-Za-z0-9._@$\\-]{1,256}\Z")
_GRES = re.compile(r"(gpu|mps|shard)(?::[\w.+-]+)*\((?:IDX:([0-9,-]+)|(\d+/\d+(?:,\d+/\d+)*))\)", re.ASCII)
"""One gres that names GPUs. Since 24.11 a share of each GPU in turn: units held of units there are."""
_MOST = {
    "SLURM_JOB_ID": 2**32,
    "SLURM_JOB_UID": 2**32 - 1,
    "SLURM_JOB_GID": 2**32 - 1,
    "SLURM_JOB_RESTART_COUNT": 2**32,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEnvironment:
    job: JobId
    uid: int
    gid: int | None
    """None where this release of Slurm does not say (22.05)."""
    user: str
    node: NodeName
    restart: int
    asked: str
    """SPANK_MPSR as it came: user input."""
    late: bool
    """Run by the plugin in slurmd's place: nothing but the job's identity, options and gres is there."""
    gpus: tuple[str, ...]
    """The job's GPUs in the order of CUDA_VISIBLE_DEVICES: Slurm's numbers (domain_plan.pick_gpus) or UUIDs."""
    partition: str
    """Slurm's partition that the job runs in; empty where it does not say."""
    share: int | None
    """Percent of a GPU that the job's gres/mps stands for; None without gres/mps."""


def job_environment(environ: Mapping[str, str]) -> JobEnvironment:
    """The job that a prolog or epilog runs for."""
    node = environ.get("SLURMD_NODENAME", "")
    if not _NODE.match(node):
        raise ConfigError("environment", "no usable SLURMD_NODENAME", node[:80], hint="this command runs from slurmd")
    job = _number(environ, "SLURM_JOB_ID")
    uid = _number(environ, "SLURM_JOB_UID")
    if not job or uid is None:
        missing = "SLURM_JOB_UID" if job else "SLURM_JOB_ID"
        raise ConfigError("environment", "not set", missing, hint="this command runs from slurmd's Prolog and Epilog")
    user = environ.get("SLURM_JOB_USER", "")
    late = environ.get(contract.env("late")) == "1"
    return JobEnvironment(
        job=JobId(job),
        uid=uid,
        gid=_number(environ, "SLURM_JOB_GID"),
        user=user if _USER.match(user) else "",
        node=NodeName(node),
        restart=_number(environ, "SLURM_JOB_RESTART_COUNT") or 0,
        asked=environ.get(contract.env("job_control_script"), ""),
        late=late,
        gpus=held_gpus(environ.get(contract.env("late_gres"), ""))
        if late
        else job_gpus(environ.get("SLURM_JOB_GPUS", ""), environ.get("CUDA_VISIBLE_DEVICES", "")),
        partition=environ.get("SLURM_JOB_PARTITION", ""),
        share=_percent(environ.get("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE", "")),
    )


def process_job(environ: Mapping[str, str]) -> JobId | None:
    """The job that a user's process belongs to by its environment, which is the user's to change.

    The lease's name comes first: in a heterogeneous job SLURM_JOB_ID names the first component in all of them.
    """
    found = re.search(r"/([1-9]\d{0,9})\.lease\Z", environ.get(contract.env("lease"), ""), re.ASCII)
    text = found[1] if found else environ.get("SLURM_JOB_ID", "")
    return JobId(int(text)) if text.isascii() and text.isdigit() and len(text) <= 10 else None


def job_gpus(slurm: str, cuda: str) -> tuple[str, ...]:
    """The GPUs of a job: Slurm's list, in CUDA's order where both name the same devices.

    A UUID that CUDA is given stands before Slurm's numbers, which count MIG instances where there are any.
    """
    by_slurm, by_cuda = devices(slurm), devices(cuda)
    if any(word.startswith("MIG-") for word in by_cuda):
        return by_cuda
    if by_slurm and set(by_slurm) != set(by_cuda):
        return by_slurm
    return by_cuda


def held_gpus(gres: str) -> tuple[str, ...]:
    """The GPUs in slurmctld's words for a job's gres on one node: `gpu:2(IDX:0-1)`, `shard:2(IDX:1)`, since 24.11
    `shard:2(0/8,2/8)`. Other gres have devices of their own, which are no GPUs."""
    found: list[str] = []
    for one in re.split(r",(?![^()]*\))", gres):
        if item := _GRES.fullmatch(one):
            shares = enumerate((item[3] or "").split(",") if item[3] else ())
            found += devices(item[2]) if item[2] else [str(index) for index, held in shares if held[:2] != "0/"]
    return tuple(dict.fromkeys(found))


def devices(text: str) -> tuple[str, ...]:
    """`0,1`, `0-2` or UUIDs. Slurm's NoDevFiles, and anything else that is no device, is none."""
    devices: list[str] = []
    for word in map(str.strip, text.split(",")):
        devices += numbers(word)
        if re.fullmatch(r"(GPU|MIG)-[A-Za-z0-9/-]{1,100}", word, re.ASCII):
            devices.append(word)
    return tuple(dict.fromkeys(devices))


def _percent(text: str) -> int | None:
    """What gres/mps makes of its units: a whole number. Slurm 22.05 can say 375; such a word means nothing."""
    return int(text) if re.fullmatch(r"[1-9]\d?|100", text, re.ASCII) else None


def _number(environ: Mapping[str, str], name: str) -> int | None:
    text = environ.get(name, "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and int(text) < _MOST[name]):
        raise ConfigError("environment", f"bad {name}", text[:80])
    return int(text)
