"""How a GPU is cut into static SM partitions, and which one a job gets: decisions without acts. Pure.

The unit is the job: its tasks on a GPU run in one partition, and their faults stay among them. The driver makes and
removes partitions only while no client uses the server, and jobs come and go; so a server is cut once, when nobody uses
it, into as many partitions as there is room for, all of the size that the first job wants. Later jobs get one that is
free and large enough.

Source: NVIDIA's MPS document (static SM partitioning; isolation of SM errors between partitions from driver 610 on).
Not confirmed on hardware: question E2 of tests/gpu/questions.toml.
"""

from collections.abc import Iterable

from resilience.model.options import JobOptions
from resilience.parse.mps_control import PartitionTable

ISOLATES_FROM = 610
"""First driver branch that keeps an SM's fault within its partition; from 590 on partitions only divide the SMs."""
SHARE = 25
"""Percent of a GPU for a job that says nothing and of which Slurm says nothing: four jobs fit."""


def isolates(driver: str) -> bool:
    """Whether this driver promises isolation between partitions. What cannot be read promises nothing."""
    branch = driver.partition(".")[0]
    return branch.isascii() and branch.isdigit() and int(branch) >= ISOLATES_FROM


def share(options: JobOptions, slurm: int | None) -> int:
    """Percent of a GPU that a job is to have: what it asked for, else its gres/mps share, else `SHARE`."""
    return options.threads or slurm or SHARE


def cut(percent: int, chunks: int) -> tuple[int, int]:
    """Chunks of one partition, rounded down, and how many such partitions a GPU of `chunks` chunks has room for."""
    size = max(1, chunks * percent // 100)
    return size, chunks // size


def whole(table: PartitionTable, ids: tuple[str, ...], percent: int) -> bool:
    """Whether the partitions with these ids are there, and are what this share asks for."""
    size, count = cut(percent, table.chunks)
    return len(ids) == count > 0 and all(table.partitions.get(name) == size for name in ids)


def pick(taken: Iterable[int], count: int) -> int | None:
    """The first partition that nobody holds."""
    held = set(taken)
    return next((slot for slot in range(1, count + 1) if slot not in held), None)
