"""Is a process that computes on a job's GPU where its job asked to be? Pure: facts in, one sentence out.

Outside MPS, on a server that is not the job's, in another SM partition, with more of the GPU's threads or memory than the
options allow. What cannot be told counts as right: an environment that may not be read, or one changed after the start.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from resilience.model.ids import GpuMinor
from resilience.model.lease import Lease
from resilience.model.options import JobOptions

_PIPE = "CUDA_MPS_PIPE_DIRECTORY"
_SHARE = "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"
_LIMIT = "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT"
_PARTITION = "CUDA_MPS_SM_PARTITION"
_UNITS = {"K": 1 / 1024, "M": 1, "G": 1024}


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    lease: Lease
    options: JobOptions
    """Those of its task, or of its job where no supervisor has it."""
    gpu: GpuMinor | None
    """Where its context is; None: a GPU that the job has not."""
    mps: bool
    """NVML counts it among the clients of MPS."""
    ours: bool
    """A server of the job's counts it among its clients."""
    environ: Mapping[str, str] | None
    """As it began; None: it may not be read."""
    partition: str = ""
    """The job's SM partition on that server; empty: it has none, or that cannot be told."""


def lack(facts: Facts) -> str:
    """What is wrong, as the end of a sentence about the process; empty when nothing is."""
    if facts.gpu is None:
        return "computes on a GPU that its job does not have"
    if not facts.mps:
        return f"computes outside MPS: {_why_outside(facts)}"
    if not facts.ours:
        return f"is a client of an MPS server that is not its job's: {_pipe(facts.environ)}"
    if facts.partition and facts.environ is not None and facts.environ.get(_PARTITION) != facts.partition:
        return f"is not in its job's SM partition {facts.partition}: {_said(facts.environ, _PARTITION)}"
    return _too_much(facts)


def _pipe(environ: Mapping[str, str] | None) -> str:
    if environ is None:
        return "its environment cannot be read"
    return f"{_PIPE} is {environ[_PIPE]}" if environ.get(_PIPE) else f"it has no {_PIPE}"


def _why_outside(facts: Facts) -> str:
    ours = f"{facts.lease.run}/"
    if facts.environ is not None and facts.environ.get(_PIPE, "").startswith(ours):
        return (
            f"no MPS server answered it at {facts.environ[_PIPE]} (a container must show it: docs/how-to/containers.md)"
        )
    return _pipe(facts.environ)


def _too_much(facts: Facts) -> str:
    """More than the options of its job or task allow, by its environment."""
    environ, options = facts.environ, facts.options
    if environ is None or facts.lease.slots:
        return ""
    if options.threads is not None and _number(environ.get(_SHARE, "")) > options.threads:
        return f"may use more than its {options.threads} percent of the GPU's threads: {_said(environ, _SHARE)}"
    if options.memory is not None and _limit(environ.get(_LIMIT, "")) > options.memory:
        return f"may use more than its {options.memory} MiB of device memory: {_said(environ, _LIMIT)}"
    return ""


def _said(environ: Mapping[str, str], name: str) -> str:
    return f"{name} is {environ[name]}" if environ.get(name) else f"it has no {name}"


def _number(text: str) -> float:
    """A share; all of it where none is said."""
    try:
        return float(text)
    except ValueError:
        return 100.0


def _limit(text: str) -> float:
    """MiB of the first device, such as 0=512M; no limit where none is said."""
    found = re.match(r"\s*0=(\d+)([KMG])B?\b", text)
    return int(found[1]) * _UNITS[found[2]] if found else float("inf")
