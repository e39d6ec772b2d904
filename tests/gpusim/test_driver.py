"""The simulated driver through ctypes: start, devices, memory, contexts, streams, modules, injection."""

from __future__ import annotations

import os
import re
import signal
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gpusim.driver_harness import (
    FAULTS,
    GRANULE,
    HEAT,
    MIB,
    POSIX_FD,
    READ,
    READ_WRITE,
    CudaError,
    Program,
    access,
    built,
    counted,
    out,
    prop,
    room,
)
from tests.gpusim.host import HERE, SimHost
from tests.gpusim.mps_harness import wait_for

MEMORY = 64 * MIB


@pytest.fixture
def sim() -> Iterator[SimHost]:
    """Two GPUs of 64 MiB."""
    with SimHost(gpus=2, memory=MEMORY // MIB, build=built()) as made:
        yield made


@pytest.fixture
def program(sim: SimHost) -> Iterator[Program]:
    with Program(sim) as made:
        yield made


# -- start ---


def test_without_a_simulated_host_there_is_no_device(sim: SimHost) -> None:
    with Program(sim, start=False, SIMGPU_DIR="") as one:
        assert one.code("cuInit", 0) == 100
        assert one.code("cuDeviceGetCount", out("i32")) == 3
        assert one.cu("cuDriverGetVersion", out("i32")) == 13000
        assert one.finish() == ""


@pytest.mark.parametrize(
    "line",
    ["gpu=0", "gpu=x uuid=y", "nonsense", "gpu=0 uuid=GPU-1 memory=64 bus=0000:06:00.0", "context_ms=soon", ""],
)
def test_broken_host_conf_is_no_device_and_one_line(sim: SimHost, line: str) -> None:
    (sim.path / "host.conf").write_text(line + "\n")
    with Program(sim, start=False) as one:
        assert one.code("cuInit", 0) == 100
        said = one.finish()
    assert re.fullmatch(r"simgpu: \S+/host\.conf: [^\n]+\n", said)


def test_calls_before_init_are_refused(sim: SimHost) -> None:
    with Program(sim, start=False) as one:
        assert one.code("cuMemAlloc_v2", out("u64"), 4) == 3
        assert one.code("cuCtxSynchronize") == 3
        assert one.code("cuInit", 1) == 1
        assert one.code("cuInit", 0) == 0
        assert one.code("cuInit", 0) == 0
        assert one.code("cuCtxSynchronize") == 201


@pytest.mark.parametrize(
    ("visible", "minors"),
    [
        ("0", [0]),
        ("1", [1]),
        ("1,0", [1, 0]),
        ("", []),
        ("2", []),
        ("1,7,0", [1]),
        ("-1", []),
        ("0,0", []),
        ("GPU", []),
    ],
)
def test_visible_devices(sim: SimHost, visible: str, minors: list[int]) -> None:
    with Program(sim, start=False, CUDA_VISIBLE_DEVICES=visible) as one:
        assert one.code("cuInit", 0) == (0 if minors else 100)
        if minors:
            assert one.cu("cuDeviceGetCount", out("i32")) == len(minors)
            found = [one.cu("cuDeviceGetPCIBusId", room(16), ("i32", 16), ("i32", n)) for n in range(len(minors))]
            assert [text.rstrip(b"\0").decode() for text in found] == [sim.gpus[minor].bus for minor in minors]


def test_visible_devices_by_uuid(sim: SimHost) -> None:
    for name in (sim.gpus[1].uuid, sim.gpus[1].uuid[:12]):
        with Program(sim, CUDA_VISIBLE_DEVICES=name) as one:
            raw = one.cu("cuDeviceGetUuid", room(16), ("i32", 0))
            assert raw.hex() == sim.gpus[1].uuid.removeprefix("GPU-").replace("-", "")


def test_device_queries(program: Program, sim: SimHost) -> None:
    assert program.cu("cuDeviceGetName", room(64), ("i32", 64), ("i32", 0)).rstrip(b"\0") == sim.gpus[0].name.encode()
    assert program.cu("cuDeviceTotalMem_v2", out("u64"), ("i32", 1)) == MEMORY
    answers = {number: program.cu("cuDeviceGetAttribute", out("i32"), ("i32", number), ("i32", 0)) for number in
               (20, 33, 75, 102, 103, 128, 133)}  # fmt: skip
    assert answers == {20: 0, 33: 6, 75: 9, 102: 1, 103: 1, 128: 0, 133: 0}
    assert program.code("cuDeviceGetAttribute", out("i32"), ("i32", 9999), ("i32", 0)) == 1
    assert program.code("cuDeviceGetName", room(64), ("i32", 64), ("i32", 2)) == 101


# -- what the library offers ---


def rows() -> list[tuple[str, int, str]]:
    text = (HERE / "proc.c").read_text()
    found = re.findall(r"X\((cu\w+), (\d+), (cu\w+)\)", text)
    return [(name, int(since), function) for name, since, function in found]


def test_each_function_of_the_table_is_exported_and_found(program: Program) -> None:
    table = rows()
    assert len(table) > 90
    names = [function for _, _, function in table]
    assert program.do("exports", names) == names
    for name, since, _ in table:
        address, status = program.cu(
            "cuGetProcAddress_v2", name.encode() + b"\0", out("u64"), ("i32", since), 0, out("i32")
        )
        assert address != 0
        assert status == 0


def test_a_function_that_is_not_written_is_missing(program: Program) -> None:
    assert program.do("exports", ["cuGraphCreate", "cuMemAlloc", "cuGetExportTable"]) == []
    answer = program.cu("cuGetProcAddress_v2", b"cuGraphCreate\0", out("u64"), ("i32", 13000), 0, out("i32"))
    assert answer == [0, 1]
    assert program.cu("cuGetProcAddress_v2", b"cuMemCreate\0", out("u64"), ("i32", 9000), 0, out("i32")) == [0, 2]
    assert program.code("cuGetProcAddress", b"cuGraphCreate\0", out("u64"), ("i32", 13000), 0) == 500


def test_proc_address_gives_the_function_of_the_version(program: Program) -> None:
    def find(version: int) -> int:
        name = b"cuCtxCreate\0"
        return int(program.cu("cuGetProcAddress_v2", name, out("u64"), ("i32", version), 0, out("i32"))[0])

    assert len({find(4000), find(11040), find(12050)}) == 3
    assert find(13000) == find(12050)
    address = program.cu("cuGetProcAddress_v2", b"cuCtxSynchronize\0", out("u64"), ("i32", 13000), 0, out("i32"))[0]
    assert program.do("call_address", address) == 0


# -- virtual memory management ---


def test_memory_is_shared_and_survives_its_creator(sim: SimHost) -> None:
    with Program(sim) as creator, Program(sim) as other:
        handle = creator.create(2 * GRANULE)
        creator.write(creator.map(handle, 2 * GRANULE) + GRANULE, b"kept state")
        descriptor = creator.export(handle)
        imported = other.import_(descriptor)
        os.close(descriptor)
        address = other.map(imported, 2 * GRANULE)
        assert counted(sim) == 2 * GRANULE
        creator.kill()
        assert other.read(address + GRANULE, 10) == b"kept state"
        assert counted(sim) == 2 * GRANULE
        assert other.cu("cuMemGetInfo_v2", out("u64"), out("u64")) == [MEMORY - 2 * GRANULE, MEMORY]
        other.cu("cuMemRelease", imported)
        assert other.read(address + GRANULE, 10) == b"kept state"
        other.cu("cuMemUnmap", address, 2 * GRANULE)
        assert counted(sim) == 0
        other.cu("cuMemAddressFree", address, 2 * GRANULE)


def test_a_process_that_only_holds_the_descriptor_keeps_the_memory(sim: SimHost) -> None:
    with Program(sim) as creator:
        handle = creator.create()
        creator.write(creator.map(handle), b"all that is left")
        descriptor = creator.export(handle)
        creator.kill()
    assert counted(sim) == GRANULE
    with Program(sim) as heir:
        assert heir.read(heir.map(heir.import_(descriptor)), 16) == b"all that is left"
        os.close(descriptor)
        assert counted(sim) == GRANULE
    assert counted(sim) == 0


def test_memory_lives_while_its_descriptor_is_in_flight(sim: SimHost) -> None:
    left, right = socket.socketpair()
    with Program(sim) as creator:
        descriptor = creator.export(creator.create())
        socket.send_fds(left, [b"+"], [descriptor])
        os.close(descriptor)
        creator.kill()
    assert counted(sim) == GRANULE
    left.close()
    right.close()
    assert counted(sim) == 0


def test_what_a_killed_process_held_can_be_had_at_once(sim: SimHost) -> None:
    with Program(sim) as one:
        one.create(MEMORY)
        with Program(sim) as other:
            with pytest.raises(CudaError, match="cuMemCreate: 2"):
                other.create()
            one.kill()
            other.create(MEMORY)


def test_accounting_is_exact_to_the_last_granule(program: Program, sim: SimHost) -> None:
    handles = [program.create() for _ in range(MEMORY // GRANULE)]
    assert program.cu("cuMemGetInfo_v2", out("u64"), out("u64")) == [0, MEMORY]
    assert program.code("cuMemCreate", out("u64"), GRANULE, prop(), 0) == 2
    assert program.code("cuMemAlloc_v2", out("u64"), 1) == 2
    assert counted(sim, 1) == 0
    program.create(device=1)
    assert counted(sim, 1) == GRANULE
    program.cu("cuMemRelease", handles[3])
    address = program.cu("cuMemAlloc_v2", out("u64"), 1)
    assert counted(sim) == MEMORY
    program.cu("cuMemFree_v2", address)
    assert counted(sim) == MEMORY - GRANULE
    assert len(list((sim.path / "mem" / "0").glob("[0-9]*"))) == len(handles) - 1


def test_two_processes_never_get_the_same_last_granule(sim: SimHost) -> None:
    wanted = MEMORY // GRANULE
    programs = [Program(sim) for _ in range(3)]
    try:
        for _ in range(wanted):
            for one in programs:
                one.begin("cuMemCreate", out("u64"), GRANULE, prop(), 0)
            codes = [one.ended() for one in programs]
            assert set(codes) <= {0, 2}
        assert counted(sim) == MEMORY
    finally:
        for one in programs:
            one.kill()
    assert counted(sim) == 0


def test_an_address_hint_is_honoured_here_and_in_another_process(program: Program, sim: SimHost) -> None:
    wish = 0x2000_4000_0000
    handle = program.create()
    assert program.map(handle, wish=wish) == wish
    assert program.cu("cuMemAddressReserve", out("u64"), GRANULE, 0, wish, 0) != wish
    program.write(wish, b"same address")
    with Program(sim) as other:
        assert other.map(other.import_(program.export(handle)), wish=wish) == wish
        assert other.read(wish, 12) == b"same address"
    program.cu("cuMemUnmap", wish, GRANULE)
    program.cu("cuMemMap", wish, GRANULE, 0, handle, 0)
    program.cu("cuMemSetAccess", wish, GRANULE, access(READ_WRITE), 1)
    assert program.read(wish, 12) == b"same address"


def test_alignment_of_a_reservation(program: Program) -> None:
    address = program.cu("cuMemAddressReserve", out("u64"), GRANULE, 1 << 30, 0, 0)
    assert address % (1 << 30) == 0
    assert program.code("cuMemAddressReserve", out("u64"), GRANULE, 3 * GRANULE, 0, 0) == 1
    assert program.code("cuMemAddressReserve", out("u64"), GRANULE + 1, 0, 0, 0) == 1
    assert program.code("cuMemAddressReserve", out("u64"), 1 << 41, 0, 0, 0) == 2


def test_handles_are_counted(program: Program, sim: SimHost) -> None:
    handle = program.create()
    address = program.map(handle)
    again = program.cu("cuMemRetainAllocationHandle", out("u64"), address)
    program.cu("cuMemRelease", handle)
    program.cu("cuMemRelease", again)
    assert program.code("cuMemRelease", handle) == 1
    program.write(address, b"mapped still")
    assert counted(sim) == GRANULE
    program.cu("cuMemUnmap", address, GRANULE)
    assert counted(sim) == 0


def test_properties_travel_with_the_memory(program: Program, sim: SimHost) -> None:
    handle = program.create(device=1)
    with Program(sim, CUDA_VISIBLE_DEVICES="1,0") as other:
        imported = other.import_(program.export(handle))
        raw = other.cu("cuMemGetAllocationPropertiesFromHandle", room(32), imported)
        assert struct.unpack("=iiii", raw[:16]) == (1, 1, 1, 0)
    with Program(sim, CUDA_VISIBLE_DEVICES="0") as stranger, pytest.raises(CudaError, match=": 101"):
        stranger.import_(program.export(handle))


def test_wrong_uses_of_memory_are_refused(program: Program) -> None:
    private = program.create(handle=0)
    assert program.code("cuMemExportToShareableHandle", out("i32"), private, POSIX_FD, 0) == 1
    assert program.code("cuMemExportToShareableHandle", out("i32"), private, 8, 0) == 801
    assert program.code("cuMemCreate", out("u64"), GRANULE - 1, prop(), 0) == 1
    assert program.code("cuMemCreate", out("u64"), 0, prop(), 0) == 1
    assert program.code("cuMemCreate", out("u64"), GRANULE, prop(device=2), 0) == 101
    assert program.code("cuMemCreate", out("u64"), GRANULE, prop(handle=8), 0) == 801
    assert program.code("cuMemImportFromShareableHandle", out("u64"), 0, POSIX_FD) == 1  # stdin is no memory
    assert program.code("cuMemImportFromShareableHandle", out("u64"), 999, POSIX_FD) == 1
    address = program.cu("cuMemAddressReserve", out("u64"), 4 * GRANULE, 0, 0, 0)
    handle = program.create(2 * GRANULE)
    assert program.code("cuMemMap", address, GRANULE, 0, handle, 0) == 1
    assert program.code("cuMemMap", address, 2 * GRANULE, GRANULE, handle, 0) == 1
    assert program.code("cuMemMap", address + 3 * GRANULE, 2 * GRANULE, 0, handle, 0) == 1
    assert program.code("cuMemMap", 0x1234_0000_0000, 2 * GRANULE, 0, handle, 0) == 1
    program.cu("cuMemMap", address, 2 * GRANULE, 0, handle, 0)
    assert program.code("cuMemMap", address + GRANULE, 2 * GRANULE, 0, handle, 0) == 208
    assert program.code("cuMemUnmap", address, GRANULE) == 1
    assert program.code("cuMemSetAccess", address, GRANULE, access(READ), 1) == 1
    assert program.code("cuMemSetAccess", address, 4 * GRANULE, access(READ), 1) == 1
    assert program.code("cuMemSetAccess", address, 2 * GRANULE, access(READ, device=1), 1) == 217
    assert program.code("cuMemAddressFree", address, 4 * GRANULE) == 1
    program.cu("cuMemUnmap", address, 2 * GRANULE)
    assert program.code("cuMemUnmap", address, 2 * GRANULE) == 1
    program.cu("cuMemAddressFree", address, 4 * GRANULE)
    assert program.code("cuMemFree_v2", address) == 1


def test_access_rights_hold_for_copies(program: Program) -> None:
    handle = program.create()
    address = program.map(handle, flags=READ)
    assert program.cu("cuMemGetAccess", out("u64"), ("bytes", struct.pack("=ii", 1, 0)), address) == READ
    assert program.code("cuMemcpyHtoD_v2", address, b"x", 1) == 1
    assert program.read(address, 4) == bytes(4)
    program.cu("cuMemSetAccess", address, GRANULE, access(0), 1)
    assert program.code("cuMemcpyDtoH_v2", room(1), address, 1) == 1
    program.cu("cuMemSetAccess", address, GRANULE, access(READ_WRITE), 1)
    program.write(address, b"x")


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


# -- processes ---


def test_a_forked_child_is_not_initialised(program: Program) -> None:
    for name in ("cuInit", "cuCtxSynchronize"):
        assert program.do("forked", name, [("u64", 0)]) == 3
    assert program.code("cuCtxSynchronize") == 0


def test_a_forked_child_keeps_nothing_alive(sim: SimHost) -> None:
    with Program(sim) as parent:
        parent.write(parent.map(parent.create()), b"x")
        child = parent.do("fork_sleeper")
        parent.kill()
    try:
        wait_for("the memory's end", lambda: counted(sim) == 0 or None)  # the child lets go when it first runs
    finally:
        os.kill(child, signal.SIGKILL)


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


# -- injection ---


def test_the_nth_call_fails_as_injected(sim: SimHost) -> None:
    (sim.path / "inject").write_text("fail cuMemAlloc 2 2\nfail cuInit 1 999\n# a remark\n\nset rebuild_ms 5\n")
    with Program(sim, start=False) as one:
        assert one.code("cuInit", 0) == 999
        assert one.code("cuInit", 0) == 0
        one.cu("cuCtxCreate_v2", out("u64"), 0, 0)
        codes = [one.code("cuMemAlloc_v2", out("u64"), 4) for _ in range(3)]
        assert codes == [0, 2, 0]
        assert one.finish() == ""


def test_rules_that_come_later_are_read(program: Program, sim: SimHost) -> None:
    program.cu("cuCtxSynchronize")
    (sim.path / "inject").write_text("".join(f"fail cuCtxSynchronize {n} 719\n" for n in range(2, 60)))
    wait_for("the rule", lambda: program.code("cuCtxSynchronize") == 719 or None)
    (sim.path / "inject").write_text("frobnicate\n")
    wait_for("the rules' end", lambda: program.code("cuCtxSynchronize") == 0 or None)
    assert "rule is not understood: frobnicate" in program.finish()


# -- the sanitizers ---


def test_the_c_side_is_clean_under_the_sanitizers(sim: SimHost) -> None:
    done = subprocess.run(
        ["make", "-s", "-j2", "-C", str(HERE), "asan", f"OUT={sim.build}"],
        env=os.environ | {"SIMGPU_DIR": str(sim.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("ok\n")
    assert counted(sim) == 0
