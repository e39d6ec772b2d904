"""Device memory of kept arrays: per array a `work` and a `kept` region, each with a descriptor that keeps it alive.

Relies on cuMemCreate memory living as long as a handle, mapping or descriptor of it does (cuda.h; hypotheses H1 and
H2 of docs/adr/0002). Regions are never given back before the process ends: the keeper and this process hold the same
memory, and the last one to go frees it.

A standby has stand-ins: one granule of device memory of its own (2 MiB), mapped again and again at the addresses of
`work`, and the addresses of `kept` with nothing behind them. So its program has its pointers, may launch kernels on
them and capture graphs, and reaches no byte of what another process works on. At the promotion the memory itself takes
their place: a mapping belongs to addresses, and what was captured names addresses.
"""

import os
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
    def regions(self) -> tuple[Region, Region]:
        return self.work, self.kept

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


class StandIns:
    """The stand-ins of a standby's arrays, until `give_way`."""

    def __init__(self, gpu: Gpu, arrays: list[Kept]) -> None:
        self._gpu = gpu
        self._granule, fd = gpu.create(gpu.granularity)
        os.close(fd)
        self.pairs = [self._stand_in(array) for array in arrays]
        if arrays:
            gpu.zero(self.pairs[0].work.address, gpu.granularity)  # all of them at once: they are the same bytes

    def _stand_in(self, array: Kept) -> Pair:
        gpu, size = self._gpu, array.region
        work, kept = gpu.reserve(size, at=array.work), gpu.reserve(size, at=array.kept)
        for address in range(work, work + size, gpu.granularity):
            gpu.place(self._granule, address, gpu.granularity)
        gpu.open(work, size)
        regions = (Region(address=address, size=size, fd=-1) for address in (work, kept))
        return Pair(spec=array.spec, work=next(regions), kept=next(regions))

    def give_way(self, fds: dict[str, tuple[int, int]]) -> dict[str, Pair]:
        """Put the memory of each array, by its name, where its stand-in was. What was written to the stand-ins is gone."""
        self._gpu.synchronize()  # a kernel that a program left running would meet a hole, and its server end
        pairs = {}
        for pair in self.pairs:
            self._gpu.clear(pair.work.address, pair.work.size)
            work, kept = (self._put(fd, region) for fd, region in zip(fds[pair.spec.name], pair.regions, strict=True))
            pairs[pair.spec.name] = Pair(spec=pair.spec, work=work, kept=kept)
        self._gpu.release(self._granule)
        self.pairs = []
        return pairs

    def _put(self, fd: int, where: Region) -> Region:
        handle = self._gpu.take_in(fd)
        self._gpu.place(handle, where.address, where.size)
        self._gpu.open(where.address, where.size)
        self._gpu.release(handle)
        return Region(address=where.address, size=where.size, fd=fd)
