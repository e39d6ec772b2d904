"""Is the GPU well: one process outside MPS starts, fills memory and reads it back right.

`python3 -m tests.gpu.health` says so in one JSON line.
"""

import ctypes as c
import json
import os
import subprocess
import sys
from typing import Any

from tests.gpu.puppet import BLOCK, PTX
from tests.gpu.raw import Driver
from tests.gpu.strings import ROOT

WORDS = 4096
SECONDS = 20.0
MASK = (1 << 64) - 1


def word(index: int, seed: int) -> int:
    """The word that fill_pattern writes at an index (resilience/drill/faults.cu)."""
    value = (seed + (index + 1) * 0x9E3779B97F4A7C15) & MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


def look() -> dict[str, Any]:
    """In this process; the first call that failed, or `well`."""
    try:
        driver = Driver()
    except OSError as error:
        return {"well": False, "why": str(error)}
    calls = driver.start()
    if not any(each.code for each in calls.values()):
        calls["cuModuleLoadData"] = driver.load(PTX.read_bytes() + b"\0")
        calls["cuMemAlloc"] = made = driver.alloc(8 * WORDS)
        arguments = c.c_ulonglong(made.value), c.c_longlong(WORDS), c.c_ulonglong(3)
        calls["launch"] = driver.launch("fill_pattern", WORDS // BLOCK, BLOCK, *arguments)
        calls["sync"] = driver.sync()
        calls["read"], data = driver.read(made.value, 8 * WORDS)
        if not any(each.code for each in calls.values()):
            right = b"".join(word(index, 3).to_bytes(8, "little") for index in range(WORDS))
            return {"well": data == right, "why": "" if data == right else "wrong bytes"}
    name, bad = next((name, each) for name, each in calls.items() if each.code)
    return {"well": False, "why": f"{name}: CUDA error {bad.code}"}


def probe(nowhere: str, patience: float) -> str:
    """Why a fresh process cannot use the GPU, empty where it can; `nowhere`: a pipe directory that does not exist."""
    environ = {**os.environ, "CUDA_MPS_PIPE_DIRECTORY": nowhere}
    process = subprocess.Popen([sys.executable, "-m", "tests.gpu.health"], env=environ, cwd=ROOT, stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip
    try:
        out, err = process.communicate(timeout=SECONDS * patience)
        told = json.loads(out.splitlines()[-1])
        return "" if told["well"] else str(told["why"])
    except subprocess.TimeoutExpired:
        process.kill()  # not waited for: the driver may not let it go
        return f"no answer in {SECONDS * patience:.0f} s"
    except (ValueError, IndexError):
        return f"ended with status {process.returncode}: {err[-300:]}"


if __name__ == "__main__":
    print(json.dumps(look()))
