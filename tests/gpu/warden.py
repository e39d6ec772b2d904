"""Stands by a hardware run: holds NVML open, so that the GPU stays initialised, and ends what the run leaves if it is killed.

    python3 -m tests.gpu.warden FOLDER        # standard input: a pipe from the run, which ends with it, however it ends

Lives in a session of its own, so that what kills the run's group does not kill it. FOLDER holds everything that the run starts.
"""

import shutil
import sys
import threading
import time
from pathlib import Path

from tests.gpu.leftovers import end_leftovers, leftovers
from tests.gpu.nvml import Nvml

END_SECONDS = 10.0


def main(folder: Path) -> None:
    threading.Thread(target=Nvml, daemon=True).start()  # it may hang, or be missing: then nothing is held
    sys.stdin.buffer.read()
    end = time.monotonic() + END_SECONDS
    while leftovers(folder) and time.monotonic() < end:
        end_leftovers(folder)
        time.sleep(0.02)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
