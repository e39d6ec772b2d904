"""What a job has asked of gres, as far as it says how its tasks use GPUs: the fields of `squeue -O` that FIELDS names. Pure.

Slurm writes `gres:gpu:2` (22.05) or `gres/gpu:a100=2` (later).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

ASKED = ("tres-per-job", "tres-per-node", "tres-per-socket", "tres-per-task")
BOUND = "tres-bind"
FIELDS = (*ASKED, BOUND)
_NAME = re.compile(r"\bgres[:/](\w+)")
_GPUS = re.compile(r"\bgres[:/]gpu(?:[:=][^,:=\s]+)*?[:=](\d+)(?=,|\Z)")
_ONE_EACH = re.compile(r"gpu:(?:single:|per_task:1\b|map_gpu:)")


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuRequest:
    whole: bool
    """No gres/mps and no gres/shard: the job's GPUs are its own."""
    one_each: bool
    """Each task is to have one GPU."""


def gpu_request(shown: Mapping[str, str]) -> GpuRequest:
    """`shown`: the fields of one job. A job that has asked for nothing (`--exclusive`) has whole GPUs all the same."""
    names = {name for field in ASKED for name in _NAME.findall(shown[field])}
    each = sum(int(number) for number in _GPUS.findall(shown["tres-per-task"]))
    return GpuRequest(whole=not names & {"mps", "shard"}, one_each=each == 1 or bool(_ONE_EACH.search(shown[BOUND])))
