"""On which GPU a conformance test runs: `--gpu=sim`, `--gpu=real`, or `--gpu=auto`, which says what it took and why.

A test asks for the fixture `stage` (conftest.py) and never for one of the two: it gets an environment in which the driver, NVML,
nvidia-smi and the MPS programs are those of the backend. `auto` takes a real GPU only while nobody uses it, since these tests commit
GPU faults.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.gpusim.host import BUILD, SimHost

SIM, REAL, AUTO = "sim", "real", "auto"
MEMORY_MIB = 1024
"""Of the simulated GPU: eight times the most that an experiment holds at a time."""
NOT_OURS = ("CUDA_", "SIMGPU_", "MPSR", "SLURM", "LD_PRELOAD")
"""What a developer's shell may hold and a test on a real GPU must not inherit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    kind: str
    why: str


def _smi(*words: str) -> str:
    """What nvidia-smi says; empty where it cannot."""
    try:
        done = subprocess.run(["nvidia-smi", *words], capture_output=True, text=True, timeout=60, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def no_real_gpu() -> str:
    """Why there is no real GPU to use here, empty when there is one."""
    if not Path("/proc/driver/nvidia/version").exists():
        return "no NVIDIA driver is loaded (/proc/driver/nvidia/version is missing)"
    if not _smi("-L").startswith("GPU "):
        return "nvidia-smi -L lists no GPU"
    return ""


def no_simulator() -> str:
    """Why the simulated GPU cannot be used here, empty when it can."""
    library = BUILD / "libcuda.so.1"
    return "" if library.exists() else f"the simulated GPU is not built (make build): {library.name} is missing"


def choose(asked: str) -> Choice:
    """The backend of a whole session."""
    if asked != AUTO:
        return Choice(kind=asked, why=f"asked for with --gpu={asked}")
    if missing := no_real_gpu():
        return Choice(kind=SIM, why=missing)
    if busy := _smi("--query-compute-apps=pid", "--format=csv,noheader").split():
        return Choice(
            kind=SIM, why=f"the GPU is in use by process {', '.join(busy[:4])}; --gpu=real would take it all the same"
        )
    return Choice(kind=REAL, why="an NVIDIA GPU that nobody uses")


def missing(kind: str) -> str:
    """What keeps that backend from being used."""
    return no_real_gpu() if kind == REAL else no_simulator()


@contextmanager
def environment(kind: str) -> Iterator[Mapping[str, str]]:
    """The environment of a program that is to run on the backend; a host of its own on the simulator."""
    if kind == SIM:
        with SimHost(memory=MEMORY_MIB) as host:
            yield host.env(LANG="C.UTF-8")
        return
    mine = {name: value for name, value in os.environ.items() if not name.startswith(NOT_OURS)}
    folder = os.environ.get("MPSR_TEST_MPS")
    yield mine | ({"PATH": f"{folder}:{mine['PATH']}"} if folder else {})


def control_program(environ: Mapping[str, str]) -> str:
    """nvidia-cuda-mps-control of that environment, empty without one."""
    return shutil.which("nvidia-cuda-mps-control", path=environ.get("PATH")) or ""
