"""Where the arrays of a session live: in memory that a keeper holds too, or in the process's own; on the GPU or the host.

A store holds arrays and copies; what is committed and when is the session's (resilience/state/session.py). Kept
arrays exist twice only when another process could take them over.
"""

import ctypes
from collections.abc import Mapping
from typing import Any, Protocol

from resilience.model.errors import GpuError, StateError
from resilience.state import areas, views
from resilience.state.areas import MappedArea, Memory
from resilience.state.devices import Devices
from resilience.state.driver import CudaGpu, GpuFault
from resilience.state.host_memory import HostMemory
from resilience.state.layout import APPEND, CONSTANT, HOST, ArraySpec, Layout, Placed
from resilience.state.memory import DeviceMemory

Content = list[tuple[ArraySpec, bytearray | memoryview]]


class Store(Protocol):
    def add(self, spec: ArraySpec, *, kept: bool) -> Any:
        """A new zero-filled array as the program sees it, or the taken-over one of that name."""

    def fill(self, spec: ArraySpec, content: bytearray) -> None:
        """Host bytes into a kept array."""

    def synchronize(self) -> None:
        """Wait for the program's work, on each GPU; a fault shows here."""

    def fault(self) -> GpuFault | None:
        """The fault that has ended a context, asked without waiting for work in flight; None when all live."""

    def save(self) -> None:
        """Every kept array's `work` to `kept`, and wait."""

    def load(self) -> None:
        """Every kept array's `kept` to `work`, and wait."""

    def protect(self) -> None:
        """What is constant is whole: it is read-only from now on."""

    def read(self, filled: Mapping[str, int], *, work: bool = False) -> Content:
        """The committed bytes of every kept array, which are `filled` long; `work`: while the commit is COPYING."""


class OwnStore:
    """Memory of this process alone. Without a GPU all of it is the host's."""

    def __init__(self, gpu: CudaGpu | None, *, cupy: bool) -> None:
        self.gpus = Devices(gpu) if gpu else None
        self._cupy = cupy
        self._device: dict[ArraySpec, int] = {}
        self._host: dict[ArraySpec, Any] = {}
        self._constant: list[Any] = []

    def add(self, spec: ArraySpec, *, kept: bool) -> Any:
        array = self._make(spec, kept=kept)
        if spec.kind == CONSTANT:
            self._constant.append(array)
        return array

    def _make(self, spec: ArraySpec, *, kept: bool) -> Any:
        size = max(spec.nbytes, 1)
        if spec.where == HOST or self.gpus is None:
            buffer = views.zeros(size)
            if kept:
                self._host[spec] = buffer
            return views.on_host(spec, ctypes.addressof(buffer), buffer)
        gpu = self.gpus.at(spec.where)
        address = gpu.allocate(size)
        gpu.zero(address, size)
        gpu.synchronize_stream()  # a program may write on a stream that nothing orders after ours
        if kept:
            self._device[spec] = address
        return self.view(spec, address)

    def view(self, spec: ArraySpec, address: int) -> Any:
        """The memory there as an array."""
        assert self.gpus is not None
        return views.on_device(self.gpus.at(spec.where), spec, address, cupy=self._cupy)

    def fill(self, spec: ArraySpec, content: bytearray) -> None:
        if spec in self._host:
            ctypes.memmove(self._host[spec], bytes(content), len(content))
        elif content and self.gpus:
            host = (ctypes.c_char * len(content)).from_buffer(content)
            self.gpus.at(spec.where).upload(self._device[spec], ctypes.addressof(host), len(content))

    def synchronize(self) -> None:
        """Host memory is always whole."""
        for gpu in self.gpus or ():
            gpu.synchronize()

    def fault(self) -> GpuFault | None:
        return self.gpus.fault() if self.gpus else None

    def save(self) -> None:
        """Nobody can take it over."""

    def load(self) -> None:
        """There is no second span."""

    def protect(self) -> None:
        for array in self._constant:
            views.read_only(array)

    def read(self, filled: Mapping[str, int], *, work: bool = False) -> Content:
        found: Content = []
        for spec, address in self._device.items():
            content = bytearray(spec.nbytes)
            assert self.gpus is not None
            views.on_device(self.gpus.at(spec.where), spec, address, cupy=False).copy_to(content)
            found.append((spec, content))
        found += [(spec, bytearray(buffer)) for spec, buffer in self._host.items()]
        return [(spec, content[: spec.stored(filled.get(spec.name, 0))]) for spec, content in found]


class KeptStore:
    """Kept arrays in areas, whose memory is handed to a keeper; scratch arrays as in an OwnStore."""

    def __init__(self, gpu: CudaGpu | None, *, cupy: bool) -> None:
        self._own = OwnStore(gpu, cupy=cupy)
        self._memory: dict[str, Memory] = {HOST: HostMemory()}
        self._areas: list[MappedArea] = []
        self._arrays: dict[str, Placed] = {}
        self._constant: list[Any] = []

    # ------------------------------------------------------------ what another process made
    def take_in(self, layout: Layout, fds: list[int]) -> None:
        """Map what another process made; `fds` are those of the areas. Raises StateError."""
        rest = iter(fds)
        self._areas = [areas.taken_in(self._at(area.where), area, rest) for area in layout.areas]
        self._arrays = {array.spec.name: array for array in layout.arrays}

    def stand_in(self, layout: Layout) -> None:
        """Arrays at the addresses that another process has them at, of memory that is this one's alone."""
        self._areas = [areas.stand_in(self._at(area.where), area) for area in layout.areas]
        self._arrays = {array.spec.name: array for array in layout.arrays}
        self._wait()

    def _at(self, where: str) -> Memory:
        if where not in self._memory:
            if self._own.gpus is None:
                raise StateError("kept state", "is on a GPU, and this process has none", where)
            self._memory[where] = DeviceMemory(self._own.gpus.at(where))
        return self._memory[where]

    def give_way(self, layout: Layout, fds: list[int]) -> None:
        """The memory of the other process in place of the stand-ins. Raises StateError when it has other arrays."""
        there = {array.spec.name: array for array in layout.arrays}
        if there != self._arrays or [area.used for area in self._areas] != [area.used for area in layout.areas]:
            named = ", ".join(str(array.spec) for array in layout.arrays[:9])
            raise StateError("kept state", "has other arrays than this standby", named)
        self.synchronize()  # a kernel that a program left running would meet a hole, and its server end
        rest = iter(fds)
        for area, row in zip(self._areas, layout.areas, strict=True):
            areas.give_way(area, row, rest)
        for memory in self._memory.values():
            memory.give_way()

    def warm(self, *, sums: bool) -> None:
        """Have ready what a take-over uses; `sums`: those of the content too."""
        for memory in self._memory.values():
            memory.warm([area.work for area in self._areas if area.memory is memory], sums=sums)

    # ------------------------------------------------------------ arrays
    def add(self, spec: ArraySpec, *, kept: bool) -> Any:
        if not kept:
            return self._own.add(spec, kept=False)
        there = spec.name in self._arrays
        if not there:
            self._arrays[spec.name] = self._place(spec)
        array = self._arrays[spec.name]
        address = self._areas[array.area].work.address + array.at
        view = views.on_host(spec, address) if spec.where == HOST else self._own.view(spec, address)
        if spec.kind == CONSTANT:
            self._constant.append(view)
            if there:
                views.read_only(view)
        return view

    def _place(self, spec: ArraySpec) -> Placed:
        kinds = [(area.where, area.kind) for area in self._areas]
        if (spec.where, spec.kind) not in kinds:
            memory = self._at(spec.where)
            kinds.append((spec.where, spec.kind))
            self._areas.append(MappedArea(spec.where, spec.kind, memory, [memory.new()]))
        number = kinds.index((spec.where, spec.kind))
        try:
            return Placed(spec=spec, area=number, at=self._areas[number].place(spec.nbytes))
        except GpuFault:
            raise
        except GpuError as error:
            raise _no_room(error, f"array {spec}", spec.nbytes) from error

    def close(self) -> None:
        """The declarations have ended. Raises GpuError."""
        for area in self._areas:
            try:
                area.close()
            except GpuFault:
                raise
            except GpuError as error:
                raise _no_room(error, f"the state of {len(self._arrays)} arrays", area.used) from error

    def protect(self) -> None:
        for area in self._areas:
            area.protect()
        for view in self._constant:
            views.read_only(view)

    @property
    def layout(self) -> Layout:
        return Layout(areas=tuple(area.row for area in self._areas), arrays=tuple(self._arrays.values()))

    @property
    def fds(self) -> list[int]:
        return [fd for area in self._areas for fd in area.fds]

    def fill(self, spec: ArraySpec, content: bytearray) -> None:
        array = self._arrays[spec.name]
        self._areas[array.area].work.write(array.at, content)

    # ------------------------------------------------------------ commits
    def synchronize(self) -> None:
        self._own.synchronize()

    def fault(self) -> GpuFault | None:
        return self._own.fault()

    def save(self) -> None:
        for area in self._areas:
            area.save()
        self._wait()

    def load(self) -> None:
        for area in self._areas:
            area.load()
        self._wait()

    def wipe(self, *, work: bool = True) -> None:
        """Overwrite the memory, and wait; `work` false: but for what the program works on."""
        for area in self._areas:
            for span in area.spans if work else area.spans[1:]:
                span.wipe()
        self._wait()

    def clear_after(self, filled: Mapping[str, int]) -> None:
        """Arrays that are appended to are of zeros from their committed length on."""
        for name, array in self._arrays.items():
            if array.spec.kind == APPEND:
                end = array.spec.stored(filled.get(name, 0))
                self._areas[array.area].work.zero(array.at + end, array.spec.nbytes - end)
        self._wait()

    def sums(self, filled: Mapping[str, int], *, work: bool) -> tuple[int, ...]:
        """One an area, of the last commit's content; `work`: while that is COPYING."""
        lengths: list[list[tuple[int, int]]] = [[] for _ in self._areas]
        for name, array in self._arrays.items():
            lengths[array.area].append((array.at, array.spec.stored(filled.get(name, 0))))
        return tuple(area.sum(its, work=work) for area, its in zip(self._areas, lengths, strict=True))

    def _wait(self) -> None:
        for memory in self._memory.values():
            memory.wait()

    def read(self, filled: Mapping[str, int], *, work: bool = False) -> Content:
        whole = [memoryview(b"" if area.kind == APPEND else area.committed(work=work)) for area in self._areas]
        found: Content = []
        for name, array in self._arrays.items():
            if array.spec.kind == APPEND:
                size = array.spec.stored(filled.get(name, 0))
                found.append((array.spec, self._areas[array.area].work.read(array.at, size)))
            else:
                found.append((array.spec, whole[array.area][array.at : array.at + array.spec.nbytes]))
        return found


def _no_room(error: GpuError, what: str, size: int) -> GpuError:
    hint = f"{what} needs {2 * size >> 20} MiB of device memory: a kept array is there twice, unless constant or append"
    return GpuError(error.call, error.code, error.observed, hint=hint)
