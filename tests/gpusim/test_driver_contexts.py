"""The simulated driver's contexts and what lives in them: allocations, copies, streams, events, modules."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.gpusim.driver_harness import FAULTS, HEAT, MIB, Program, counted, out
from tests.gpusim.host import SimHost

# -- allocations, copies ---


def test_a_context_takes_its_allocations_along(program: Program, sim: SimHost) -> None:
    second = program.cu("cuCtxCreate_v2", out("u64"), 0, 1)
    address = program.cu("cuMemAlloc_v2", out("u64"), 3 * MIB)
    assert counted(sim, 1) == 4 * MIB
    assert program.cu("cuMemGetAddressRange_v2", out("u64"), out("u64"), address + 5) == [address, 3 * MIB]
    program.cu("cuCtxDestroy_v2", second)
    assert counted(sim, 1) == 0
    assert program.cu("cuCtxGetCurrent", out("u64")) == program.context
    assert program.code("cuCtxSetCurrent", second) == 201


def test_contexts_take_memory_as_the_profile_says(sim: SimHost) -> None:
    (sim.path / "inject").write_text("set context_mib 30\n")
    with Program(sim) as one:
        assert counted(sim) == 30 * MIB
        with Program(sim):
            assert counted(sim) == 60 * MIB
            with Program(sim, start=False) as third:
                third.cu("cuInit", 0)
                assert third.code("cuCtxCreate_v2", out("u64"), 0, 0) == 2
        one.cu("cuCtxDestroy_v2", one.context)
        assert counted(sim) == 0


def test_primary_context_is_counted(program: Program) -> None:
    first = program.cu("cuDevicePrimaryCtxRetain", out("u64"), ("i32", 0))
    assert program.cu("cuDevicePrimaryCtxRetain", out("u64"), ("i32", 0)) == first
    program.cu("cuDevicePrimaryCtxRelease_v2", ("i32", 0))
    program.cu("cuCtxSetCurrent", first)
    program.cu("cuDevicePrimaryCtxRelease_v2", ("i32", 0))
    assert program.cu("cuDevicePrimaryCtxGetState", ("i32", 0), out("u32"), out("i32")) == [0, 0]
    assert program.code("cuDevicePrimaryCtxRelease_v2", ("i32", 0)) == 201


def test_copies_and_fills(program: Program) -> None:
    one = program.cu("cuMemAlloc_v2", out("u64"), 4096)
    two = program.cu("cuMemAlloc_v2", out("u64"), 4096)
    program.write(one, bytes(range(256)))
    program.cu("cuMemcpyDtoD_v2", two + 8, one, 256)
    assert program.read(two + 8, 256) == bytes(range(256))
    program.cu("cuMemsetD8_v2", two, ("u32", 0xAB), 3)
    program.cu("cuMemsetD16_v2", two + 4, ("u32", 0x1234), 2)
    program.cu("cuMemsetD32_v2", two + 8, ("u32", 0xDEADBEEF), 1)
    assert program.read(two, 12).hex() == "ababab00" + "34123412" + "efbeadde"
    assert program.code("cuMemsetD32_v2", two + 2, ("u32", 0), 1) == 1
    host_memory = program.do("pinned", 64)
    program.cu("cuMemcpy", host_memory, two, 12)
    assert program.do("peek", host_memory, 4) == b"\xab\xab\xab\0"
    program.cu("cuMemcpyHtoDAsync_v2", one, host_memory, 12, 0)
    assert program.read(one, 4) == b"\xab\xab\xab\0"
    program.cu("cuMemFreeHost", host_memory)
    assert program.code("cuMemFreeHost", host_memory) == 1


def test_a_device_pointer_is_no_host_pointer(program: Program) -> None:
    address = program.cu("cuMemAlloc_v2", out("u64"), 4096)
    program.order("peek", address, 1)
    assert program.process.wait(20) == -signal.SIGSEGV


# -- streams and events ---


def test_streams_run_beside_each_other_and_a_spinning_kernel_is_released(program: Program) -> None:
    flag = program.cu("cuMemAlloc_v2", out("u64"), 4)
    program.cu("cuMemsetD32_v2", flag, ("u32", 0), 1)
    program.cu("cuCtxSynchronize")  # a memset is not waited for: another stream's would overtake it
    spin = program.function(program.module(FAULTS), "spin")
    busy, free = program.stream(), program.stream()
    before, after = (program.cu("cuEventCreate", out("u64"), 0) for _ in range(2))
    program.cu("cuEventRecord", before, busy)
    assert program.launch(spin, 1, ("u64", flag), stream=busy) == 0
    program.cu("cuEventRecord", after, busy)
    assert program.code("cuStreamQuery", busy) == 600
    assert program.code("cuEventQuery", after) == 600
    assert program.code("cuEventElapsedTime", out("f32"), before, after) == 600
    program.cu("cuStreamSynchronize", free)
    program.cu("cuStreamWaitEvent", free, after, 0)
    program.cu("cuMemsetD8Async", flag + 64, ("u32", 1), 1, free)
    assert program.code("cuStreamQuery", free) == 600  # it waits for the event behind the kernel
    third = program.stream()
    program.cu("cuMemsetD32Async", flag, ("u32", 1), 1, third)
    program.cu("cuEventSynchronize", after)
    program.cu("cuStreamSynchronize", free)
    assert program.code("cuStreamQuery", busy) == 0
    assert 0 < program.cu("cuEventElapsedTime", out("f32"), before, after) < 20_000


def test_the_null_stream_waits_for_blocking_streams(program: Program) -> None:
    flag = program.cu("cuMemAlloc_v2", out("u64"), 4)
    program.cu("cuMemsetD32_v2", flag, ("u32", 0), 1)
    program.cu("cuCtxSynchronize")  # a memset is not waited for: another stream's would overtake it
    spin = program.function(program.module(FAULTS), "spin")
    blocking = program.stream(flags=0)
    program.launch(spin, 1, ("u64", flag), stream=blocking)
    program.cu("cuMemsetD8Async", flag + 64, ("u32", 1), 1, 0)
    assert program.code("cuStreamQuery", 0) == 600
    program.cu("cuMemsetD32Async", flag, ("u32", 1), 1, program.stream(flags=1))
    program.cu("cuStreamSynchronize", 0)
    assert program.code("cuStreamQuery", blocking) == 0


def test_destroyed_streams_and_events_are_refused(program: Program) -> None:
    stream = program.stream()
    event = program.cu("cuEventCreate", out("u64"), 2)
    program.cu("cuStreamDestroy_v2", stream)
    program.cu("cuEventDestroy_v2", event)
    assert program.code("cuStreamSynchronize", stream) == 400
    assert program.code("cuEventRecord", event, 0) == 400
    assert program.code("cuStreamDestroy_v2", 0) == 400
    assert program.code("cuStreamSynchronize", 0x1234) == 400


# -- modules ---


def test_modules_and_launches_are_checked(program: Program, tmp_path: Path) -> None:
    text = HEAT.read_text()
    module = program.module(HEAT)
    assert program.code("cuModuleGetFunction", out("u64"), module, b"nobody\0") == 500
    step = program.function(module, "heat_step")
    one, grid = ("u32", 1), [("u32", 1)] * 3
    assert program.code("cuLaunchKernel", step, ("u32", 0), one, one, *grid, ("u32", 0), 0, b"", 0) == 1
    assert program.code("cuLaunchKernel", step, *grid, ("u32", 2048), one, one, ("u32", 0), 0, b"", 0) == 1
    assert program.code("cuLaunchKernel", step, one, ("u32", 2), one, *grid, ("u32", 0), 0, b"", 0) == 801
    assert program.code("cuLaunchKernel", 0x1234, *grid, *grid, ("u32", 0), 0, b"", 0) == 400
    program.cu("cuModuleUnload", module)
    assert program.code("cuModuleGetFunction", out("u64"), module, b"heat_step\0") == 400
    for broken, code in [
        (text.replace("heat_step", "cold_step"), 218),
        (text.replace(".param .f64 heat_step_param_4", ".param .f32 heat_step_param_4"), 218),
        (text.replace(",\n\t.param .f64 heat_step_param_4", ""), 218),
        ("\x7fELF", 200),
    ]:
        assert program.code("cuModuleLoadData", out("u64"), broken.encode() + b"\0") == code
    path = tmp_path / "heat.ptx"
    path.write_text(text)
    program.cu("cuModuleLoad", out("u64"), bytes(path) + b"\0")
    assert program.code("cuModuleLoad", out("u64"), bytes(tmp_path / "none") + b"\0") == 301
