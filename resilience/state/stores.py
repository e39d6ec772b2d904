"""Where the arrays of a session live: on a GPU, kept by a keeper or not, or in host memory as numpy arrays.

A store holds arrays and copies; what is committed and when is the session's (resilience/state/session.py). Kept
arrays of a GpuStore exist twice only when somebody could take them over; without a keeper they are plain device
memory.
"""

import ctypes
from typing import Any, Protocol

from resilience.model.errors import StateError
from resilience.state import memory
from resilience.state.arrays import DeviceArray, as_cupy
from resilience.state.driver import Gpu
from resilience.state.layout import MAX_ARRAYS, ArraySpec, Kept
from resilience.state.memory import Pair, StandIns

_WARM = 1 << 21
"""Bytes of each array that a standby reads once."""


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

    def read(self) -> list[tuple[ArraySpec, bytearray]]:
        """The committed bytes of every kept array."""


class HostStore:
    """numpy arrays. Nothing outlives the process."""

    def __init__(self) -> None:
        self._kept: dict[ArraySpec, Any] = {}

    def add(self, spec: ArraySpec, *, kept: bool) -> Any:
        import numpy as np

        array = np.zeros(spec.shape, spec.dtype)
        if kept:
            self._kept[spec] = array
        return array

    def fill(self, spec: ArraySpec, content: bytearray) -> None:
        memoryview(self._kept[spec]).cast("B")[:] = content

    def synchronize(self) -> None:
        """Host memory is always whole."""

    def save(self) -> None:
        """Nobody can take it over."""

    def load(self) -> None:
        """There is no second region."""

    def read(self) -> list[tuple[ArraySpec, bytearray]]:
        return [(spec, bytearray(array.tobytes())) for spec, array in self._kept.items()]


class GpuStore:
    """Device memory. With `shared`, kept arrays are pairs of exportable regions."""

    def __init__(self, gpu: Gpu, *, shared: bool, cupy: bool) -> None:
        self.gpu = gpu
        self._shared = shared
        self._cupy = cupy
        self.pairs: dict[str, Pair] = {}
        self._stand_ins: StandIns | None = None
        self._plain: dict[ArraySpec, int] = {}

    def take_in(self, arrays: list[Kept], fds: list[int]) -> None:
        """Map what another process made; `fds` are work and kept of each array in turn."""
        for index, array in enumerate(arrays):
            self.pairs[array.spec.name] = memory.take_in(self.gpu, array, (fds[2 * index], fds[2 * index + 1]))

    def stand_in(self, arrays: list[Kept]) -> None:
        """Arrays at the addresses that another process has them at, of memory that is this one's alone."""
        self._stand_ins = StandIns(self.gpu, arrays)
        self.pairs = {pair.spec.name: pair for pair in self._stand_ins.pairs}

    def give_way(self, arrays: list[Kept], fds: list[int]) -> None:
        """The memory of the other process in place of the stand-ins. Raises StateError when it has other arrays."""
        assert self._stand_ins is not None
        if {a.spec.name: (a.spec, a.region) for a in arrays} != {
            name: (pair.spec, pair.work.size) for name, pair in self.pairs.items()
        }:
            raise StateError("kept state", "has other arrays than this standby", ", ".join(str(a.spec) for a in arrays))
        by_name = {a.spec.name: (fds[2 * index], fds[2 * index + 1]) for index, a in enumerate(arrays)}
        self.pairs = self._stand_ins.give_way(by_name)
        self._stand_ins = None

    def add(self, spec: ArraySpec, *, kept: bool) -> Any:
        if kept and spec.name in self.pairs:
            address = self.pairs[spec.name].work.address
        elif kept and self._shared:
            if len(self.pairs) >= MAX_ARRAYS:
                raise StateError(f"array {spec.name}", "more kept arrays than a task may have", MAX_ARRAYS)
            self.pairs[spec.name] = memory.create(self.gpu, spec)
            address = self.pairs[spec.name].work.address
        else:
            address = self.gpu.allocate(spec.nbytes)
            self.gpu.zero(address, spec.nbytes)
            if kept:
                self._plain[spec] = address
        self.gpu.synchronize_stream()  # the zeros: a program may write on a stream that nothing orders after ours
        array = DeviceArray(self.gpu, spec, address)
        return as_cupy(array) if self._cupy else array

    def fill(self, spec: ArraySpec, content: bytearray) -> None:
        address = self.pairs[spec.name].work.address if self._shared else self._plain[spec]
        DeviceArray(self.gpu, spec, address).copy_from(content)

    def synchronize(self) -> None:
        self.gpu.synchronize()

    def save(self) -> None:
        for pair in self.pairs.values():
            pair.save(self.gpu)
        self.gpu.synchronize_stream()

    def load(self) -> None:
        for pair in self.pairs.values():
            pair.load(self.gpu)
        self.gpu.synchronize_stream()

    def warm(self) -> None:
        """Do once, to no effect, what a take-over does: first copies are slow, and their code is loaded late."""
        scratch = self.gpu.allocate(_WARM)
        for pair in self.pairs.values():
            self.gpu.copy(scratch, pair.work.address, min(pair.spec.nbytes, _WARM))
        self.gpu.synchronize_stream()
        self.gpu.free(scratch)

    def read(self, *, work: bool = False) -> list[tuple[ArraySpec, bytearray]]:
        """`work`: the other region, which is the committed one while a commit is COPYING."""
        rows = [(pair.spec, (pair.work if work else pair.kept).address) for pair in self.pairs.values()]
        return [(spec, self._host(spec, address)) for spec, address in (*rows, *self._plain.items())]

    def _host(self, spec: ArraySpec, address: int) -> bytearray:
        content = bytearray(spec.nbytes)
        buffer = (ctypes.c_char * spec.nbytes).from_buffer(content)
        self.gpu.download(ctypes.addressof(buffer), address, spec.nbytes)
        return content
