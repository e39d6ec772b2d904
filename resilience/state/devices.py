"""The GPUs of a session: the one that it was opened on, and others that its process sees, each opened with its first array.

All calls of another GPU are made in that GPU's context, which is current for the call only: the program's own stays current
in its thread. Under MPS they are clients of the same server, so a fault on one is a fault of all.
"""

from collections.abc import Iterator, Sequence
from ctypes import byref, c_int, c_void_p
from typing import Any

from resilience.model.errors import GpuError, StateError
from resilience.state import layout
from resilience.state.driver import CudaGpu, CudaModule, GpuFault


class OtherGpu(CudaGpu):
    """A GPU beside the session's, as `Gpu` is one. Memory that outlives the process needs no context."""

    def __init__(self, first: CudaGpu, ordinal: int) -> None:
        with first.current():
            super().__init__(ordinal)

    @property
    def total(self) -> int:
        with self.current():
            return super().total

    def allocate(self, size: int) -> int:
        with self.current():
            return super().allocate(size)

    def free(self, address: int) -> None:
        with self.current():
            super().free(address)

    def zero(self, address: int, size: int) -> None:
        with self.current():
            super().zero(address, size)

    def copy(self, target: int, source: int, size: int) -> None:
        with self.current():
            super().copy(target, source, size)

    def upload(self, target: int, source: int, size: int) -> None:
        with self.current():
            super().upload(target, source, size)

    def download(self, target: int, source: int, size: int) -> None:
        with self.current():
            super().download(target, source, size)

    def synchronize(self) -> None:
        with self.current():
            super().synchronize()

    def synchronize_stream(self) -> None:
        with self.current():
            super().synchronize_stream()

    def load(self, image: bytes) -> CudaModule:
        with self.current():
            return super().load(image)

    def launch(self, function: c_void_p, grid: int, block: int, arguments: Sequence[Any]) -> None:
        with self.current():
            super().launch(function, grid, block, arguments)

    def fault(self) -> GpuFault | None:
        with self.current():
            return super().fault()


class Devices:
    """`first` is the session's GPU."""

    def __init__(self, first: CudaGpu) -> None:
        self._gpus = {first.ordinal: first}
        self._first = first

    def __iter__(self) -> Iterator[CudaGpu]:
        """Those that are open."""
        return iter(tuple(self._gpus.values()))

    def at(self, where: str) -> CudaGpu:
        """The GPU of an array. Raises StateError when the process does not see it, GpuError when it cannot be used."""
        ordinal = layout.ordinal(where)
        assert ordinal is not None
        if ordinal not in self._gpus:
            if ordinal >= (seen := self._seen()):
                hint = "a task sees the GPUs that Slurm gave it: --gpus-per-task, --gpu-bind"
                raise StateError(f"device {ordinal}", "is no GPU that this process sees", f"{seen} of them", hint=hint)
            self._gpus[ordinal] = OtherGpu(self._first, ordinal)
        return self._gpus[ordinal]

    def fault(self) -> GpuFault | None:
        """The fault that has ended a context, asked without waiting for work in flight; None when all live."""
        for gpu in self:
            try:
                if (found := gpu.fault()) is not None:
                    return found
            except GpuFault as found:
                return found
            except GpuError:
                continue
        return None

    def _seen(self) -> int:
        count = c_int()
        self._first.driver("cuDeviceGetCount", byref(count))
        return count.value
