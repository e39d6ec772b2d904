"""A program that makes a GPU fault: `culprit.py KIND [--after S] [--when FILE] [--once FILE] [--session] [--clock DIR]`.

KIND is one of the kernels of faults.cu that go wrong. Until the time has passed, or FILE is there, it does honest work,
so that it is a busy client of its MPS server. It says `culprit: ready` when it has begun and `culprit: KIND` before the
fault; the error ends it with exit status 1. KIND `none` ends well.

--session    run inside a session: the fault is reported to the supervisor
--clock DIR  add the moment before the launch, on the monotonic clock, as a line to DIR/faults.<uid>
--once FILE  fault only when FILE is not there yet, and make it: a second try ends well after the same time
"""

import argparse
import contextlib
import ctypes
import os
import sys
import time
from ctypes import c_double, c_int, c_uint64
from pathlib import Path
from typing import Any

import resilience
from resilience.model.errors import GpuError
from resilience.state.driver import CudaGpu

NOWHERE = 0xDEAD0000
"""An address that nothing is mapped at: below all device memory."""
N = 1024


class Culprit:
    def __init__(self, gpu: CudaGpu) -> None:
        self.gpu = gpu
        self.module = gpu.load(Path(__file__).with_name("faults.ptx").read_bytes())
        self.x = c_uint64(gpu.allocate(8 * N))
        self.y = c_uint64(gpu.allocate(8 * N))
        self.run("fill", N, self.x, c_int(N), c_double(1.0))
        self.run("fill", N, self.y, c_int(N), c_double(0.0))
        gpu.synchronize()

    def run(self, kernel: str, threads: int, *arguments: Any) -> None:
        block = min(threads, 256)
        self.gpu.launch(self.module.function(kernel), -(-threads // block), block, arguments)

    def work(self) -> None:
        self.run("axpy", N, c_int(N), c_double(0.5), self.x, self.y)
        self.gpu.synchronize()

    def fault(self, kind: str) -> None:
        nowhere = c_uint64(NOWHERE)
        match kind:
            case "illegal-address":
                self.run("read_address", 1, self.x, nowhere)
            case "illegal-write":
                self.run("write_address", 1, nowhere, c_double(1.0))
            case "misaligned":
                self.run("misaligned", 1, self.x)
            case "illegal-instruction":
                self.run("illegal_instruction", 1, self.x)
            case "trap":
                self.run("trap", 1)
            case "assert":
                self.run("assert_positive", 1, c_int(-1))
            case "hang":
                self.run("spin", 1, self.y)
        self.gpu.synchronize()


def _go_on() -> None:
    """A program without a session never stands by."""


KINDS = ("illegal-address", "illegal-write", "misaligned", "illegal-instruction", "trap", "assert", "hang", "none")


def main() -> None:
    parser = argparse.ArgumentParser(description="makes a GPU fault")
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--after", type=float, default=0.0, metavar="S", help="seconds of honest work first")
    parser.add_argument("--when", type=Path, metavar="FILE", help="honest work until FILE is there")
    parser.add_argument("--once", type=Path, metavar="FILE", help="end well when FILE is there already")
    parser.add_argument("--session", action="store_true")
    parser.add_argument("--clock", type=Path, metavar="DIR", help="write down when the fault was launched")
    options = parser.parse_args()

    with contextlib.ExitStack() as stack:
        gpu: CudaGpu | None
        if options.session:
            session = stack.enter_context(resilience.session(arrays="device"))
            session.array("state", N)
            gpu, wait = session.gpu, session.wait
        else:
            gpu, wait = CudaGpu(), _go_on
        if gpu is None:
            sys.exit("culprit: no GPU")
        culprit = Culprit(gpu)
        wait()
        print("culprit: ready", flush=True)
        end = time.monotonic() + options.after
        while time.monotonic() < end or (options.when and not options.when.exists()):
            culprit.work()
            time.sleep(0.002)
        if options.once and options.once.exists():
            print("culprit: not again")
            return
        if options.once:
            os.close(os.open(options.once, os.O_CREAT | os.O_WRONLY, 0o644))
        print(f"culprit: {options.kind}", flush=True)
        if options.kind == "hang":
            # What spins until *stop is not 0 must find a 0 there.
            gpu.zero(culprit.y.value, ctypes.sizeof(ctypes.c_int))
        if options.clock:
            with (options.clock / f"faults.{os.getuid()}").open("a") as file:
                file.write(f"{time.monotonic():.9f}\n")
        culprit.fault(options.kind)
        print("culprit: done")


if __name__ == "__main__":
    try:
        main()
    except GpuError as error:
        sys.exit(f"culprit: {error}")
