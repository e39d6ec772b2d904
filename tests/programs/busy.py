"""A client of an MPS server that knows nothing of mpsr: `busy.py busy|stubborn|idle|crash UP [GO]`.

It makes a context, starts a kernel without an end (busy, crash), and makes the file UP, which then has its pid. crash: once GO is
there it reads a dead pointer on the host. stubborn: as busy, and on SIGTERM it writes the moment (CLOCK_MONOTONIC) to UP.terms and
goes on. Otherwise it sleeps until a signal ends it.
"""

import ctypes
import os
import signal
import sys
import time
from pathlib import Path

from tests.programs.plain import Cuda


def main(how: str, up: Path, go: Path) -> None:
    cuda = Cuda()
    if how != "idle":
        flag = cuda.memory(4)
        cuda("cuMemsetD32_v2", flag, 0, 1)
        cuda.run("spin", 1, flag)
    if how == "stubborn":
        signal.signal(signal.SIGTERM, lambda *_: note(up.with_suffix(".terms")))
    up.with_suffix(".new").write_text(str(os.getpid()))
    up.with_suffix(".new").rename(up)
    while how != "crash" or not go.exists():
        time.sleep(0.01)
    ctypes.string_at(0)


def note(path: Path) -> None:
    with path.open("a") as file:
        file.write(f"{time.monotonic()}\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3] if len(sys.argv) > 3 else os.devnull + "/none"))
