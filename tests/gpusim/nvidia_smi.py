#!/usr/bin/env -S python3 -IS
"""`nvidia-smi` of the simulated GPU: the few forms that a cluster's scripts use, on the loader's libnvidia-ml.so.1.

    nvidia-smi                      overview with the process table
    nvidia-smi -L
    nvidia-smi -q -d COMPUTE,MEMORY,PIDS    any of the three
    nvidia-smi --query-gpu=… --format=csv[,noheader][,nounits]
    nvidia-smi --query-compute-apps=… --format=csv[,noheader][,nounits]

Each takes `-i <index, uuid or bus id>`. Words, columns and exit statuses are those of the real program (9 without a
driver, 12 without the library, 2 for a bad option); the overview's columns that are not simulated say N/A.
"""

from __future__ import annotations

import argparse
import ctypes
import time
from collections.abc import Callable
from dataclasses import dataclass

MODES = ("Default", "Exclusive_Thread", "Prohibited", "Exclusive_Process")
MIB = 1 << 20
NO_DRIVER = (
    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. "
    "Make sure that the latest NVIDIA driver is installed and running.\n"
)
NO_LIBRARY = "NVIDIA-SMI couldn't find libnvidia-ml.so library in your system.\n"


class Pci(ctypes.Structure):
    _fields_ = (
        ("legacy", ctypes.c_char * 16),
        ("numbers", ctypes.c_uint * 5),
        ("bus_id", ctypes.c_char * 32),
    )


class Memory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


class Process(ctypes.Structure):
    _fields_ = (
        ("pid", ctypes.c_uint),
        ("used", ctypes.c_ulonglong),
        ("gpu_instance", ctypes.c_uint),
        ("compute_instance", ctypes.c_uint),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class App:
    """A process with a context; memory in MiB; kind `C`, or `M+C` for a client of MPS."""

    pid: int
    name: str
    used: int
    kind: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Gpu:
    """What one GPU answers; memory in MiB."""

    index: int
    name: str
    uuid: str
    bus_id: str
    mode: str
    used: int
    total: int
    apps: tuple[App, ...]


class Nvml:
    """The calls of libnvidia-ml.so.1 that are needed here. SystemExit as the real program when there is no driver."""

    def __init__(self) -> None:
        try:
            self._lib = ctypes.CDLL("libnvidia-ml.so.1")
        except OSError:
            print(NO_LIBRARY)
            raise SystemExit(12) from None
        if self._lib.nvmlInit_v2() != 0:
            print(NO_DRIVER)
            raise SystemExit(9)
        self.driver = self._text("nvmlSystemGetDriverVersion")
        version = ctypes.c_int()
        self._lib.nvmlSystemGetCudaDriverVersion_v2(ctypes.byref(version))
        self.cuda = f"{version.value // 1000}.{version.value % 1000 // 10}"

    def _text(self, call: str, *before: object) -> str:
        buffer = ctypes.create_string_buffer(256)
        self._lib[call](*before, buffer, 256)
        return buffer.value.decode(errors="replace")

    def gpus(self) -> list[Gpu]:
        count = ctypes.c_uint()
        self._lib.nvmlDeviceGetCount_v2(ctypes.byref(count))
        return [self._gpu(index) for index in range(count.value)]

    def _gpu(self, index: int) -> Gpu:
        device, mode, pci, memory = ctypes.c_void_p(), ctypes.c_int(), Pci(), Memory()
        self._lib.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(device))
        self._lib.nvmlDeviceGetComputeMode(device, ctypes.byref(mode))
        self._lib.nvmlDeviceGetPciInfo_v3(device, ctypes.byref(pci))
        self._lib.nvmlDeviceGetMemoryInfo(device, ctypes.byref(memory))
        return Gpu(
            index=index,
            name=self._text("nvmlDeviceGetName", device),
            uuid=self._text("nvmlDeviceGetUUID", device),
            bus_id=pci.bus_id.decode(),
            mode=MODES[mode.value],
            used=memory.used // MIB,
            total=memory.total // MIB,
            apps=(
                *self._apps("nvmlDeviceGetComputeRunningProcesses_v3", device, "C"),
                *self._apps("nvmlDeviceGetMPSComputeRunningProcesses_v3", device, "M+C"),
            ),
        )

    def _apps(self, call: str, device: ctypes.c_void_p, kind: str) -> list[App]:
        count = ctypes.c_uint(1024)
        found = (Process * count.value)()
        if self._lib[call](device, ctypes.byref(count), found) != 0:
            return []
        return [
            App(
                pid=one.pid,
                name=self._text("nvmlSystemGetProcessName", ctypes.c_uint(one.pid)) or "[Not Found]",
                used=one.used // MIB,
                kind=kind,
            )
            for one in found[: count.value]
        ]


GPU_FIELDS: dict[str, Callable[[Gpu, Nvml], tuple[str, str]]] = {
    "index": lambda gpu, _: (str(gpu.index), ""),
    "name": lambda gpu, _: (gpu.name, ""),
    "gpu_name": lambda gpu, _: (gpu.name, ""),
    "uuid": lambda gpu, _: (gpu.uuid, ""),
    "gpu_uuid": lambda gpu, _: (gpu.uuid, ""),
    "pci.bus_id": lambda gpu, _: (gpu.bus_id, ""),
    "driver_version": lambda _, nvml: (nvml.driver, ""),
    "memory.used": lambda gpu, _: (str(gpu.used), "MiB"),
    "memory.free": lambda gpu, _: (str(gpu.total - gpu.used), "MiB"),
    "memory.total": lambda gpu, _: (str(gpu.total), "MiB"),
    "compute_mode": lambda gpu, _: (gpu.mode, ""),
}
APP_FIELDS: dict[str, Callable[[App, Gpu], tuple[str, str]]] = {
    "pid": lambda app, _: (str(app.pid), ""),
    "process_name": lambda app, _: (app.name, ""),
    "name": lambda app, _: (app.name, ""),
    "used_memory": lambda app, _: (str(app.used), "MiB"),
    "used_gpu_memory": lambda app, _: (str(app.used), "MiB"),
    "gpu_uuid": lambda _, gpu: (gpu.uuid, ""),
    "gpu_bus_id": lambda _, gpu: (gpu.bus_id, ""),
}
WITH_UNIT = ("memory.used", "memory.free", "memory.total", "used_memory", "used_gpu_memory")


def table(fields: list[str], rows: list[list[tuple[str, str]]], style: list[str]) -> None:
    """CSV as the real program prints it; `style` is --format split at commas."""
    if "noheader" not in style:
        units = "nounits" not in style
        print(", ".join(f"{name} [MiB]" if units and name in WITH_UNIT else name for name in fields))
    for row in rows:
        print(", ".join(f"{text} {unit}" if unit and "nounits" not in style else text for text, unit in row))


def known(asked: str, fields: dict[str, Callable[..., tuple[str, str]]]) -> list[str]:
    """The names in --query-…; SystemExit 2 naming the first that is not simulated."""
    names = [name.strip() for name in asked.split(",")]
    for name in names:
        if name not in fields:
            print(f'Field "{name}" is not a valid field to query.\n')
            raise SystemExit(2)
    return names


def overview(nvml: Nvml, gpus: list[Gpu]) -> None:
    """The default output: a box per GPU and the processes."""
    edge, rule = "+" + "-" * 89 + "+", "|" + "=" * 89 + "|"

    def row(text: str) -> None:
        print(f"| {text:<87} |")

    print(time.strftime("%a %b %e %H:%M:%S %Y"))
    print(edge)
    row(f"NVIDIA-SMI {nvml.driver:<24} Driver Version: {nvml.driver:<16} CUDA Version: {nvml.cuda}")
    print(edge)
    row(f"{'GPU':>3}  {'Name':<28} {'Bus-Id':<18} {'Memory-Usage':>20}  {'Compute M.':>11}")
    print(rule)
    for gpu in gpus:
        usage = f"{gpu.used}MiB / {gpu.total}MiB"
        row(f"{gpu.index:>3}  {gpu.name[:28]:<28} {gpu.bus_id:<18} {usage:>20}  {gpu.mode[:11]:>11}")
    print(f"{edge}\n\n{edge}")
    row("Processes:")
    row(f"{'GPU':>3}   GI   CI  {'PID':>10}   {'Type':<4}   {'Process name':<36} {'GPU Memory':>14}")
    print(rule)
    apps = [(gpu, app) for gpu in gpus for app in gpu.apps]
    for gpu, app in apps:
        used = f"{app.used}MiB"
        row(f"{gpu.index:>3}  N/A  N/A  {app.pid:>10}   {app.kind:<4}   {app.name[-36:]:<36} {used:>14}")
    if not apps:
        row("No running processes found")
    print(edge)


DISPLAYS = ("COMPUTE", "MEMORY", "PIDS")


def line(depth: int, key: str, value: object) -> None:
    """A line of -q; the colons stand below each other."""
    print(f"{' ' * depth}{key:<{49 - depth}} : {value}")


def memory_part(gpu: Gpu) -> None:
    print("    FB Memory Usage")
    for key, mib in (("Total", gpu.total), ("Reserved", 0), ("Used", gpu.used), ("Free", gpu.total - gpu.used)):
        line(8, key, f"{mib} MiB")


def process_part(gpu: Gpu) -> None:
    if not gpu.apps:
        line(4, "Processes", "None")
        return
    print("    Processes")
    for app in gpu.apps:
        for key in ("GPU instance ID", "Compute instance ID"):
            line(8, key, "N/A")
        line(8, "Process ID", app.pid)
        for key, value in (("Type", app.kind), ("Name", app.name), ("Used GPU Memory", f"{app.used} MiB")):
            line(12, key, value)


def query(nvml: Nvml, gpus: list[Gpu], parts: list[str]) -> None:
    """-q -d."""
    print("\n==============NVSMI LOG==============\n")
    line(0, "Timestamp", time.strftime("%a %b %e %H:%M:%S %Y"))
    line(0, "Driver Version", nvml.driver)
    line(0, "CUDA Version", nvml.cuda)
    print()
    line(0, "Attached GPUs", len(gpus))
    for gpu in gpus:
        print(f"GPU {gpu.bus_id}")
        if "MEMORY" in parts:
            memory_part(gpu)
        if "COMPUTE" in parts:
            line(4, "Compute Mode", gpu.mode)
        if "PIDS" in parts:
            process_part(gpu)
        print()


def main() -> None:
    parser = argparse.ArgumentParser(prog="nvidia-smi", allow_abbrev=False)
    parser.add_argument("-L", "--list-gpus", action="store_true")
    parser.add_argument("-i", "--id")
    parser.add_argument("-q", "--query", action="store_true")
    parser.add_argument("-d", "--display", default="", help=f"what -q is to show, of {','.join(DISPLAYS)}")
    parser.add_argument("--query-gpu")
    parser.add_argument("--query-compute-apps")
    parser.add_argument("--format", default="")
    words = parser.parse_args()
    queries = words.query_gpu or words.query_compute_apps
    style = words.format.split(",")
    parts = words.display.upper().split(",")
    if words.query and not set(parts) <= set(DISPLAYS):
        parser.error(f"-q needs -d with some of {','.join(DISPLAYS)}: nothing else is simulated")
    if queries and style[0] != "csv":
        parser.error("--query-… needs --format=csv")
    nvml = Nvml()
    gpus = nvml.gpus()
    if words.id is not None:
        gpus = [gpu for gpu in gpus if words.id in (str(gpu.index), gpu.uuid, gpu.bus_id)]
        if not gpus:
            print("No devices were found")
            raise SystemExit(6)
    if words.list_gpus:
        for gpu in gpus:
            print(f"GPU {gpu.index}: {gpu.name} (UUID: {gpu.uuid})")
    elif words.query:
        query(nvml, gpus, parts)
    elif words.query_gpu:
        names = known(words.query_gpu, GPU_FIELDS)
        table(names, [[GPU_FIELDS[name](gpu, nvml) for name in names] for gpu in gpus], style)
    elif words.query_compute_apps:
        names = known(words.query_compute_apps, APP_FIELDS)
        rows = [[APP_FIELDS[name](app, gpu) for name in names] for gpu in gpus for app in gpu.apps]
        table(names, rows, style)
    else:
        overview(nvml, gpus)


if __name__ == "__main__":
    main()
