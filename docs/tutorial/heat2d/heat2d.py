"""The 2-D heat equation as a program that survives GPU faults: `heat2d.py NY NX STEPS EVERY [--log FILE] [--out FILE]`.

The kernels are in heat.cu beside this file (compiled: heat.ptx). Without a GPU numpy does the same steps, bit for bit.
Every EVERY steps the field is committed, together with the residual of the last step: sqrt(sum((new - old)^2)).

--log FILE   one line a commit: the step and the residual as a hexadecimal double. Its length is part of each commit. After
             a fault it is first cut back to that, so that it reads in the end as if nothing had happened.
--out FILE   at the end: SHA-256 of the field's bytes.
--pace MS    rest so long after each commit, to have time to watch.
"""

import argparse
import ctypes
import hashlib
import math
import os
import time
from pathlib import Path
from typing import Any

import resilience

K = 0.2
"""Heat conduction per step; the method is stable up to 0.25."""
BLOCK = 256
"""Threads a block."""


class GpuField:
    """The field on the GPU. Steps go to and fro between `u`, which is kept, and the scratch array `v`."""

    def __init__(self, s: Any, ny: int, nx: int) -> None:
        self.gpu = s.gpu
        self.u = s.array("u", (ny, nx), "float64")
        self.v = s.array("v", (ny, nx), "float64", kept=False)
        self.rows = s.array("rows", ny, "float64", kept=False)
        self.size = ctypes.c_int(ny), ctypes.c_int(nx)
        self.host_rows = (ctypes.c_double * ny)()
        module = self.gpu.load(Path(__file__).with_name("heat.ptx").read_bytes())
        self.init_kernel, self.step_kernel, self.residual_kernel = (
            module.function(f"heat_{name}") for name in ("init", "step", "residual")
        )
        self.now, self.before = self.u, self.v

    def launch(self, kernel: Any, threads: int, *arguments: Any) -> None:
        self.gpu.launch(kernel, -(-threads // BLOCK), BLOCK, arguments)

    def init(self) -> None:
        self.launch(self.init_kernel, self.u.size, self.u.argument, *self.size)

    def step(self) -> None:
        self.now, self.before = self.before, self.now
        arguments = self.now.argument, self.before.argument, *self.size, ctypes.c_double(K)
        self.launch(self.step_kernel, self.u.size, *arguments)

    def residual(self) -> float:
        arguments = self.rows.argument, self.now.argument, self.before.argument, *self.size
        self.launch(self.residual_kernel, self.rows.size, *arguments)
        self.rows.copy_to(self.host_rows)
        return root_of_sum(self.host_rows)

    def settle(self) -> None:
        """Bring the field into the kept array."""
        if self.now is not self.u:
            self.gpu.copy(self.u.ptr, self.v.ptr, self.u.nbytes)
            self.now, self.before = self.u, self.v

    def tobytes(self) -> bytes:
        return bytes(self.now.tobytes())


class HostField:
    """The same in numpy: the same sums in the same order."""

    def __init__(self, s: Any, ny: int, nx: int) -> None:
        self.u = s.array("u", (ny, nx), "float64")
        self.v = s.array("v", (ny, nx), "float64", kept=False)

    def init(self) -> None:
        ny, nx = self.u.shape
        self.u[ny // 3 : ny - ny // 3, nx // 3 : nx - nx // 3] = 50.0
        self.u[0] = 100.0

    def step(self) -> None:
        self.v[:] = now = self.u
        around = ((now[:-2, 1:-1] + now[2:, 1:-1]) + now[1:-1, :-2]) + now[1:-1, 2:]
        now[1:-1, 1:-1] = now[1:-1, 1:-1] + K * (around - 4.0 * now[1:-1, 1:-1])

    def residual(self) -> float:
        difference = self.u - self.v
        return root_of_sum((difference * difference).cumsum(axis=1)[:, -1].tolist())

    def settle(self) -> None:
        """It is there already."""

    def tobytes(self) -> bytes:
        return bytes(self.u.tobytes())


def root_of_sum(numbers: Any) -> float:
    """Added one after the other: sum() and numpy may choose another order."""
    total = 0.0
    for number in numbers:
        total = total + number
    return math.sqrt(total)


class Log:
    """One line a commit; `length` bytes of it are older than this process."""

    def __init__(self, path: Path | None, length: int) -> None:
        self.file = None
        self.length = length
        if path is not None:
            self.file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
            os.ftruncate(self.file, length)
            os.lseek(self.file, length, os.SEEK_SET)

    def add(self, step: int, residual: float) -> None:
        if self.file is not None:
            self.length += os.write(self.file, f"{step} {residual.hex()}\n".encode())


def main() -> None:
    parser = argparse.ArgumentParser(description="2-D heat equation on kept state")
    parser.add_argument("ny", type=int, help="rows")
    parser.add_argument("nx", type=int, help="columns")
    parser.add_argument("steps", type=int)
    parser.add_argument("every", type=int, help="steps from one commit to the next")
    parser.add_argument("--log", type=Path, help="residual log")
    parser.add_argument("--out", type=Path, help="checksum of the final field")
    parser.add_argument("--pace", type=float, default=0.0, metavar="MS", help="rest after each commit")
    parser.add_argument("--spill-seconds", type=float, help="shortest time between commits that go to disk too")
    options = parser.parse_args()
    if min(options.ny, options.nx) < 3 or min(options.steps, options.every) < 1:
        parser.error("NY and NX must be at least 3, STEPS and EVERY at least 1")

    with resilience.session(arrays="device", spill_seconds=options.spill_seconds) as s:
        field = (GpuField if s.gpu else HostField)(s, options.ny, options.nx)
        if s.fresh:
            field.init()
        steps = s.steps(options.steps)
        log = Log(options.log, s.values.get("log", 0))
        for step in steps:
            field.step()
            if (step + 1) % options.every == 0 or step + 1 == options.steps:
                residual = field.residual()
                field.settle()
                log.add(step, residual)
                s.commit(step, residual=residual, log=log.length)
                if options.pace:
                    time.sleep(options.pace / 1000)
        digest = hashlib.sha256(field.tobytes()).hexdigest()
        if options.out:
            options.out.write_text(f"{digest}\n")
        print(f"heat2d: {options.ny} x {options.nx}, {options.steps} steps, field {digest[:16]}")


if __name__ == "__main__":
    main()
