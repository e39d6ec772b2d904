"""GPU faults of a process without MPS: its error code, its Xid lines and events, and that nobody else notices."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest

from tests.gpusim.driver_harness import (
    FAULTS,
    GRANULE,
    HEAT,
    READ,
    READ_WRITE,
    Program,
    access,
    built,
    counted,
    out,
    room,
    xids,
)
from tests.gpusim.host import SimHost

HOST_ADDRESS = 0x7FFF_0000_1000
"""No device address."""


@pytest.fixture
def sim() -> Iterator[SimHost]:
    with SimHost(memory=64, build=built()) as made:
        yield made


def mmu(address: int, kind: str, way: str) -> str:
    page = f"0x{address >> 32:x}_{address & 0xFFFFF000:08x}"
    return (
        rf"Ch 00000008, intr 00000000\. MMU Fault: ENGINE GRAPHICS GPCCLIENT_T1_0 faulted @ {page}\. "
        rf"Fault is of type FAULT_{kind} ACCESS_TYPE_VIRT_{way}"
    )


SM = r"Graphics SM Warp Exception on \(GPC 0, TPC 0, SM 0\): "

# kernel, its arguments (`mapped`, `readonly` and `reserved` are addresses of those kinds), code, Xid, its text
FAULTY = [
    ("read_address", ["mapped", "reserved"], 700, 31, "reserved PDE READ"),
    ("read_address", ["mapped", HOST_ADDRESS], 700, 31, f"{HOST_ADDRESS} PDE READ"),
    ("read_address", ["mapped", 0], 700, 31, "0 PDE READ"),
    ("write_address", ["reserved", 1.0], 700, 31, "reserved PDE WRITE"),
    ("write_address", [HOST_ADDRESS, 1.0], 700, 31, f"{HOST_ADDRESS} PDE WRITE"),
    ("write_address", ["readonly", 1.0], 700, 31, "readonly RO_VIOLATION WRITE"),
    ("misaligned", ["mapped"], 716, 13, SM + "Misaligned Address"),
    ("illegal_instruction", ["mapped"], 715, 13, SM + "Illegal Instruction Encoding"),
    ("shared_out_of_range", [("i32", 1 << 24)], 719, 13, SM + "Out Of Range Address"),
    ("stack_overflow", ["mapped", ("i32", 1 << 20)], 714, 13, SM + "Stack Error"),
    ("bad_branch", [HOST_ADDRESS], 718, 13, SM + "Invalid PC"),
    ("trap", [], 719, 13, "Graphics Exception: ESR 0x"),
]


@pytest.mark.parametrize(("kernel", "arguments", "code", "xid", "text"), FAULTY)
def test_fault_gives_its_code_and_xid(
    sim: SimHost, kernel: str, arguments: list[object], code: int, xid: int, text: str
) -> None:
    with Program(sim) as one, Program(sim) as neighbour:
        readable = one.create()
        places = {
            "mapped": one.map(one.create()),
            "readonly": one.map(readable, flags=READ),
            "reserved": one.cu("cuMemAddressReserve", out("u64"), GRANULE, 0, 0, 0),
        }
        function = one.function(one.module(FAULTS), kernel)
        values = [
            value
            if isinstance(value, tuple)
            else ("f64", value)
            if isinstance(value, float)
            else ("u64", places.get(str(value), value))
            for value in arguments
        ]
        before = time.monotonic_ns()
        assert one.launch(function, 1, *values) == 0
        assert one.code("cuCtxSynchronize") == code
        after = time.monotonic_ns()

        assert one.code("cuMemAlloc_v2", out("u64"), 4) == code
        assert one.code("cuMemcpyDtoH_v2", room(1), places["mapped"], 1) == code
        assert one.code("cuMemRelease", readable) == code
        assert one.code("cuCtxDestroy_v2", one.context) == code
        assert one.code("cuCtxCreate_v2", out("u64"), 0, 0) == code
        assert one.code("cuDeviceGetCount", out("i32")) == 0

        address, _, rest = text.partition(" ")
        if xid == 31:
            kind, way = rest.split()
            text = mmu(places[address] if address in places else int(address), kind, way)
        log = xids(sim)
        assert len(log) == 1
        head = rf"NVRM: Xid \(PCI:0000:06:00\): {xid}, pid={one.pid}, name=python[0-9.]*, "
        assert re.match(head + text, log[0])
        when, minor, number, pid = map(int, (sim.path / "events").read_text().split())
        assert (minor, number, pid) == (0, xid, one.pid)
        assert before <= when <= after

        assert neighbour.code("cuCtxSynchronize") == 0


def test_assert_gives_710_and_says_where(sim: SimHost) -> None:
    with Program(sim) as one:
        function = one.function(one.module(FAULTS), "assert_positive")
        one.launch(function, 1, ("i32", 1))
        assert one.code("cuCtxSynchronize") == 0
        one.launch(function, 1, ("i32", 0))
        assert one.code("cuCtxSynchronize") == 710
        assert xids(sim) == []
        said = one.finish()
    where = r"faults\.cu:\d+: void assert_positive\(int\): block: \[0,0,0\], thread: \[0,0,0\] "
    assert re.search(where + r"Assertion `value > 0` failed\.\n", said)


def test_assert_logs_the_xid_that_the_profile_names(sim: SimHost) -> None:
    (sim.path / "inject").write_text("set assert_xid 43\n")
    with Program(sim) as one:
        one.launch(one.function(one.module(FAULTS), "assert_positive"), 1, ("i32", 0))
        assert one.code("cuCtxSynchronize") == 710
    assert [line.split(": ")[2].split(",")[0] for line in xids(sim)] == ["43"]


def test_a_pointer_that_is_not_used_does_no_harm(sim: SimHost) -> None:
    with Program(sim) as one:
        function = one.function(one.module(FAULTS), "axpy")
        one.launch(function, 1, ("i32", 0), ("f64", 1.0), ("u64", 0), ("u64", HOST_ADDRESS))
        assert one.code("cuCtxSynchronize") == 0


def test_a_stray_index_does_not_reach_other_memory(sim: SimHost) -> None:
    """A null pointer with a large index, and the place right behind an allocation, are illegal both."""
    for base, index in (("null", 3 * GRANULE // 8), ("own", GRANULE // 8)):
        with Program(sim) as one:
            own, other = one.map(one.create()), one.map(one.create())
            address = 0 if base == "null" else own
            fill = one.function(one.module(FAULTS), "fill")
            assert other > own
            assert one.launch(fill, index + 64, ("u64", address), ("i32", index + 64), ("f64", 1.0)) == 0
            assert one.code("cuCtxSynchronize") == 700


def test_the_kernel_stops_where_it_faults_and_later_work_is_not_done(sim: SimHost) -> None:
    with Program(sim) as one, Program(sim) as other:
        handle = one.create()
        address = one.map(handle)
        kept = other.map(other.import_(one.export(handle)))
        fill = one.function(one.module(FAULTS), "fill")
        count = GRANULE // 8
        one.launch(fill, count + 64, ("u64", address), ("i32", count + 64), ("f64", 2.0))
        assert one.launch(fill, count, ("u64", address), ("i32", count), ("f64", 3.0)) in (0, 700)
        assert one.code("cuCtxSynchronize") == 700
        found = other.read(kept, GRANULE)
    assert found == b"\0\0\0\0\0\0\0\x40" * count  # all of the first kernel's doubles 2.0, none of the second's


def test_bad_asynchronous_copies_fault_in_the_copy_engine(sim: SimHost) -> None:
    with Program(sim) as one:
        good = one.map(one.create())
        bad = one.cu("cuMemAddressReserve", out("u64"), GRANULE, 0, 0, 0)
        assert one.code("cuMemcpyDtoDAsync_v2", good, bad, 16, 0) == 0
        assert one.code("cuCtxSynchronize") == 700
    with Program(sim) as one:
        good = one.map(one.create(), flags=READ)
        assert one.code("cuMemsetD8Async", good, ("u32", 1), 16, 0) == 0
        assert one.code("cuStreamSynchronize", 0) == 700
    with Program(sim) as one:
        assert one.code("cuMemcpyHtoDAsync_v2", HOST_ADDRESS - 0x7F00_0000_0000, b"x", 1, 0) in (0, 700)
        assert one.code("cuCtxSynchronize") == 700
    texts = [line.split("MMU Fault: ")[1] for line in xids(sim)]
    assert [text.split(" faulted")[0] for text in texts] == ["ENGINE CE2 HUBCLIENT_CE0"] * 3
    kinds = [re.findall(r"FAULT_(\w+) ACCESS_TYPE_VIRT_(\w+)", text)[0] for text in texts]
    assert kinds == [("PDE", "READ"), ("RO_VIOLATION", "WRITE"), ("PDE", "WRITE")]


def test_bad_synchronous_copies_are_refused_and_harmless(sim: SimHost) -> None:
    with Program(sim) as one:
        bad = one.cu("cuMemAddressReserve", out("u64"), GRANULE, 0, 0, 0)
        good = one.map(one.create())
        assert one.code("cuMemcpyDtoH_v2", room(16), bad, 16) == 1
        assert one.code("cuMemcpyDtoH_v2", room(16), good + GRANULE - 8, 16) == 1
        assert one.code("cuMemcpyHtoD_v2", HOST_ADDRESS, b"x", 1) == 1
        assert one.code("cuMemcpyDtoD_v2", good, bad, 16) == 1
        assert one.code("cuMemsetD8_v2", bad, ("u32", 1), 1) == 1
        assert one.code("cuCtxSynchronize") == 0
    assert xids(sim) == []


def test_unmapping_under_a_running_kernel_makes_it_fault(sim: SimHost) -> None:
    with Program(sim) as one:
        flag = one.map(one.create())
        one.cu("cuMemsetD32_v2", flag, ("u32", 0), 1)
        one.launch(one.function(one.module(FAULTS), "spin"), 1, ("u64", flag), stream=one.stream())
        one.cu("cuMemUnmap", flag, GRANULE)
        assert one.code("cuCtxSynchronize") == 700


def test_an_endless_kernel_dies_with_its_process(sim: SimHost) -> None:
    with Program(sim) as one:
        flag = one.cu("cuMemAlloc_v2", out("u64"), 4)
        one.cu("cuMemsetD32_v2", flag, ("u32", 0), 1)
        one.launch(one.function(one.module(FAULTS), "spin"), 1, ("u64", flag))
        one.begin("cuCtxSynchronize")
        assert not one.wire.poll(0.05)
        assert one.kill() == -9
    assert counted(sim) == 0
    assert xids(sim) == []


def test_a_fault_in_one_stream_ends_an_endless_kernel_in_another(sim: SimHost) -> None:
    with Program(sim) as one:
        flag = one.cu("cuMemAlloc_v2", out("u64"), 4)
        one.cu("cuMemsetD32_v2", flag, ("u32", 0), 1)
        module = one.module(FAULTS)
        one.launch(one.function(module, "spin"), 1, ("u64", flag), stream=one.stream())
        one.launch(one.function(module, "trap"), 1, stream=one.stream())
        assert one.code("cuCtxSynchronize") == 719
        assert one.finish() == ""


def test_heat_kernel_with_a_bad_argument_is_an_ordinary_fault(sim: SimHost) -> None:
    with Program(sim) as one:
        field = one.map(one.create())
        step = one.function(one.module(HEAT), "heat_step")
        sizes = [("i32", 16), ("i32", 16), ("f64", 0.2)]
        one.launch(step, 256, ("u64", 0xDEAD_0000), ("u64", field), *sizes)
        assert one.code("cuCtxSynchronize") == 700
    assert f"pid={one.pid}" in xids(sim)[0]


def test_setting_access_back_makes_memory_usable_again(sim: SimHost) -> None:
    """The right to write is looked at when the kernel writes, not when the pointer is made."""
    with Program(sim) as one:
        address = one.map(one.create(), flags=READ)
        one.cu("cuMemSetAccess", address, GRANULE, access(READ_WRITE), 1)
        one.launch(one.function(one.module(FAULTS), "write_address"), 1, ("u64", address), ("f64", 1.0))
        assert one.code("cuCtxSynchronize") == 0
