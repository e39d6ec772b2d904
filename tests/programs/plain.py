"""A GPU program that knows nothing of mpsr: `plain.py STEPS [--out FILE] [--pace MS] [--exit N]`.

It talks to libcuda.so.1 by itself, as any program might, and adds to a vector STEPS times. Its result goes to FILE and
to standard output only at the end; a CUDA error is one line on stderr and exit status 1. Tests run it under `--mps` to
see that a program that was never told of us is relaunched and ends as its user expects.
"""

import argparse
import ctypes
import sys
import time
from ctypes import byref, c_double, c_int, c_size_t, c_uint64, c_void_p
from pathlib import Path
from typing import Any

N = 4096
BLOCK = 256


class Cuda:
    """The driver, with one device's context and the kernels of faults.cu."""

    def __init__(self) -> None:
        self.library = ctypes.CDLL("libcuda.so.1")
        device, context, self.module = c_int(), c_void_p(), c_void_p()
        self("cuInit", 0)
        self("cuDeviceGet", byref(device), 0)
        self("cuDevicePrimaryCtxRetain", byref(context), device)
        self("cuCtxSetCurrent", context)
        image = (Path(__file__).parents[2] / "resilience" / "drill" / "faults.ptx").read_bytes()
        self("cuModuleLoadData", byref(self.module), image + b"\0")

    def __call__(self, name: str, *arguments: Any) -> None:
        code = getattr(self.library, name)(*arguments)
        if code:
            sys.exit(f"plain: {name} failed with CUDA error {code}")

    def memory(self, size: int) -> c_uint64:
        address = c_uint64()
        self("cuMemAlloc_v2", byref(address), c_size_t(size))
        return address

    def run(self, name: str, threads: int, *arguments: Any) -> None:
        function = c_void_p()
        self("cuModuleGetFunction", byref(function), self.module, name.encode())
        pointers = (c_void_p * len(arguments))(*(ctypes.addressof(argument) for argument in arguments))
        grid = -(-threads // BLOCK)
        self("cuLaunchKernel", function, grid, 1, 1, BLOCK, 1, 1, 0, None, pointers, None)


def main() -> None:
    parser = argparse.ArgumentParser(description="adds a vector up on the GPU")
    parser.add_argument("steps", type=int)
    parser.add_argument("--out", type=Path, help="result, written at the end")
    parser.add_argument("--pace", type=float, default=0.0, metavar="MS", help="rest after each step")
    parser.add_argument("--marks", type=Path, help="when each start made its first step: CLOCK_MONOTONIC in seconds")
    parser.add_argument("--exit", type=int, default=0, metavar="N", help="exit status when all went well")
    options = parser.parse_args()

    cuda = Cuda()
    x, y = cuda.memory(8 * N), cuda.memory(8 * N)
    cuda.run("fill", N, x, c_int(N), c_double(1.0))
    cuda.run("fill", N, y, c_int(N), c_double(0.0))
    for step in range(options.steps):
        cuda.run("axpy", N, c_int(N), c_double(0.5), x, y)
        cuda("cuCtxSynchronize")
        if step == 0 and options.marks:
            with options.marks.open("a", encoding="ascii") as marks:
                marks.write(f"{time.monotonic():.6f}\n")
        if options.pace:
            time.sleep(options.pace / 1000)
    host = (c_double * N)()
    cuda("cuMemcpyDtoH_v2", host, y, c_size_t(8 * N))
    text = f"plain: {options.steps} steps, sum {sum(host)}"
    if options.out:
        options.out.write_text(text + "\n")
    print(text)
    sys.exit(options.exit)


if __name__ == "__main__":
    main()
