"""Where the arrays of a session live: in memory that a keeper holds too, or in the process's own; on the GPU or the host.

A store holds arrays and copies; what is committed and when is the session's (resilience/state/session.py). Kept
arrays exist twice only when another process could take them over.
"""

import ctypes
from typing import Any, Protocol

from resilience.model.errors import GpuError, StateError
from resilience.state import areas, layout, views
from resilience.state.areas import Area, Memory
from resilience.state.driver import Gpu, GpuFault
from resilience.state.host_memory import HostMemory
from resilience.state.layout import DEVICE, HOST, STATE, ArraySpec, Layout, Placed
from resilience.state.memory import DeviceMemory

Content = list[tuple[ArraySpec, bytearray | memoryview]]


class Store(Protocol):
    def add(self, spec: ArraySpec, *, kept: bool) -> Any:
        """A new zero-filled array as the program sees it, or the taken-over one of that name."""

    def fill(self, spec: ArraySpec, content: bytearray) -> None:
        """Host bytes into a kept array."""

    def synchronize(self) -> None:
        """Wait for the program's work; a fault shows here."""

    def save(self) -> None:
        """Every kept array's `work` to `kept`, and wait."""

    def load(self) -> None:
        """Every kept array's `kept` to `work`, and wait."""

    def read(self, *, work: bool = False) -> Content:
        """The committed bytes of every kept array; `work`: while the commit is COPYING."""


class OwnStore:
    """Memory of this process alone. Without a GPU all of it is the host's."""

    def __init__(self, gpu: Gpu | None, *, cupy: bool) -> None:
        self.gpu = gpu
        self._cupy = cupy
        self._device: dict[ArraySpec, int] = {}
        self._host: dict[ArraySpec, Any] = {}

    def add(self, spec: ArraySpec, *, kept: bool) -> Any:
        size = max(spec.nbytes, 1)
        if spec.where == HOST or self.gpu is None:
            buffer = views.zeros(size)
            if kept:
                self._host[spec] = buffer
            return views.on_host(spec, ctypes.addressof(buffer), buffer)
        address = self.gpu.allocate(size)
        self.gpu.zero(address, size)
        if kept:
            self._device[spec] = address
        return self.on_device(spec, address)

    def on_device(self, spec: ArraySpec, address: int) -> Any:
        assert self.gpu is not None
        self.gpu.synchronize_stream()  # the zeros: a program may write on a stream that nothing orders after ours
        return views.on_device(self.gpu, spec, address, cupy=self._cupy)

    def fill(self, spec: ArraySpec, content: bytearray) -> None:
        if spec in self._host:
            ctypes.memmove(self._host[spec], bytes(content), spec.nbytes)
        else:
            views.on_device(self.gpu, spec, self._device[spec], cupy=False).copy_from(content)

    def synchronize(self) -> None:
        """Host memory is always whole."""
        if self.gpu:
            self.gpu.synchronize()

    def save(self) -> None:
        """Nobody can take it over."""

    def load(self) -> None:
        """There is no second span."""

    def read(self, *, work: bool = False) -> Content:
        found: Content = []
        for spec, address in self._device.items():
            content = bytearray(spec.nbytes)
            views.on_device(self.gpu, spec, address, cupy=False).copy_to(content)
            found.append((spec, content))
        return found + [(spec, bytearray(buffer)[: spec.nbytes]) for spec, buffer in self._host.items()]


class KeptStore:
    """Kept arrays in areas, whose memory is handed to a keeper; scratch arrays as in an OwnStore."""

    def __init__(self, gpu: Gpu | None, *, cupy: bool) -> None:
        self._own = OwnStore(gpu, cupy=cupy)
        self._memory: dict[str, Memory] = {HOST: HostMemory()} | ({DEVICE: DeviceMemory(gpu)} if gpu else {})
        self._areas: list[Area] = []
        self._arrays: dict[str, Placed] = {}

    # ------------------------------------------------------------ what another process made
    def take_in(self, layout: Layout, fds: list[int]) -> None:
        """Map what another process made; `fds` are those of the areas. Raises StateError."""
        rest = iter(fds)
        self._areas = [areas.taken_in(self._of(area), area, rest) for area in layout.areas]
        self._arrays = {array.spec.name: array for array in layout.arrays}

    def stand_in(self, layout: Layout) -> None:
        """Arrays at the addresses that another process has them at, of memory that is this one's alone."""
        self._areas = [areas.stand_in(self._of(area), area) for area in layout.areas]
        self._arrays = {array.spec.name: array for array in layout.arrays}

    def _of(self, area: layout.Area) -> Memory:
        if area.where not in self._memory:
            raise StateError("kept state", "is on a GPU, and this process has none", f"{area.used} bytes")
        return self._memory[area.where]

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

    def warm(self) -> None:
        for memory in self._memory.values():
            memory.warm([area.work for area in self._areas if area.memory is memory])

    # ------------------------------------------------------------ arrays
    def add(self, spec: ArraySpec, *, kept: bool) -> Any:
        if not kept:
            return self._own.add(spec, kept=False)
        if spec.name not in self._arrays:
            self._arrays[spec.name] = self._place(spec)
        array = self._arrays[spec.name]
        address = self._areas[array.area].work.address + array.at
        return views.on_host(spec, address) if spec.where == HOST else self._own.on_device(spec, address)

    def _place(self, spec: ArraySpec) -> Placed:
        number = next((n for n, area in enumerate(self._areas) if (area.where, area.kind) == (spec.where, STATE)), None)
        if number is None:
            memory = self._memory[spec.where]
            self._areas.append(Area(spec.where, STATE, memory, [memory.new()]))
            number = len(self._areas) - 1
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

    def save(self) -> None:
        for area in self._areas:
            area.save()
        self._wait()

    def load(self) -> None:
        for area in self._areas:
            area.load()
        self._wait()

    def _wait(self) -> None:
        for memory in self._memory.values():
            memory.wait()

    def read(self, *, work: bool = False) -> Content:
        content = [memoryview(area.committed(work=work)) for area in self._areas]
        return [
            (array.spec, content[array.area][array.at : array.at + array.spec.nbytes])
            for array in self._arrays.values()
        ]


def _no_room(error: GpuError, what: str, size: int) -> GpuError:
    hint = f"{what} needs {2 * size >> 20} MiB of device memory: a kept array is there twice"
    return GpuError(error.call, error.code, error.observed, hint=hint)
