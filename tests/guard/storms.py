"""What neighbours wait while one client's kernel goes wild, measured in the virtual machine: `python -m tests.guard.storms [N]`.

N storms (100) of each size, with the guard off (the driver's own way: one round, then all its clients end) and on. Prints
JSON with where the figures come from; docs/measurements keeps a copy. They are of an emulated processor and of the shim,
whose cancel costs what storms.c says: they compare sizes, and with and without the guard, and tell nothing of a GPU.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from tests.guard import modules, vm
from tests.guard.kernels import ROOT, bootable, kernels

LIMIT = 1200.0


def main(words: list[str]) -> int:
    storms = int(words[0]) if words else 100
    kernel = next(kernel for kernel in kernels() if kernel.image)
    with tempfile.TemporaryDirectory(prefix="storms-") as directory:
        work = Path(directory)
        built = {"mps_guard": modules.build_module(kernel, work)}
        built["nvidia_uvm"] = modules.build_shim(kernel, work, "nvidia_uvm")
        archive = vm.archive(built, work, debug=False)
        transcript = vm.boot(bootable(kernel), archive, debug=False, more=f"storms={storms}", limit=LIMIT)
    outcome = transcript.outcomes.get("neighbours_stall")
    if outcome is None or not outcome.ok or transcript.trouble:
        print(transcript.text[-3000:], file=sys.stderr)
        return 1
    command, _ = vm.emulator()
    version = subprocess.run([command[0], "--version"], capture_output=True, text=True, check=True).stdout
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    result = {
        "what": "longest wait of one neighbour for the bottom half, per storm; and how long each storm lasted for its client",
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": commit.strip(),
        "emulator": version.splitlines()[-2 if "Copyright" in version else -1],
        "acceleration": "tcg, two processors, a thread for each",
        "driver": "kernel_module/tests/shim; one cancel costs push_us",
        "kernel": kernel.release,
        "host": f"{platform.machine()}, {os.cpu_count()} processors",
        "stalls": transcript.stalls,
    }
    print(json.dumps(result, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
