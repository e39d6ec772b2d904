"""Static SM partitions of a control daemon started with -S (driver 595 and later): `sm_partition add|rm` and `lspart`.

Job: the bookkeeping. A GPU has `sm_count` SMs in chunks of `chunk_sms` (profile E2); a partition takes whole chunks.
Partitions slow nobody here. A client joins one with CUDA_MPS_SM_PARTITION=<device UUID>/<partition ID>, and one that names
none is refused (`partition_needed`); with `partition_isolates` (driver 610 and later) an SM fault stays with the clients of
its partition.

Source: wording and column widths of the printable strings in nvidia-cuda-mps-control 595.99.02; the answers without a
GPU are recorded. What stands in which column follows NVIDIA's MPS document. A partition's id is ours, and like the real
ones opaque, with capitals and a slash in it: those are base64.

On failure: an answer in words; nothing changes.
"""

from __future__ import annotations

import os

from . import mps_host, mps_inject, mps_wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .mps_daemon import Control

OFF = "Static partitioning mode is not enabled"
ADD = "Usage: sm_partition add <device UUID> <number of chunks>"
REMOVE = "Usage: sm_partition rm <device UUID> <partition ID> or sm_partition rm <device UUID>/<partition ID>"
CUDA_NO_DEVICE, CUDA_INVALID_RESOURCE_CONFIGURATION = 100, 915


class Partitions:
    """What is taken: per GPU UUID, partition id to number of chunks."""

    def __init__(self) -> None:
        self.of: dict[str, dict[str, int]] = {}
        self.made = 0

    def add(self, gpu: str, chunks: int) -> str:
        """A new id, in the shape of the documented ones."""
        self.made += 1
        name = f"Dx{self.made:04d}/AAAA"
        self.of.setdefault(gpu, {})[name] = chunks
        return name

    def names(self) -> str:
        """Every id, as a server is told them."""
        return ",".join(name for held in self.of.values() for name in held)


def tell(control: Control) -> None:
    """Let the servers know which partitions there are."""
    for child in control.servers.values():
        mps_wire.send(child.link, mps_wire.words("partitions", list=control.partitions.names()))


def _gpus(control: Control) -> list[mps_host.Gpu]:
    """The visible GPUs; none after saying why no partition command can work here."""
    if not control.partitioned:
        control.say(OFF)
        return []
    host = mps_host.read()
    gpus = host.visible(os.environ.get("CUDA_VISIBLE_DEVICES")) if host else []
    if not gpus:
        control.say(f"Failed to initialize CUDA, error: {CUDA_NO_DEVICE}")
        control.blank()
    return gpus


def _sizes() -> tuple[int, int]:
    """(SMs of a GPU, SMs of a chunk)."""
    return mps_inject.number("sm_count", 132), mps_inject.number("chunk_sms", 8)


def sm_partition(control: Control, words: list[str]) -> None:
    gpus = _gpus(control)
    if not gpus:
        return
    verb = words[1] if len(words) > 1 else ""
    target, _, joined = (words[2] if len(words) > 2 else "").partition("/")
    gpu = next((one for one in gpus if one.uuid == target), None)
    last = joined or (words[3] if len(words) > 3 else "")
    if verb not in ("add", "rm"):
        control.say("Invalid option for sm_partition")
    elif not last:
        control.say(ADD if verb == "add" else REMOVE)
    elif gpu is None:
        control.say(f"Invalid device identifier format: {target}")
    elif verb == "add":
        _add(control, gpu.uuid, last)
    else:
        _remove(control, gpu.uuid, last)


def _add(control: Control, gpu: str, text: str) -> None:
    chunks = int(text) if text.isdigit() else 0
    total, size = _sizes()
    free = total // size - sum(control.partitions.of.get(gpu, {}).values())
    if chunks < 1:
        control.say(f"Invalid number of chunks: {chunks}")
    elif chunks > free or any(child.count for child in control.servers.values()):
        control.say(
            f"Failed to create the requested SM partition of {chunks} chunks, error {CUDA_INVALID_RESOURCE_CONFIGURATION}"
        )
    else:
        control.say(f"Partition {gpu}/{control.partitions.add(gpu, chunks)} created")
        tell(control)


def _remove(control: Control, gpu: str, name: str) -> None:
    held = control.partitions.of.get(gpu, {})
    if name not in held:
        control.say(f"Partition {name} not found")
    elif any(child.count for child in control.servers.values()):
        control.say(f"Partition {name} in use. Terminate all clients before removing.")
    else:
        del held[name]
        tell(control)
        control.say(f"Partition {name} removed")


def lspart(control: Control, _words: list[str]) -> None:
    gpus = _gpus(control)
    if not gpus:
        return
    total, size = _sizes()
    layout = "{:<20} {:<36} {:<8} {:<8} {:<6} {:<6} {:<6}"
    control.say(layout.format("GPU", "Partition", "free", "used", "free", "used", "clients").rstrip())
    control.say(layout.format("", "", "chunks", "chunks", "SM", "SM", "").rstrip())
    clients = "Yes" if any(child.count for child in control.servers.values()) else "No"
    for gpu in gpus:
        held = control.partitions.of.get(gpu.uuid, {})
        used = sum(held.values())
        short = gpu.uuid[:20]
        free = total // size - used
        row = layout.format(short, "-", free, used, total - used * size, used * size, "")
        control.say(row.rstrip())
        for name, chunks in held.items():
            control.say(layout.format(short, name, "-", chunks, "-", chunks * size, clients).rstrip())
