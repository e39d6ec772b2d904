"""What a prolog is to open and what an epilog may close: decisions without acts. Pure.

A job's wishes are user input and are checked here again, on the node, against the node's own rules. Whoever cannot have
what he asked for gets ConfigError, worded for him: it is the reason in his lease and fails his job, never the node.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from resilience.contract import contract
from resilience.model.errors import ConfigError
from resilience.model.ids import Color, DomainKey, GpuMinor, GpuUuid, JobId, ServerId
from resilience.model.lease import Devices, Isolation, Lease, LeaseState, spans
from resilience.model.options import Domain, JobOptions, Require, Rung
from resilience.model.settings import Options as Rules
from resilience.parse import options as wire
from resilience.parse import rules

_WIRE = contract()["wire"]
_NO_GPU = GpuMinor(-1)
_NO_MIG = (
    "--mps=off runs the job on its instance without MPS; or ask for a GPU without MIG, by a --gres type or a node "
    "that has one (the admin: nvidia-smi -mig 0, and paths.devices in mpsr.yaml where a node has both)"
)
_KEYS = frozenset(spec["key"] for spec in contract()["option"].values())
PAIR = (Color("a"), Color("b"))
"""The two servers of a GPU and domain that take turns."""
_PARTITIONED = "-sm"
"""Ends the name of a domain whose servers are cut into SM partitions. A daemon in that mode takes no client without a
partition, so jobs that have none are in the domain without this ending, on servers of their own."""

NO_GPU = "no GPU in this allocation"


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """What is to be opened for one job."""

    key: DomainKey
    colors: tuple[Color, ...]
    spans: tuple[Devices, ...]
    """The GPUs of each pair of servers."""
    active: Mapping[GpuMinor, Color]
    """By the first GPU of each pair."""

    def servers(self, colors: Collection[Color] | None = None) -> dict[ServerId, tuple[GpuUuid, ...]]:
        """Its servers (of some colours), each with its GPUs."""
        return {
            ServerId(domain=self.key, gpu=span[0][0], color=color): tuple(uuid for _, uuid in span)
            for span in self.spans
            for color in (self.colors if colors is None else colors)
        }


def in_force(asked: str, site: Rules, partition: str = "") -> JobOptions:
    """The options of a job of a Slurm partition on this node: what it asked for, where that is left open or locked the
    default that holds there."""
    if len(asked) > _WIRE["max_bytes"] or not set(asked) <= set(_WIRE["charset"]):
        wire.parse(asked)
    pairs = [pair for pair in asked.split(";") if pair]
    wire.parse(";".join(pair for pair in pairs if not _left_open(pair)))
    given = dict(pair.split("=", 1) for pair in pairs if not _left_open(pair))
    return rules.on_node(
        {key: wire.check_value(key, value) for key, value in given.items()}, rules.of_partition(site, partition)
    )


def by_default(site: Rules, partition: str) -> bool:
    """Whether a job of a Slurm partition has MPS on this node without asking for it."""
    return rules.defaults(rules.of_partition(site, partition))["mps"] == "on"


def domain_key(options: JobOptions, job: JobId, uid: int) -> DomainKey:
    """The name of the domain that a job belongs to."""
    match options.domain:
        case Domain.JOB:
            return DomainKey(f"j{job}")
        case Domain.USER:
            return DomainKey(f"u{uid}")
        case Domain.SHARED:
            return DomainKey("shared")


def partitioned(key: DomainKey) -> DomainKey:
    """The domain of the same jobs as `key` with SM partitions."""
    return DomainKey(f"{key}{_PARTITIONED}")


def twins(key: DomainKey) -> tuple[DomainKey, DomainKey]:
    """The two domains that a job whose domain is `key` may be in: without partitions, and with."""
    plain = DomainKey(key.removesuffix(_PARTITIONED))
    return plain, partitioned(plain)


def pick_gpus(
    wanted: Iterable[str],
    present: Iterable[tuple[GpuMinor, GpuUuid]],
    files: Iterable[str] = (),
    cut: Collection[GpuUuid] = (),
) -> Devices:
    """The job's GPUs among those of the node, in the job's order. ConfigError for none or an unknown one.

    Slurm counts the lines of gres.conf from 0, whatever the devices are called: on a node whose only GPU is /dev/nvidia3
    a job has GPU 0 (seen with 22.05). `files` are those devices in that order; without them `present` is, which is in the
    driver's order, as Slurm's own detection has it.

    `cut` are the GPUs in MIG mode. Slurm counts their instances in one row with the other GPUs, so that without `files` no
    number tells a GPU on such a node; and an instance has no MPS of ours.
    """
    there = tuple(present)
    files = tuple(files)
    by_number = _by_number(there, files)
    picked: list[tuple[GpuMinor, GpuUuid]] = []
    for word in wanted:
        if word.startswith("MIG-") or (cut and word.isdigit() and not files):
            raise ConfigError("gpu", "is or may be a MIG instance, which has no MPS of ours", word, hint=_NO_MIG)
        number = int(word) if word.isdigit() else len(by_number)
        minor = by_number[number] if number < len(by_number) else _NO_GPU
        match = [gpu for gpu in there if gpu[1] == word or gpu[0] == minor]
        if not match:
            known = ", ".join(f"{minor} {uuid}" for minor, uuid in there) or "none"
            raise ConfigError(
                "gpu", "Slurm names a device that the driver does not show", word, hint=f"driver: {known}"
            )
        if match[0][1] in cut:
            raise ConfigError("gpu", "is in MIG mode, and its instances have no MPS of ours", match[0][1], hint=_NO_MIG)
        picked.append(match[0])
    if not picked:
        raise ConfigError("gpu", NO_GPU, "--mps", hint="add --gres=gpu:1, shard:N or mps:N")
    return tuple(dict.fromkeys(picked))


def slurm_numbers(
    gpus: Devices, present: Iterable[tuple[GpuMinor, GpuUuid]], files: Iterable[str] = ()
) -> tuple[int, ...]:
    """What Slurm calls the job's GPUs: the places that `pick_gpus` looks at. Empty when one has none."""
    by_number = _by_number(tuple(present), tuple(files))
    known = all(minor in by_number for minor, _ in gpus)
    return tuple(by_number.index(minor) for minor, _ in gpus) if known else ()


def _by_number(present: Devices, files: tuple[str, ...]) -> list[GpuMinor]:
    """The node's GPUs at the places where Slurm counts them."""
    return [_minor(file) for file in files] or [minor for minor, _ in present]


def _minor(file: str) -> GpuMinor:
    """The minor number in a device file's name, which is the driver's; none in another name."""
    found = re.search(r"\d+\Z", file)
    return GpuMinor(int(found[0])) if found else _NO_GPU


def opening(
    options: JobOptions,
    key: DomainKey,
    gpus: Devices,
    active: Callable[[ServerId], Color | None],
    *,
    pair: bool = True,
    isolation: Isolation = Isolation.DOMAINS,
    unpartitioned: str = "",
) -> Opening:
    """Which servers a job needs. `active` tells what tasks of a domain join now; a new domain begins with `a`.

    Without `pair` a GPU takes one server at a time (compute mode EXCLUSIVE_PROCESS), and so no standby. `isolation` is
    what this node has, `unpartitioned` why the job has no SM partition where the site wants them.
    """
    standby = options.standby and Rung.STANDBY in options.recover
    if options.require is Require.STANDBY and not pair:
        raise ConfigError(
            "options",
            "no standby on this node, whose GPUs take one server at a time",
            "--mps-require=standby",
            hint="the admin can set the compute mode to default",
        )
    if options.require is Require.STANDBY and not standby:
        raise ConfigError(
            "options",
            "a standby is asked for and switched off",
            "--mps-require=standby",
            hint="leave out --mps-standby=off and name standby in --mps-recover",
        )
    if options.require is Require.ISOLATION and isolation in (Isolation.NONE, Isolation.DOMAINS):
        raise ConfigError(
            "options",
            "this node keeps domains apart, but not the tasks of one server"
            + (f" ({unpartitioned})" if unpartitioned else ""),
            "--mps-require=isolation",
            hint="leave it out, use --mps-domain=job to share with nobody, or ask the admin for the guard module or SM "
            "partitions",
        )
    over = spans(gpus, options.servers)
    now = {span[0][0]: active(ServerId(domain=key, gpu=span[0][0], color=PAIR[0])) or PAIR[0] for span in over}
    needed = set(PAIR) if standby and pair else set(now.values())
    return Opening(key=key, colors=tuple(sorted(needed)), spans=over, active=now)


def unused(servers: Iterable[ServerId], leases: Iterable[Lease]) -> tuple[ServerId, ...]:
    """Those servers on whose domain and GPU no open lease stands."""
    held = {(lease.domain, minor) for lease in leases if lease.state is LeaseState.OPEN for minor, _ in lease.gpus}
    return tuple(server for server in servers if (server.domain, server.gpu) not in held)


def _left_open(pair: str) -> bool:
    """`key=` of a key that is known: the user said nothing about it."""
    return pair.endswith("=") and pair[:-1] in _KEYS
