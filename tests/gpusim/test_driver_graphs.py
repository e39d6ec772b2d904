"""Cooperative launches and captured graphs: blocks that wait for each other, launches that are replayed, and faults in both."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.gpusim.driver_harness import FAULTS, GRANULE, Program, built, out, xids
from tests.gpusim.host import SimHost

UNSUPPORTED, INVALIDATED, ILLEGAL_STATE, TOO_LARGE = 900, 901, 401, 720
RELAXED = 2


@pytest.fixture(name="sim")
def _sim() -> Iterator[SimHost]:
    with SimHost(memory=64, build=built()) as made:
        yield made


def meet(one: Program, blocks: int, address: int, trap_after: int) -> int:
    arguments = [("u64", address), ("i32", trap_after)]
    return int(one.do("cooperative", one.function(one.module(FAULTS), "meet"), blocks, 0, arguments))


def test_blocks_of_a_cooperative_launch_wait_for_each_other(sim: SimHost) -> None:
    with Program(sim) as one:
        address = one.map(one.create())
        one.cu("cuMemsetD32_v2", address, 0, 64)
        assert meet(one, 16, address, 0) == 0
        assert one.code("cuCtxSynchronize") == 0
        assert one.read(address, 4 * 17) == b"\2\0\0\0" * 16 + bytes(4)
        assert meet(one, 133, address, 0) == TOO_LARGE


def test_a_block_that_faults_ends_those_that_wait_for_it(sim: SimHost) -> None:
    with Program(sim) as one:
        address = one.map(one.create())
        one.cu("cuMemsetD32_v2", address, 0, 64)
        # Block n writes word n: the last ones are behind the memory, so nobody can come through.
        assert meet(one, 8, address + GRANULE - 16, 0) == 0
        assert one.code("cuCtxSynchronize") == 700
        assert len(xids(sim)) >= 1
    with Program(sim) as one:
        address = one.map(one.create())
        one.cu("cuMemsetD32_v2", address, 0, 64)
        assert meet(one, 8, address, 1) == 0
        assert one.code("cuCtxSynchronize") == 719


def test_a_captured_launch_is_done_as_often_as_the_graph_is_launched(sim: SimHost) -> None:
    with Program(sim) as one:
        module = one.module(FAULTS)
        axpy, fill = one.function(module, "axpy"), one.function(module, "fill")
        stream = one.stream()
        x, y = (one.map(one.create()) for _ in range(2))
        one.launch(fill, 64, ("u64", x), ("i32", 64), ("f64", 1.0), stream=stream)
        one.cu("cuStreamBeginCapture_v2", stream, ("i32", RELAXED))
        assert one.cu("cuStreamIsCapturing", stream, out("i32")) == 1
        assert one.code("cuStreamBeginCapture_v2", stream, ("i32", RELAXED)) == ILLEGAL_STATE
        arguments = (("i32", 64), ("f64", 2.0), ("u64", x), ("u64", y))
        assert one.launch(axpy, 64, *arguments, stream=stream) == 0
        assert one.launch(axpy, 64, *arguments, stream=stream) == 0
        graph = one.cu("cuStreamEndCapture", stream, out("u64"))
        assert one.code("cuStreamSynchronize", stream) == 0
        assert one.read(y, 8) == bytes(8)  # nothing was done yet
        ready = one.cu("cuGraphInstantiateWithFlags", out("u64"), graph, 0)
        assert one.code("cuGraphDestroy", graph) == 0
        for _ in range(3):
            assert one.code("cuGraphLaunch", ready, stream) == 0
        assert one.code("cuStreamSynchronize", stream) == 0
        assert one.do("cu", "cuMemcpyDtoH_v2", [("room", 8), ("u64", y), ("u64", 8)])[1][0].hex() == "0000000000002840"
        assert one.code("cuGraphLaunch", graph, stream) == 1
        assert one.code("cuGraphExecDestroy", ready) == 0
        assert one.code("cuGraphLaunch", ready, stream) == 1


def test_what_cannot_be_captured_spoils_the_capture(sim: SimHost) -> None:
    with Program(sim) as one:
        stream = one.stream()
        assert one.code("cuStreamBeginCapture_v2", 0, ("i32", RELAXED)) == UNSUPPORTED
        assert one.code("cuStreamEndCapture", stream, out("u64")) == ILLEGAL_STATE
        one.cu("cuStreamBeginCapture_v2", stream, ("i32", RELAXED))
        assert one.code("cuStreamSynchronize", stream) == UNSUPPORTED
        assert one.cu("cuStreamIsCapturing", stream, out("i32")) == 2
        assert one.code("cuStreamEndCapture", stream, out("u64")) == INVALIDATED
        assert one.code("cuStreamSynchronize", stream) == 0


def test_a_fault_in_a_graph_is_a_fault(sim: SimHost) -> None:
    with Program(sim) as one:
        stream = one.stream()
        one.cu("cuStreamBeginCapture_v2", stream, ("i32", RELAXED))
        assert one.launch(one.function(one.module(FAULTS), "trap"), 1, stream=stream) == 0
        ready = one.cu("cuGraphInstantiateWithFlags", out("u64"), one.cu("cuStreamEndCapture", stream, out("u64")), 0)
        assert one.code("cuStreamSynchronize", stream) == 0
        assert one.code("cuGraphLaunch", ready, stream) == 0
        assert one.code("cuStreamSynchronize", stream) == 719
