"""cuda.core, as NVIDIA ships it, on the simulated GPU: device, streams, events, buffers, kernels, and a neighbour's fault under MPS."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.gpusim.driver_harness import FAULTS, Program, built, out
from tests.gpusim.host import SimHost
from tests.gpusim.mps_harness import Mps

pytest.importorskip("cuda.core", reason="cuda-core is not installed")

BEGIN = """
import sys
from pathlib import Path
import numpy as np
from cuda.bindings import driver
from cuda.core import Device, LaunchConfig, ObjectCode, VirtualMemoryResource, VirtualMemoryResourceOptions, launch, system

device = Device(0)
device.set_current()
stream = device.create_stream()
kernels = ObjectCode.from_ptx(Path(sys.argv[1]).read_bytes())
shared = VirtualMemoryResource(device, VirtualMemoryResourceOptions(handle_type="posix_fd"))

def content(buffer, count):
    host = np.empty(count)
    assert driver.cuMemcpyDtoH(host, int(buffer.handle), host.nbytes)[0] == 0
    return host
"""

WORK = (
    BEGIN
    + """
print(system.get_num_devices(), device.uuid, device.name, device.properties.multiprocessor_count)
n = 1000
x, y = shared.allocate(8 * n, stream=stream), device.allocate(8 * n, stream=stream)
fill, axpy = kernels.get_kernel("fill"), kernels.get_kernel("axpy")
assert fill.num_arguments == 3 and fill.attributes.max_threads_per_block == 1024
started, done = stream.record(), None
shape = LaunchConfig(grid=(n + 127) // 128, block=128)
launch(stream, shape, fill, x, np.int32(n), np.float64(1.25))
launch(stream, shape, fill, y, np.int32(n), np.float64(0.5))
launch(stream, shape, axpy, np.int32(n), np.float64(3.0), x, y)
done = stream.record()
done.sync()
assert started.is_done and done.is_done
assert (content(y, n) == 0.5 + 3.0 * 1.25).all()
z = device.allocate(8 * n, stream=stream)
y.copy_to(z, stream=stream)
y.fill(0, stream=stream)
stream.sync()
assert (content(z, n) == 4.25).all() and not content(y, n).any()
for each in (x, y, z):
    each.close(stream)
"""
)

NEIGHBOUR = (
    BEGIN
    + """
mine = shared.allocate(1 << 21, stream=stream)
fill = kernels.get_kernel("fill")
print("ready", flush=True)
sys.stdin.readline()
try:
    launch(stream, LaunchConfig(grid=1, block=64), fill, mine, np.int32(64), np.float64(1.0))
    stream.sync()
    print("unharmed")
except Exception as error:
    print(type(error).__name__, error)
import os
sys.stdout.flush()
os._exit(0)  # as a program that a fault has hit ends: without handing anything back
"""
)


@pytest.fixture(name="sim")
def _sim() -> Iterator[SimHost]:
    with SimHost(gpus=2, memory=64, build=built()) as made:
        yield made


def test_it_works_with_memory_streams_events_and_kernels(sim: SimHost) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WORK, str(FAULTS)],
        env=sim.env(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    first = sim.gpus[0]
    assert done.stdout.split() == ["2", first.uuid.removeprefix("GPU-"), *first.name.split(), "132"]


def test_it_hears_of_a_neighbours_fault_under_mps(sim: SimHost) -> None:
    mps = Mps(sim)
    assert mps.start().returncode == 0
    try:
        env = {**mps.env, "PYTHONUNBUFFERED": "1"}
        with (
            subprocess.Popen(
                [sys.executable, "-c", NEIGHBOUR, str(FAULTS)],
                env=env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            ) as program,
            Program(sim, CUDA_MPS_PIPE_DIRECTORY=str(mps.pipe)) as culprit,
        ):
            assert program.stdout is not None
            assert program.stdout.readline() == "ready\n"
            culprit.launch(culprit.function(culprit.module(FAULTS), "trap"), 1)
            assert culprit.code("cuCtxSynchronize") == 719
            said, _ = program.communicate("go\n", timeout=60)
            assert said.startswith("CUDAError CUDA_ERROR_LAUNCH_FAILED"), said
    finally:
        mps.close()


def test_libraries_are_handles_of_their_own(sim: SimHost) -> None:
    """What cuda.core stands on: a library needs no context, a module's handle is none of a library's."""
    with Program(sim, start=False) as one:
        one.cu("cuInit", 0)
        ptx = FAULTS.read_bytes() + b"\0"
        library = one.cu("cuLibraryLoadData", out("u64"), ptx, 0, 0, 0, 0, 0, 0)
        kernel = one.cu("cuLibraryGetKernel", out("u64"), library, b"axpy\0")
        assert one.code("cuKernelGetFunction", out("u64"), kernel) == 201  # no context yet
        assert [one.cu("cuKernelGetParamInfo", kernel, i, out("u64"), out("u64")) for i in range(4)] == [
            [0, 4],
            [8, 8],
            [16, 8],
            [24, 8],
        ]
        assert one.code("cuKernelGetParamInfo", kernel, 4, out("u64"), out("u64")) == 1
        assert one.code("cuLibraryGetKernel", out("u64"), library, b"nothing\0") == 500
        assert one.code("cuKernelGetAttribute", out("i32"), 4, kernel, 0) == 801  # registers: a CPU's kernel has none
        one.context = one.cu("cuCtxCreate_v2", out("u64"), 0, 0)
        module = one.module(FAULTS)
        assert one.code("cuLibraryUnload", module) == 400
        assert one.code("cuModuleUnload", library) == 400
        function = one.cu("cuKernelGetFunction", out("u64"), kernel)
        assert one.launch(function, 1, ("i32", 0), ("f64", 1.0), ("u64", 0), ("u64", 0)) == 0
        assert one.code("cuCtxSynchronize") == 0
        assert one.code("cuLibraryUnload", library) == 0
        assert one.code("cuLibraryGetKernel", out("u64"), library, b"axpy\0") == 400
