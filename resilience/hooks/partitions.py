"""What the prolog does about static SM partitions: whether a job may have one, how its servers are cut, which one it gets.

The caller holds the lock of the partitioned domain, but for `possible`. Raises ConfigError when the job's request does not
fit, MpsControlError when the driver refuses; both mean the domain without partitions, or a refusal for a job that requires
isolation.
"""

from collections.abc import Iterable, Sequence

from resilience.hooks.node import Node
from resilience.model.errors import ConfigError, ResilienceError
from resilience.model.ids import Color, GpuMinor, GpuUuid, ServerId
from resilience.model.lease import Lease, LeaseState
from resilience.placement import partition_plan
from resilience.placement.domain_plan import Opening
from resilience.ports import Gpu

_SUBJECT = "SM partition"


def possible(gpus: Iterable[Gpu]) -> None:
    """Raises ConfigError when partitions would keep nothing apart on these GPUs."""
    for gpu in gpus:
        if not partition_plan.isolates(gpu.driver):
            first = partition_plan.ISOLATES_FROM
            raise ConfigError(_SUBJECT, f"isolates from driver {first} on", gpu.driver or "unknown driver")


def plan(node: Node, opening: Opening, fresh: Sequence[ServerId], percent: int) -> None:
    """Have servers that nobody uses cut for this share; those in use must have partitions that are large enough."""
    for ((minor, _),) in opening.spans:
        server = ServerId(domain=opening.key, gpu=minor, color=opening.colors[0])
        if server in fresh:
            node.mps.partitions.plan(server, percent)
            continue
        there = node.mps.partitions.share(server)
        if there is None or there < percent:
            raise ConfigError(
                _SUBJECT,
                f"those on GPU {minor} were made for {there or 'no'} percent",
                f"{percent} percent wanted",
                hint=f"--mps-threads={there} takes one of them" if there else "",
            )


def slots(
    node: Node, lease: Lease, gpus: Iterable[tuple[GpuMinor, GpuUuid]], colors: Sequence[Color]
) -> tuple[tuple[GpuMinor, int], ...]:
    """The job's partition on each GPU: the first that no open lease names. Raises ConfigError when all are taken."""
    leases, broken = node.leases.survey()
    if broken:
        raise ConfigError(_SUBJECT, "a lease that cannot be read may hold any", broken[0])
    others = [
        one for one in leases if one.state is LeaseState.OPEN and one.domain == lease.domain and one.job != lease.job
    ]
    picked: list[tuple[GpuMinor, int]] = []
    for minor, _ in gpus:
        servers = (ServerId(domain=lease.domain, gpu=minor, color=color) for color in colors)
        count = min(node.mps.partitions.count(server) for server in servers)
        slot = partition_plan.pick((one.slot(minor) for one in others), count)
        if slot is None:
            raise ConfigError(_SUBJECT, f"none of {count} is free", f"GPU {minor}")
        picked.append((minor, slot))
    return tuple(picked)


def words(error: Exception) -> str:
    """Why there is none, on one line."""
    hint = f" ({error.hint})" if isinstance(error, ResilienceError) and error.hint else ""
    return " ".join(f"{error}{hint}".split())[:500]
