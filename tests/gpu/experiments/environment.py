"""What machine is this: GPU, driver, kernel, MPS programs, what root may read; does MPS serve a client at all (E6, E18, E21, E22)?

What the rest stands on comes first: a process outside MPS, a server, a client of it. nvidia-smi, which may hang, is asked at the end.
"""

import os
import platform
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from tests.gpu.faults import heard
from tests.gpu.findings import ExperimentFindings
from tests.gpu.nvml import Nvml
from tests.gpu.rows import row
from tests.gpu.stage import Stage

SAY_SECONDS = 10.0
NOT_YET = (805, 807)
"""What a client may hear that comes too early."""


def said(*argv: str) -> str:
    if shutil.which(argv[0]) is None:
        return "missing"
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=SAY_SECONDS, check=False, stdin=subprocess.DEVNULL)  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)[-500:]
    return f"rc {done.returncode}: {(done.stdout + done.stderr).strip()}"[:3000]


CONTROLLERS = Path("/sys/fs/cgroup/cgroup.controllers")
LIMITS_SINCE = 615
"""First driver branch with memory limits by cgroup."""


def memory_limits(driver: str) -> dict[str, Any]:
    """What E22 would need. The limits themselves are not set: `nvidia-smi memory-limits` changes the machine for others, too."""
    branch = driver.split(".", maxsplit=1)[0]
    told: dict[str, Any] = {"dmem_controller": CONTROLLERS.exists() and "dmem" in CONTROLLERS.read_text().split()}
    if not branch.isdigit() or int(branch) < LIMITS_SINCE:
        told["not asked"] = f"driver {driver or 'unknown'}: memory limits came with {LIMITS_SINCE}"
        return told
    return told | {"smi": said("nvidia-smi", "memory-limits", "-h")}


def client(stage: Stage, found: ExperimentFindings) -> None:
    """A server, and whether a process that is sent there becomes its client. One that still initialises is asked again."""
    server = stage.server("s")
    found["server"] = server.start
    end = time.monotonic() + (stage.ready_seconds if server.start["ready"] else 0.0)
    while True:
        with row(stage, found, "client") as entry:
            puppet = stage.puppet("client", server)
            entry.update(heard(puppet, "start"), pid=puppet.process.pid, state=server.state())
            found["ps"] = server.command("ps")
        if found["client"].get("code") not in NOT_YET or time.monotonic() > end:
            return


def run(stage: Stage, found: ExperimentFindings) -> None:
    found["plain"] = heard(stage.puppet("plain"), "start")
    if stage.mps:
        client(stage, found)
    found["machine"] = {
        "kernel": platform.release(),
        "version": said("cat", "/proc/version"),
        "cores": os.cpu_count(),
        "mps": stage.mps or stage.without_mps,
        "kmsg_readable": os.access("/dev/kmsg", os.R_OK),
        "dmesg_restrict": said("cat", "/proc/sys/kernel/dmesg_restrict"),
        "devices": sorted(name for name in os.listdir("/dev") if name.startswith("nvidia")),
        "proc_driver": said("cat", "/proc/driver/nvidia/version"),
        "shm": said("df", "-h", "/dev/shm"),
    }
    if stage.mps:
        found["mps_version"] = said(stage.mps, "-v")
    nvml = Nvml()
    found["nvml"] = {"driver": nvml.driver_version(), "trouble": nvml.trouble}
    found["memory_limits"] = memory_limits(found["nvml"]["driver"])
    asked = "--query-gpu=name,uuid,driver_version,memory.total,compute_mode"
    found["smi"] = said("nvidia-smi", asked, "--format=csv,noheader")
