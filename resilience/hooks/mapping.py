"""Telling dcgm-exporter which job is on which GPU, where the site wants it. No job fails, and no node drains, for that."""

import sys
from collections.abc import Iterable

from resilience.adapters.linux.job_mapping import JobMapping
from resilience.hooks.node import Node
from resilience.model.errors import WireError
from resilience.model.ids import GpuUuid, JobId
from resilience.ports import Gpu


def enter(node: Node, job: JobId, present: Iterable[Gpu], held: Iterable[GpuUuid]) -> None:
    """The job has its GPUs. `present`: all of the node, in NVML's order, whose numbers the exporter knows."""
    mine = set(held)
    _write(node, job, [index for index, gpu in enumerate(present) if gpu.uuid in mine])


def leave(node: Node, job: JobId) -> None:
    """The job has ended."""
    _write(node, job, None)


def _write(node: Node, job: JobId, indexes: list[int] | None) -> None:
    directory = node.settings.paths.job_mapping
    if not directory:
        return
    try:
        if indexes is None:
            JobMapping(directory).remove(job)
        else:
            JobMapping(directory).add(job, indexes)
    except (OSError, WireError) as error:
        print(f"mpsr: job mapping: job {job} cannot be written: {error}\n  see: mpsr check", file=sys.stderr)
