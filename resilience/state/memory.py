"""Device memory of kept arrays: per array a `work` and a `kept` region, each with a descriptor that keeps it alive.

Relies on cuMemCreate memory living as long as a handle, mapping or descriptor of it does (cuda.h; hypotheses H1 and
H2 of docs/adr/0002). Regions are never given back before the process ends: the keeper, the standby and this process
hold the same memory, and the last one to go frees it.
"""

from dataclasses import dataclass

from resilience.model.errors import GpuError
from resilience.state.driver import Gpu, GpuFault
from resilience.state.layout import ArraySpec, Kept


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    address: int
    size: int
    fd: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One kept array in this process."""

    spec: ArraySpec
    work: Region
    kept: Region

    @property
    def fds(self) -> tuple[int, int]:
        return self.work.fd, self.kept.fd

    @property
    def row(self) -> Kept:
        return Kept(spec=self.spec, region=self.work.size, work=self.work.address, kept=self.kept.address)

    def save(self, gpu: Gpu) -> None:
        """work → kept, on the stream."""
        gpu.copy(self.kept.address, self.work.address, self.spec.nbytes)

    def load(self, gpu: Gpu) -> None:
        """kept → work, on the stream."""
        gpu.copy(self.work.address, self.kept.address, self.spec.nbytes)


def _create(gpu: Gpu, size: int) -> Region:
    handle, fd = gpu.create(size)
    address = gpu.map(handle, size)
    gpu.release(handle)  # the mapping and the descriptor keep the memory
    return Region(address=address, size=size, fd=fd)


def create(gpu: Gpu, spec: ArraySpec) -> Pair:
    """New memory for an array; `work` is zero-filled. Raises GpuError, out of memory with a hint."""
    size = gpu.rounded(spec.nbytes)
    try:
        pair = Pair(spec=spec, work=_create(gpu, size), kept=_create(gpu, size))
    except GpuFault:
        raise
    except GpuError as error:
        hint = f"array {spec} needs {2 * size >> 20} MiB of device memory: a kept array is there twice"
        raise GpuError(error.call, error.code, error.observed, hint=hint) from error
    gpu.zero(pair.work.address, size)
    return pair


def take_in(gpu: Gpu, array: Kept, fds: tuple[int, int]) -> Pair:
    """Map the memory that another process made, at its addresses where they are free here."""
    regions = []
    for fd, at in zip(fds, (array.work, array.kept), strict=True):
        handle = gpu.take_in(fd)
        regions.append(Region(address=gpu.map(handle, array.region, at=at), size=array.region, fd=fd))
        gpu.release(handle)
    return Pair(spec=array.spec, work=regions[0], kept=regions[1])
