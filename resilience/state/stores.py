"""Where the arrays of a session live: in memory that a keeper holds too, or in the process's own.

A store holds arrays and copies; what is committed and when is the session's (resilience/state/session.py). Kept
arrays exist twice only when another process could take them over.
"""

import ctypes
from typing import Any, Protocol

from resilience.model.errors import GpuError, StateError
from resilience.state import areas, dtypes
from resilience.state.areas import Area, Memory
from resilience.state.arrays import DeviceArray, as_cupy
from resilience.state.driver import Gpu, GpuFault
from resilience.state.layout import DEVICE, STATE, ArraySpec, Layout, Placed
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


class HostStore:
    """numpy arrays. Nothing outlives the process."""

    def __init__(self) -> None:
        self._kept: dict[ArraySpec, Any] = {}

    def add(self, spec: ArraySpec, *, kept: bool) -> Any:
        import numpy as np

        array = np.zeros(spec.shape, dtypes.numpys(spec.dtype))
        if kept:
            self._kept[spec] = array
        return array

    def fill(self, spec: ArraySpec, content: bytearray) -> None:
        self._kept[spec].reshape(-1).view("uint8")[:] = content

    def synchronize(self) -> None:
        """Host memory is always whole."""

    def save(self) -> None:
        """Nobody can take it over."""

    def load(self) -> None:
        """There is no second region."""

    def read(self, *, work: bool = False) -> Content:
        return [(spec, bytearray(array.tobytes())) for spec, array in self._kept.items()]


class GpuStore:
    """Device memory of this process alone."""

    def __init__(self, gpu: Gpu, *, cupy: bool) -> None:
        self.gpu = gpu
        self._cupy = cupy
        self._plain: dict[ArraySpec, int] = {}

    def add(self, spec: ArraySpec, *, kept: bool) -> Any:
        size = max(spec.nbytes, 1)
        address = self.gpu.allocate(size)
        self.gpu.zero(address, size)
        if kept:
            self._plain[spec] = address
        return self.view(spec, address)

    def view(self, spec: ArraySpec, address: int) -> Any:
        self.gpu.synchronize_stream()  # the zeros: a program may write on a stream that nothing orders after ours
        array = DeviceArray(self.gpu, spec, address)
        return as_cupy(array) if self._cupy and not dtypes.TYPES[spec.dtype].bits else array

    def fill(self, spec: ArraySpec, content: bytearray) -> None:
        DeviceArray(self.gpu, spec, self._plain[spec]).copy_from(content)

    def synchronize(self) -> None:
        self.gpu.synchronize()

    def save(self) -> None:
        """Nobody can take it over."""

    def load(self) -> None:
        """There is no second region."""

    def read(self, *, work: bool = False) -> Content:
        return [(spec, self._host(spec, address)) for spec, address in self._plain.items()]

    def _host(self, spec: ArraySpec, address: int) -> bytearray:
        content = bytearray(spec.nbytes)
        buffer = (ctypes.c_char * spec.nbytes).from_buffer(content)
        self.gpu.download(ctypes.addressof(buffer), address, spec.nbytes)
        return content


class KeptStore:
    """Kept arrays in areas, whose memory is handed to a keeper; scratch arrays as in a GpuStore."""

    def __init__(self, gpu: Gpu, *, cupy: bool) -> None:
        self._own = GpuStore(gpu, cupy=cupy)
        self._memory: dict[str, Memory] = {DEVICE: DeviceMemory(gpu)}
        self._areas: list[Area] = []
        self._arrays: dict[str, Placed] = {}

    # ------------------------------------------------------------ what another process made
    def take_in(self, layout: Layout, fds: list[int]) -> None:
        """Map what another process made; `fds` are those of the areas."""
        rest = iter(fds)
        self._areas = [areas.taken_in(self._memory[area.where], area, rest) for area in layout.areas]
        self._arrays = {array.spec.name: array for array in layout.arrays}

    def stand_in(self, layout: Layout) -> None:
        """Arrays at the addresses that another process has them at, of memory that is this one's alone."""
        self._areas = [areas.stand_in(self._memory[area.where], area) for area in layout.areas]
        self._arrays = {array.spec.name: array for array in layout.arrays}

    def give_way(self, layout: Layout, fds: list[int]) -> None:
        """The memory of the other process in place of the stand-ins. Raises StateError when it has other arrays."""
        there = {array.spec.name: array for array in layout.arrays}
        if there != self._arrays or [area.row.used for area in self._areas] != [area.used for area in layout.areas]:
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
        return self._own.view(spec, self._areas[array.area].work.address + array.at)

    def _place(self, spec: ArraySpec) -> Placed:
        number = next((n for n, area in enumerate(self._areas) if (area.where, area.kind) == (DEVICE, STATE)), None)
        if number is None:
            memory = self._memory[DEVICE]
            self._areas.append(Area(DEVICE, STATE, memory, [memory.new()]))
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
