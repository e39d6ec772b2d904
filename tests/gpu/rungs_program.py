"""The program that the recovery experiments carry over a fault: `python3 -m tests.gpu.rungs_program MIB STEPS EVERY`.

One array of MIB MiB; a step adds 1 to all of it (cupy where it works; else our kernel `fill` writes the step), EVERY steps are a
commit (0: never). Prints "committed" after its first commit, and at the end one JSON line with the times of its steps and commits.
"""

import ctypes
import json
import sys
import time
from pathlib import Path
from typing import Any

import resilience

PTX = Path(__file__).parents[2] / "resilience" / "drill" / "faults.ptx"
BLOCK = 256


class Steps:
    """One step on the array, whatever kind of array it is."""

    def __init__(self, s: Any, array: Any) -> None:
        self.session, self.array = s, array
        is_cupy = hasattr(array, "device")
        self.address = ctypes.c_uint64(array.data.ptr if is_cupy else array.ptr)
        self.cupy = is_cupy and cupy_computes()
        if not self.cupy:
            self.kernel = s.gpu.load(PTX.read_bytes()).function("fill")

    def run(self, step: int) -> None:
        if self.cupy:
            self.array += 1.0
        else:
            count = self.array.size
            arguments = self.address, ctypes.c_int(count), ctypes.c_double(float(step))
            self.session.gpu.launch(self.kernel, -(-count // BLOCK), BLOCK, arguments)


def cupy_computes() -> bool:
    """cupy can build its kernels here (it needs NVRTC for that). Leaves the one for a step loaded, as a program does that means to
    be fast after a promotion."""
    try:
        import cupy

        one = cupy.zeros(1)
        one += 1.0
        return bool(one[0] == 1.0)
    except Exception:  # whatever a cupy without its libraries raises means the same
        return False


def main(mib: int, steps: int, every: int) -> None:
    with resilience.session(spill_seconds=0) as s:
        array = s.array("x", mib << 17, "float64")
        step_times: list[float] = []
        commit_times: list[float] = []
        work = Steps(s, array)
        begin = time.perf_counter()
        for step in s.steps(steps):
            work.run(step)
            if every and (step + 1) % every == 0:
                step_times.append(time.perf_counter() - begin)
                begin = time.perf_counter()
                s.commit(step)
                if not commit_times:
                    print("committed", flush=True)
                commit_times.append(time.perf_counter() - begin)
                begin = time.perf_counter()
        if s.gpu is not None:
            s.gpu.synchronize()
        step_times.append(time.perf_counter() - begin)
    print(json.dumps({"cupy": work.cupy, "between_commits_s": step_times, "commit_s": commit_times}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
