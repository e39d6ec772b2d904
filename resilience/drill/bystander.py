"""A program of the drill that must survive: `bystander.py --begun FILE --enough FILE --out FILE [--plain]`.

It adds to a vector on the GPU, step by step, until the file ENOUGH is there, and writes `steps SHA-256` to OUT: the vector's
bytes follow from the number of its steps alone, so that whoever knows the number knows them (`expected`). With a session the
vector is its state; --plain makes a program that keeps nothing and, started again, begins anew.
"""

import argparse
import ctypes
import hashlib
import struct
import time
from ctypes import c_double, c_int, c_uint64
from pathlib import Path
from typing import Any

import resilience
from resilience.state.driver import CudaGpu

N = 1 << 18
"""Numbers in the vector: 2 MiB."""
ADD = 0.1
"""What a step adds: not exact in binary, so the bytes tell how often it was added and in which order."""
EVERY = 10
"""Steps from one commit to the next."""
REST = 0.002
"""Seconds after each step: the drill is no load on the node."""
LONGEST = 10_000_000
"""Steps at most."""
_BLOCK = 256


def expected(steps: int) -> str:
    """SHA-256 of the vector after so many steps."""
    value = 0.0
    for _ in range(steps):
        value += ADD
    return hashlib.sha256(struct.pack("<d", value) * N).hexdigest()


class Work:
    """The kernels: `y` becomes y + ADD * 1 in each step."""

    def __init__(self, gpu: CudaGpu, y: int) -> None:
        self.gpu = gpu
        self.module = gpu.load(Path(__file__).with_name("faults.ptx").read_bytes())
        self.ones, self.y = c_uint64(gpu.allocate(8 * N)), c_uint64(y)
        self.run("fill", self.ones, c_int(N), c_double(1.0))
        gpu.synchronize()

    def run(self, kernel: str, *arguments: Any) -> None:
        self.gpu.launch(self.module.function(kernel), N // _BLOCK, _BLOCK, arguments)

    def clear(self) -> None:
        self.run("fill", self.y, c_int(N), c_double(0.0))

    def step(self) -> None:
        self.run("axpy", c_int(N), c_double(ADD), self.ones, self.y)
        self.gpu.synchronize()
        time.sleep(REST)

    def digest(self) -> str:
        host = (c_double * N)()
        self.gpu.synchronize()
        self.gpu.download(ctypes.addressof(host), self.y.value, ctypes.sizeof(host))
        return hashlib.sha256(host).hexdigest()


def keeping(options: argparse.Namespace) -> tuple[int, str]:
    """With a session: steps made, and the digest."""
    with resilience.session(arrays="device") as s:
        y = s.array("y", N)
        if s.gpu is None:
            raise SystemExit("drill: no GPU")
        work = Work(s.gpu, y.ptr)
        for step in s.steps(LONGEST):
            work.step()
            if (step + 1) % EVERY == 0:
                s.commit(step)
                options.begun.touch()
                if options.enough.exists():
                    break
        return s.step + 1, work.digest()


def plain(options: argparse.Namespace) -> tuple[int, str]:
    """Without one."""
    gpu = CudaGpu()
    work = Work(gpu, gpu.allocate(8 * N))
    work.clear()
    for step in range(LONGEST):
        work.step()
        if (step + 1) % EVERY == 0:
            options.begun.touch()
            if options.enough.exists():
                break
    return step + 1, work.digest()


def main() -> None:
    parser = argparse.ArgumentParser(description="adds up until it is enough")
    parser.add_argument("--begun", type=Path, required=True, help="made after the first steps")
    parser.add_argument("--enough", type=Path, required=True, help="ends the work")
    parser.add_argument("--out", type=Path, required=True, help="steps and SHA-256 at the end")
    parser.add_argument("--plain", action="store_true", help="without a session")
    options = parser.parse_args()
    steps, digest = (plain if options.plain else keeping)(options)
    options.out.write_text(f"{steps} {digest}\n", encoding="ascii")
    print(f"drill: {steps} steps")


if __name__ == "__main__":
    main()
