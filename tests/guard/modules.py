"""Builds the guard, its stand-ins for the driver and the program of the tests. Each build works on a copy of the sources,
since a kernel build writes beside them."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.guard.kernels import MODULE, Kernel

STRICT = ("W=1", "KCFLAGS=-Werror")
SPARSE = ("C=1", "CF=-Wsparse-error")
"""Left out for kernels of ours: a new one refuses Debian's sparse, and it has looked at the same sources already."""
VARIANTS = {
    "nvidia_uvm": "",
    "no_cancel": "-Duvm_hal_hopper_cancel_faults_va=shim_cancel_of_another_name",
    "no_sparse": "-Duvm_api_map_external_sparse=shim_sparse_of_another_name",
    "no_context": "-Duvm_thread_context_add=shim_context_of_another_name",
    "no_register": "-Duvm_va_space_mm_register=shim_register_of_another_name",
    "no_sleep": "-Duvm_suspend_entry=shim_suspend_of_another_name",
    "new_cancel": "-DSHIM_NEW_CANCEL",
}
"""Stand-ins: file name → what is called otherwise in them, or new."""
_HARMLESS = "due to unavailability of vmlinux"
"""Debian's headers have no vmlinux to make type information from."""


class BuildFailed(Exception):
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    module: Path
    told: tuple[str, ...]
    """What the compiler and sparse had to say."""


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """A command's output, both streams. Raises BuildFailed with it."""
    environment = {**os.environ, "LC_ALL": "C"}
    environment.pop("MAKEFLAGS", None)
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=240,
        check=False,
    )
    if done.returncode:
        raise BuildFailed(f"{' '.join(map(str, command))}\n{done.stdout}")
    return done.stdout


def copy_sources(into: Path) -> Path:
    """The module's sources as git would give them: nothing that a build left."""
    shutil.copytree(
        MODULE,
        into,
        dirs_exist_ok=True,
        ignore=shutil.ignore_patterns("*.o", "*.ko", "*.mod", "*.mod.c", ".*.cmd", "Module.symvers", "modules.order"),
    )
    return into


def _make(kernel: Kernel, source: Path, name: str, *extra: str) -> Built:
    sparse = () if kernel.debug else SPARSE
    told = run("make", "-s", "-j2", "-C", kernel.headers, f"M={source}", *extra, *STRICT, *sparse, "modules")
    lines = tuple(line for line in told.splitlines() if _HARMLESS not in line)
    return Built(module=source / f"{name}.ko", told=lines)


def build_module(kernel: Kernel, work: Path) -> Built:
    return _make(kernel, copy_sources(work / "module"), "mps_guard")


def build_shim(kernel: Kernel, work: Path, name: str) -> Built:
    """One stand-in for the driver."""
    source = copy_sources(work / name) / "tests" / "shim"
    return _make(kernel, source, "nvidia_uvm", f"SHIM_FLAGS={VARIANTS[name]}")


def build_mistakes(kernel: Kernel, work: Path) -> Built:
    """What a kernel that looks for mistakes must find."""
    return _make(kernel, copy_sources(work / "mistakes") / "tests" / "mistakes", "mistakes")


def build_program(work: Path) -> Path:
    """The static program that runs inside the virtual machine."""
    target = work / "guard_test"
    sources = sorted((MODULE / "tests" / "vm").glob("*.c"))
    flags = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Wshadow", "-Werror", "-static", "-pthread"]
    run("gcc", *flags, "-o", target, *sources)
    return target
