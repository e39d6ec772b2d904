"""The GPU that a private cluster computes on: the machine's own where it can carry MPS, or why the simulated one is taken.

`find` asks in the order in which things are missing on real machines, and at last starts an MPS server, since drivers and
programs can be there without MPS working (a container without its devices, a sandboxed kernel). It changes no setting.
"""

import os
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

from resilience.adapters.gpu.nvml import NvmlGpus
from resilience.adapters.mps.mps_control import SERVER_PROGRAM
from resilience.model.errors import GpuError
from resilience.ports import Gpu
from tests.gpu.stage import Stage

AUTO, SIM, REAL = "auto", "sim", "real"
CONTROL_PROGRAM = "nvidia-cuda-mps-control"
VERSION = Path("/proc/driver/nvidia/version")
USUAL = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/nvidia/bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class RealGpu:
    """One GPU of this machine."""

    model: str
    minor: int
    """Of its device file."""
    path: str
    """PATH on which nvidia-smi and the MPS programs are found."""
    libraries: str
    """LD_LIBRARY_PATH, where the driver's libraries need one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    gpu: RealGpu | None
    why: str

    def __str__(self) -> str:
        return f"GPU: {self.gpu.model}, {self.why}" if self.gpu else f"GPU: simulated, because {self.why}"


def choose(asked: str) -> Choice:
    """What `--gpu=auto|sim|real` means here. Raises LookupError when the real one is asked for and cannot be had."""
    if asked == SIM:
        return Choice(gpu=None, why="--gpu=sim asks for it")
    choice = find(os.environ.get("PATH", ""), busy=asked == REAL)
    if asked == REAL and choice.gpu is None:
        raise LookupError(choice.why)
    return choice


def find(path: str, *, busy: bool = False) -> Choice:
    """The machine's first GPU, or why it cannot be used; one that others use only if it may be `busy`."""
    path = f"{path}:{USUAL}"
    if not VERSION.exists():
        return Choice(gpu=None, why=f"no NVIDIA driver is loaded ({VERSION} is not there)")
    try:
        gpus = NvmlGpus().all()
    except GpuError as error:
        return Choice(gpu=None, why=f"the driver cannot be asked for its GPUs: {error}")
    if not gpus:
        return Choice(gpu=None, why="the driver has no GPU")
    gpu = gpus[0]
    why = unusable(gpu, path) or ("" if busy else in_use(gpu, path)) or no_server(gpu, path)
    if why:
        return Choice(gpu=None, why=f"this machine has {gpu.name}, but {why}")
    libraries = os.environ.get("LD_LIBRARY_PATH", "")
    real = RealGpu(model=gpu.name, minor=gpu.minor, path=path, libraries=libraries)
    return Choice(gpu=real, why=f"driver {gpu.driver}, /dev/nvidia{gpu.minor}, an MPS server was tried")


def unusable(gpu: Gpu, path: str) -> str:
    """What is missing of its programs, its device files and its mode; empty when nothing is."""
    for program in (CONTROL_PROGRAM, SERVER_PROGRAM, "nvidia-smi"):
        if shutil.which(program, path=path) is None:
            return f"{program} is not on PATH; it comes with the driver's MPS package"
    for file in (f"/dev/nvidia{gpu.minor}", "/dev/nvidiactl", "/dev/nvidia-uvm"):
        try:
            mode = os.stat(file).st_mode
        except OSError as error:
            return f"{file}: {error.strerror}"
        if not stat.S_ISCHR(mode) or mode & 0o006 != 0o006:
            return f"{file} cannot be used by ordinary users ({stat.filemode(mode)})"
    shared = query(gpu, path, "compute_mode")
    if shared != "Default":
        what = f"its compute mode is {shared}" if shared else "nvidia-smi does not tell its compute mode"
        return f"{what}, and two MPS servers are to share it (nvidia-smi -c DEFAULT)"
    return "it is cut into MIG instances" if query(gpu, path, "mig.mode.current") == "Enabled" else ""


def in_use(gpu: Gpu, path: str) -> str:
    """Who else computes on it: the demo makes it fault."""
    rows = smi(path, f"--id={gpu.uuid}", "--query-compute-apps=pid", "--format=csv,noheader").split()
    return (
        f"process {', '.join(rows[:4])} uses it, and GPU faults are made here (--gpu=real takes it all the same)"
        if rows
        else ""
    )


def no_server(gpu: Gpu, path: str) -> str:
    """Why no MPS server can be started on it, empty when one was ACTIVE."""
    environ = os.environ | {"PATH": path, "CUDA_VISIBLE_DEVICES": gpu.uuid}
    with Stage(small=False, environ=environ) as stage:
        server = stage.server("probe")
        if server.start["state"] == "ACTIVE":
            return ""
        log = [*server.log_lines("control.log"), *server.log_lines("server.log")]
    said = str(server.start["out"]).strip() or (log[-1] if log else f"status {server.start['rc']}")
    return f"no MPS server starts on it ({server.start['state']}): {said}"


def query(gpu: Gpu, path: str, fields: str) -> str:
    return smi(path, f"--id={gpu.uuid}", f"--query-gpu={fields}", "--format=csv,noheader").strip()


def smi(path: str, *words: str) -> str:
    """What nvidia-smi prints; empty where it fails."""
    try:
        done = subprocess.run(
            ["nvidia-smi", *words],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=os.environ | {"PATH": path},
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
