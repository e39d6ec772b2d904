"""A small node for the tests of prolog and epilog: directories under /tmp (short: socket paths), a journal in memory,
and a table of GPUs. Everything else is the real thing."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from resilience.hooks.epilog import epilog
from resilience.hooks.prolog import prolog
from resilience.model.ids import GpuUuid, NodeName
from resilience.model.records import Record
from resilience.model.settings import MpsSettings, Paths, Prolog, Settings
from resilience.ports import Gpu
from tests.cgroups import forget_cgroup

ROOT = Path(__file__).resolve().parents[2]
NODE = NodeName("n0")
UUIDS = ("GPU-00000000-0000-4000-8000-000000000000", "GPU-00000000-0000-4000-8000-000000000001")
ON = "mps=on;domain=user;standby=on"


class WallClock:
    def wall(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    def worked(self) -> float:
        return time.thread_time()

    def boot_id(self) -> str:
        return "00000000-0000-4000-8000-000000000000"


class MemoryJournal:
    def __init__(self) -> None:
        self.rows: list[tuple[str, dict[str, object]]] = []

    def append(self, record: Record) -> None:
        unsaid = dict.fromkeys(item.name for item in fields(record))
        self.rows.append((record.EVENT, unsaid | record.json()))

    def of(self, event: str) -> list[dict[str, object]]:
        return [fields for name, fields in self.rows if name == event]


@dataclass
class GpuTable:
    """The GPUs of a node, and who holds them."""

    uuids: tuple[str, ...] = UUIDS
    driver: str = "580"
    mig: frozenset[str] = frozenset()
    holders: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def all(self) -> tuple[Gpu, ...]:
        return tuple(
            Gpu(
                minor=minor,
                uuid=GpuUuid(uuid),
                name="GPU",
                driver=self.driver,
                bus_id=f"00000000:0{minor}:00.0",
                mig=uuid in self.mig,
            )
            for minor, uuid in enumerate(self.uuids)
        )

    def mps_processes(self, uuid: GpuUuid) -> Iterable[int]:
        return self.holders.get(uuid, ())

    def plain_processes(self, uuid: GpuUuid) -> Iterable[int]:
        return ()


@dataclass
class World:
    base: Path
    settings: Settings
    journal: MemoryJournal = field(default_factory=MemoryJournal)
    gpus: GpuTable = field(default_factory=GpuTable)
    extra: dict[str, str] = field(default_factory=dict)

    def environ(
        self, job: int, asked: str = ON, more: Mapping[str, str] | None = None, *, uid: int | None = None
    ) -> dict[str, str]:
        """What slurmd 22.05 gives a Prolog; SLURM_JOB_GID is not among it."""
        uid = os.getuid() if uid is None else uid
        base = {"SLURM_JOB_ID": str(job), "SLURM_JOB_UID": str(uid), "SLURMD_NODENAME": NODE, "SPANK_MPSR": asked}
        return (
            dict(os.environ)
            | base
            | {"SLURM_JOB_GPUS": "0", "CUDA_VISIBLE_DEVICES": "0"}
            | self.extra
            | dict(more or {})
        )

    def prolog(self, environ: Mapping[str, str]) -> int:
        return prolog(environ, self.settings, gpus=lambda: self.gpus, clock=WallClock(), journal=self.journal)

    def epilog(self, environ: Mapping[str, str]) -> int:
        return epilog(environ, self.settings, gpus=lambda: self.gpus, clock=WallClock(), journal=self.journal)

    def lease(self, job: int) -> str:
        return self.leases_of(job).read_text()

    def leases_of(self, job: int) -> Path:
        return self.base / f"run/n0/jobs/{job}.lease"

    def domains(self) -> list[str]:
        directory = self.base / "run/n0/d"
        return sorted(os.listdir(directory)) if directory.exists() else []

    def drained(self) -> "World":
        """The same node with a site that wants nodes drained."""
        return replace(self, settings=replace(self.settings, prolog=replace(self.settings.prolog, on_failure="drain")))


@contextmanager
def world(mps_control: str = "/nonexistent/nvidia-cuda-mps-control", *, start_timeout: float = 5.0) -> Iterator[World]:
    base = Path(tempfile.mkdtemp(prefix="mpsr-d-", dir="/tmp"))
    base.chmod(0o755)
    paths = Paths(
        run=f"{base}/run",
        log=f"{base}/log",
        state=f"{base}/state",
        mps_control=mps_control,
        launcher=f"{ROOT}/build/mpsr-launch",
        cgroup=f"/{base.name}",
    )
    settings = Settings(
        paths=paths,
        prolog=Prolog(room_mib=0),
        mps=MpsSettings(start_timeout=start_timeout, quit_timeout=4.0, rebuild_timeout=1.0),
    )
    try:
        yield World(base=base, settings=settings)
    finally:
        shutil.rmtree(base)
        forget_cgroup(f"/{base.name}")
