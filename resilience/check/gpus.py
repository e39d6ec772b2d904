"""`mpsr check`: what the driver says of this node's GPUs. Pure.

A GPU whose mode NVML does not tell is not taken for one without MIG: its error is a finding.
"""

from resilience.check.finding import Finding, note, warning
from resilience.ports import Gpu


def check(gpus: tuple[Gpu, ...]) -> list[Finding]:
    """Findings about MIG, then one for each question that NVML answered with an error."""
    found = []
    if cut := [gpu.uuid for gpu in gpus if gpu.mig]:
        hint = (
            "name the device files in paths.devices where a node has other GPUs, too; nvidia-smi -mig 0 switches it off"
        )
        text = f"is on: jobs on instances have no MPS of ours, and the guard module isolates none: {', '.join(cut)}"
        found.append(note("MIG", text, hint))
    for gpu in gpus:
        for text in gpu.unanswered:
            hint = f"nvidia-smi -q -i {gpu.uuid}: until it answers, mpsr takes the GPU for one without MIG"
            found.append(warning(gpu.uuid, text, hint))
    return found
