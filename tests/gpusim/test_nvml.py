"""The simulated NVML through unmodified nvidia-ml-py, and nvidia-smi on top of it."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.gpusim.driver_harness import FAULTS, GRANULE, LIMIT, MIB, Program, built, out
from tests.gpusim.host import SimHost
from tests.gpusim.mps_harness import Mps

pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")


@pytest.fixture
def sim() -> Iterator[SimHost]:
    with SimHost(gpus=2, memory=64, build=built(), values={"ui_busy": "1"}) as made:
        yield made


PREAMBLE = """
import json, sys
import pynvml as n

def show(value):
    print(json.dumps(value), flush=True)

"""


class Asker:
    """A process with pynvml; `hear` is its next line of JSON."""

    def __init__(self, sim: SimHost, code: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PREAMBLE + code],
            env=sim.env(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.heard = b""

    def hear(self) -> Any:
        assert self.process.stdout is not None
        while b"\n" not in self.heard:
            ready, _, _ = select.select([self.process.stdout], [], [], LIMIT)
            assert ready, f"no answer within {LIMIT} s"
            data = os.read(self.process.stdout.fileno(), 65536)
            assert data, f"ended with status {self.process.wait(LIMIT)}"
            self.heard += data
        line, self.heard = self.heard.split(b"\n", 1)
        return json.loads(line)

    def tell(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text.encode())
        self.process.stdin.flush()

    def end(self) -> None:
        self.process.communicate(timeout=LIMIT)


def ask(sim: SimHost, code: str) -> Any:
    """What the code shows."""
    asker = Asker(sim, code)
    value = asker.hear()
    asker.end()
    return value


def smi(sim: SimHost, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(sim.build / "bin" / "nvidia-smi"), *words],
        env=sim.env(**env),
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )


def test_identity_of_each_gpu(sim: SimHost) -> None:
    code = """
n.nvmlInit()
found = []
for i in range(n.nvmlDeviceGetCount()):
    h = n.nvmlDeviceGetHandleByIndex(i)
    pci = n.nvmlDeviceGetPciInfo(h)
    same = [n.nvmlDeviceGetHandleByUUID(n.nvmlDeviceGetUUID(h)), n.nvmlDeviceGetHandleByPciBusId(pci.busId)]
    found.append([n.nvmlDeviceGetName(h), n.nvmlDeviceGetUUID(h), n.nvmlDeviceGetMinorNumber(h)])
    found[-1] += [n.nvmlDeviceGetIndex(h), pci.busId, pci.bus, [n.nvmlDeviceGetMinorNumber(x) for x in same]]
    found[-1] += [n.nvmlDeviceGetComputeMode(h)]
show([found, n.nvmlSystemGetDriverVersion(), n.nvmlSystemGetCudaDriverVersion(), n.nvmlSystemGetNVMLVersion()])
n.nvmlShutdown()
"""
    gpus, *versions = ask(sim, code)
    assert gpus == [
        [gpu.name, gpu.uuid, minor, minor, f"0000{gpu.bus}".upper(), 6 + minor, [minor, minor], 0]
        for minor, gpu in enumerate(sim.gpus)
    ]
    assert versions == ["580.159.04", 13000, "13.580.159.04"]


def test_errors_are_nvmls_own(sim: SimHost) -> None:
    code = """
def code(call, *arguments):
    try:
        call(*arguments)
    except n.NVMLError as error:
        return [error.value, str(error)]
before = code(n.nvmlDeviceGetCount) if not n._LoadNvmlLibrary() else None
n.nvmlInit()
h = n.nvmlDeviceGetHandleByIndex(0)
show([before, code(n.nvmlDeviceGetHandleByIndex, 2), code(n.nvmlDeviceGetHandleByUUID, "GPU-nobody"),
      code(n.nvmlDeviceGetTemperature, h, 0), code(n.nvmlDeviceRegisterEvents, h, 1, n.nvmlEventSetCreate())])
"""
    assert ask(sim, code) == [
        [1, "Uninitialized"],
        [2, "Invalid Argument"],
        [6, "Not Found"],
        [13, "Function Not Found"],
        [3, "Not Supported"],
    ]


def test_without_a_host_the_driver_is_not_loaded(sim: SimHost) -> None:
    (sim.path / "host.conf").unlink()
    code = """
try:
    n.nvmlInit()
except n.NVMLError as error:
    show([error.value, str(error)])
"""
    assert ask(sim, code) == [9, "Driver Not Loaded"]


def test_memory_and_processes(sim: SimHost) -> None:
    place = Mps(sim)
    place.start(CUDA_VISIBLE_DEVICES=sim.gpus[0].uuid)
    code = """
n.nvmlInit()
h = n.nvmlDeviceGetHandleByIndex(0)
m, m2 = n.nvmlDeviceGetMemoryInfo(h), n.nvmlDeviceGetMemoryInfo(h, version=n.nvmlMemory_v2)
def ps(call):
    return sorted([p.pid, p.usedGpuMemory] for p in call(h))
show([[m.total, m.used, m.free], [m2.total, m2.used, m2.free],
      ps(n.nvmlDeviceGetComputeRunningProcesses), ps(n.nvmlDeviceGetMPSComputeRunningProcesses)])
"""
    try:
        with Program(sim) as plain, Program(sim, CUDA_MPS_PIPE_DIRECTORY=str(place.pipe)) as client:
            plain.create(3 * GRANULE)
            client.create()
            descriptor = client.export(client.create())
            shared = plain.import_(descriptor)
            os.close(descriptor)
            memory = [64 * MIB, 10 * MIB, 54 * MIB]
            plain_line, client_line = [plain.pid, 6 * MIB], [client.pid, 4 * MIB]
            assert ask(sim, code) == [memory, memory, [plain_line], [client_line]]
            listed = smi(sim, "--query-compute-apps=pid,used_memory,gpu_uuid", "--format=csv,noheader").stdout
            uuid = sim.gpus[0].uuid
            assert listed.splitlines() == [f"{plain.pid}, 6 MiB, {uuid}", f"{client.pid}, 4 MiB, {uuid}"]
            overview = smi(sim).stdout
            assert re.search(rf"\| +0 +N/A +N/A +{client.pid} +M\+C ", overview)
            assert re.search(rf"\| +0 +N/A +N/A +{plain.pid} +C ", overview)
            client.kill()
            memory = [64 * MIB, 8 * MIB, 56 * MIB]
            assert ask(sim, code) == [memory, memory, [plain_line], []]
            plain.cu("cuMemRelease", shared)
        assert ask(sim, code) == [[64 * MIB, 0, 64 * MIB]] * 2 + [[], []]
    finally:
        place.close()


EVENTS = """
n.nvmlInit()
handles = [n.nvmlDeviceGetHandleByIndex(i) for i in range(2)]
events = n.nvmlEventSetCreate()
for i in map(int, sys.stdin.readline().split()):
    assert n.nvmlDeviceGetSupportedEventTypes(handles[i]) & n.nvmlEventTypeXidCriticalError
    n.nvmlDeviceRegisterEvents(handles[i], n.nvmlEventTypeXidCriticalError, events)
show("registered")
import time
for timeout in map(int, sys.stdin.readline().split()):
    try:
        e = n.nvmlEventSetWait_v2(events, timeout)
        show([n.nvmlDeviceGetIndex(e.device), e.eventType, e.eventData, time.monotonic_ns()])
    except n.NVMLError as error:
        show(error.value)
n.nvmlEventSetFree(events)
"""


def listen(sim: SimHost, gpus: str, timeouts: str) -> Asker:
    asker = Asker(sim, EVENTS)
    asker.tell(f"{gpus}\n{timeouts}\n")
    assert asker.hear() == "registered"
    return asker


def test_a_fault_wakes_who_waits_for_events(sim: SimHost) -> None:
    (sim.path / "events").write_text("1 0 79 1\n")  # before anybody registered: not told
    waiter = listen(sim, "0 1", "20000 20000 0")
    with Program(sim) as one:
        one.launch(one.function(one.module(FAULTS), "trap"), 1)
        assert one.code("cuCtxSynchronize") == 719
    device, kind, xid, told = waiter.hear()
    assert (device, kind, xid) == (0, 8, 13)
    when = int((sim.path / "events").read_text().splitlines()[1].split()[0])
    assert 0 < told - when < 5_000_000_000
    with Program(sim, CUDA_VISIBLE_DEVICES="1") as one:
        one.launch(one.function(one.module(FAULTS), "write_address"), 1, ("u64", 8), ("f64", 0.0))
        assert one.code("cuCtxSynchronize") == 700
    assert waiter.hear()[:3] == [1, 8, 31]
    assert waiter.hear() == 10
    waiter.end()


def test_only_registered_gpus_are_told_and_half_a_line_waits_for_its_end(sim: SimHost) -> None:
    waiter = listen(sim, "1", "20000 1 20000")
    descriptor = os.open(sim.path / "events", os.O_WRONLY | os.O_APPEND)
    os.write(descriptor, b"5 0 31 9\nnonsense\n6 1 79 9\n7 1 4")
    assert waiter.hear()[:3] == [1, 8, 79]
    assert waiter.hear() == 10
    os.write(descriptor, b"8 9\n")
    assert waiter.hear()[:3] == [1, 8, 48]
    os.close(descriptor)
    waiter.end()


def test_recovery_action_is_read_anew(sim: SimHost) -> None:
    code = """
n.nvmlInit()
h = n.nvmlDeviceGetHandleByIndex(1)
def action():
    got = n.nvmlDeviceGetFieldValues(h, [n.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION, 1])
    return [got[0].nvmlReturn, got[0].valueType, got[0].value.uiVal, got[1].nvmlReturn]
show(action())
sys.stdin.readline()
show(action())
"""
    asker = Asker(sim, code)
    assert asker.hear() == [0, 1, 0, 3]
    (sim.path / "inject").write_text("set recovery_action 1\n")
    asker.tell("\n")
    assert asker.hear() == [0, 1, 1, 3]
    asker.end()


# -- nvidia-smi ---


def test_smi_lists_and_queries(sim: SimHost) -> None:
    uuids = [gpu.uuid for gpu in sim.gpus]
    name = sim.gpus[0].name
    assert smi(sim, "-L").stdout.splitlines() == [f"GPU {n}: {name} (UUID: {uuid})" for n, uuid in enumerate(uuids)]
    with Program(sim) as one:
        one.create()
        fields = "index,name,uuid,driver_version,memory.used,memory.total,compute_mode"
        done = smi(sim, f"--query-gpu={fields}", "--format=csv")
        assert done.stdout.splitlines() == [
            "index, name, uuid, driver_version, memory.used [MiB], memory.total [MiB], compute_mode",
            f"0, {name}, {uuids[0]}, 580.159.04, 2 MiB, 64 MiB, Default",
            f"1, {name}, {uuids[1]}, 580.159.04, 0 MiB, 64 MiB, Default",
        ]
        done = smi(sim, "--query-gpu=memory.used,memory.free", "--format=csv,noheader,nounits", "-i", uuids[0])
        assert done.stdout == "2, 62\n"
    assert "No running processes found" in smi(sim).stdout
    compute = smi(sim, "-q", "-d", "COMPUTE").stdout
    assert re.findall(r"GPU 0000(\S+)\n    Compute Mode +: (\w+)", compute) == [
        (gpu.bus.upper(), "Default") for gpu in sim.gpus
    ]


def test_smi_shows_memory_and_processes_of_each_gpu(sim: SimHost) -> None:
    with Program(sim) as one:
        one.cu("cuMemAlloc_v2", out("u64"), 4 * MIB)
        told = smi(sim, "-q", "-d", "MEMORY,PIDS").stdout
        first, second = told.split("\nGPU 0000")[1:]
        assert re.search(r"Used +: 4 MiB\n", first)
        assert re.search(rf"Process ID +: {one.pid}\n +Type +: C\n", first)
        assert re.search(r"    Processes +: None\n", second)
        assert "Compute Mode" not in told


def test_smi_refuses_as_the_real_one(sim: SimHost) -> None:
    done = smi(sim, "-L", SIMGPU_DIR="")
    assert done.returncode == 9
    assert done.stdout.startswith("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.")
    assert smi(sim, "-L", LD_LIBRARY_PATH="").returncode == 12
    assert smi(sim, "--query-gpu=nothing", "--format=csv").returncode == 2
    assert smi(sim, "--query-gpu=name").returncode == 2
    assert smi(sim, "--frobnicate").returncode == 2
    assert smi(sim, "-L", "-i", "7").returncode == 6


def test_a_waiter_is_not_disturbed_by_a_program_that_dies(sim: SimHost) -> None:
    waiter = listen(sim, "0", "300")
    began = time.monotonic()
    with Program(sim) as one:
        one.cu("cuMemAlloc_v2", out("u64"), 4)
        one.process.send_signal(signal.SIGKILL)
        one.process.wait(LIMIT)
    assert waiter.hear() == 10
    assert time.monotonic() - began > 0.1
    waiter.end()
