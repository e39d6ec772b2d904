"""What machine is this: GPU, driver, kernel, MPS programs, what root may read; does MPS start at all (E18, E22)."""

import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tests.gpu.faults import heard
from tests.gpu.findings import Findings
from tests.gpu.stage import Stage


def said(*argv: str) -> str:
    if shutil.which(argv[0]) is None:
        return "missing"
    done = subprocess.run(argv, capture_output=True, text=True, timeout=15, check=False, stdin=subprocess.DEVNULL)
    return f"rc {done.returncode}: {(done.stdout + done.stderr).strip()}"[:3000]


CONTROLLERS = Path("/sys/fs/cgroup/cgroup.controllers")
LIMITS_SINCE = 615
"""First driver branch with memory limits by cgroup."""


def memory_limits(driver: str) -> dict[str, Any]:
    """What E22 would need. The limits themselves are not set: `nvidia-smi memory-limits` changes the machine for others, too."""
    branch = driver.split(".", maxsplit=1)[0]
    row: dict[str, Any] = {"dmem_controller": CONTROLLERS.exists() and "dmem" in CONTROLLERS.read_text().split()}
    if not branch.isdigit() or int(branch) < LIMITS_SINCE:
        row["not asked"] = f"driver {driver or 'unknown'}: memory limits came with {LIMITS_SINCE}"
        return row
    return row | {"smi": said("nvidia-smi", "memory-limits", "-h")}


def run(stage: Stage, found: Findings) -> None:
    found["machine"] = {
        "kernel": platform.release(),
        "cores": os.cpu_count(),
        "smi": said(
            "nvidia-smi", "--query-gpu=name,uuid,driver_version,memory.total,compute_mode", "--format=csv,noheader"
        ),
        "smi_list": said("nvidia-smi", "-L"),
        "mps": stage.mps or "missing",
        "mps_version": said(stage.mps, "-v") if stage.mps else "missing",
        "kmsg_readable": os.access("/dev/kmsg", os.R_OK),
        "dmesg_restrict": said("cat", "/proc/sys/kernel/dmesg_restrict"),
        "devices": sorted(name for name in os.listdir("/dev") if name.startswith("nvidia")),
        "proc_driver": said("cat", "/proc/driver/nvidia/version"),
        "shm": said("df", "-h", "/dev/shm"),
    }
    found["memory_limits"] = memory_limits(
        said("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader").removeprefix("rc 0: ").split("\n")[0]
    )
    plain = stage.puppet("plain")
    found["plain"] = heard(plain, "start")
    if stage.mps:
        server = stage.server("s")
        found["server"] = server.start
        found["client"] = heard(stage.puppet("client", server), "start")
        found["ps"] = server.command("ps")
