"""A puppet that works with cupy on memory of the raw driver: `python3 -m tests.gpu.cupy_program FD`."""

import importlib.util
import sys
import time
from typing import Any

from tests.gpu.puppet import BLOCK, Puppet, main

SOURCE = r"""
extern "C" __global__ void steps(double *x, long long n, double a) {
    long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (i < n) x[i] = a * x[i] + i;
}
"""


class CupyPuppet(Puppet):
    def do_cupy(self, fds: list[int]) -> tuple[dict[str, Any], list[int]]:
        """Import and see a GPU, with the time; then what `start` answers."""
        if importlib.util.find_spec("cupy") is None:
            return {"code": 0, "missing": "cupy is not installed"}, []
        begin = time.monotonic()
        import cupy

        if not cupy.cuda.is_available():
            return {"code": 0, "missing": f"cupy {cupy.__version__} sees no GPU"}, []
        cupy.cuda.Device(0).use()
        imported = time.monotonic() - begin
        return {**self.do_start([])[0], "import_s": imported, "cupy": cupy.__version__}, []

    def do_kernel(self, fds: list[int], address: int, size: int) -> tuple[dict[str, Any], list[int]]:
        """An array over that memory: filled by cupy, x = 2 x + i by a raw kernel, in a stream of cupy's own."""
        import cupy

        count = size // 8
        memory = cupy.cuda.UnownedMemory(address, size, self)
        array = cupy.ndarray((count,), cupy.float64, cupy.cuda.MemoryPointer(memory, 0))
        begin = time.monotonic()
        with cupy.cuda.Stream(non_blocking=True) as stream:
            array.fill(1.0)
            kernel = cupy.RawKernel(SOURCE, "steps")
            kernel((-(-count // BLOCK),), (BLOCK,), (array, cupy.int64(count), cupy.float64(2.0)))
            stream.synchronize()
        return {"code": 0, "same_pointer": int(array.data.ptr) == address, "seconds": time.monotonic() - begin}, []


if __name__ == "__main__":
    main(CupyPuppet(int(sys.argv[1])), sys.argv[2:])
