"""One handle at many addresses, and other memory at the addresses of work that was captured: what a standby's stand-ins rely on.

CUDA's own words: "Virtual Aliasing Support" in the programming guide; cuMemUnmap and cuMemSetAccess over several mappings as in
NVIDIA's sample vectorAddMMAP; a graph's nodes keep the addresses they were captured with.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from tests.gpusim.driver_harness import FAULTS, GRANULE, READ_WRITE, Program, access, built, counted, out
from tests.gpusim.host import SimHost

RELAXED = 2
N = 8
"""Granules of an array."""


@pytest.fixture(name="sim")
def _sim() -> Iterator[SimHost]:
    with SimHost(memory=64, build=built()) as made:
        yield made


def stand_in(one: Program, granules: int = N) -> tuple[int, int]:
    """An array that is one granule again and again; its address and the granule's handle."""
    handle = one.create()
    address = int(one.cu("cuMemAddressReserve", out("u64"), granules * GRANULE, 0, 0, 0))
    for index in range(granules):
        one.cu("cuMemMap", address + index * GRANULE, GRANULE, 0, handle, 0)
    one.cu("cuMemSetAccess", address, granules * GRANULE, access(READ_WRITE), 1)
    return address, handle


def swap(one: Program, address: int, handle: int, granules: int = N) -> None:
    one.cu("cuMemUnmap", address, granules * GRANULE)
    one.cu("cuMemMap", address, granules * GRANULE, 0, handle, 0)
    one.cu("cuMemSetAccess", address, granules * GRANULE, access(READ_WRITE), 1)


def test_a_handle_at_many_addresses_is_the_same_bytes_and_counts_once(sim: SimHost) -> None:
    with Program(sim) as one:
        address, handle = stand_in(one)
        assert counted(sim) == GRANULE
        one.write(address + 3 * GRANULE + 5, b"seen everywhere")
        assert all(one.read(address + index * GRANULE + 5, 15) == b"seen everywhere" for index in range(N))
        one.cu("cuMemRelease", handle)
        assert counted(sim) == GRANULE
        one.cu("cuMemUnmap", address + GRANULE, GRANULE)
        assert one.read(address + 5, 4) == b"seen"
        assert one.code("cuMemUnmap", address, N * GRANULE) == 1, "a hole is in it"
        one.cu("cuMemUnmap", address, GRANULE)
        one.cu("cuMemUnmap", address + 2 * GRANULE, (N - 2) * GRANULE)
        assert counted(sim) == 0


def test_other_memory_at_the_addresses_of_a_graph_is_what_the_graph_works_on(sim: SimHost) -> None:
    with Program(sim) as one:
        address, granule = stand_in(one)
        fill = one.function(one.module(FAULTS), "fill")
        stream = one.stream()
        one.cu("cuStreamBeginCapture_v2", stream, ("i32", RELAXED))
        assert one.launch(fill, 64, ("u64", address + 2 * GRANULE), ("i32", 64), ("f64", 3.0), stream=stream) == 0
        graph = one.cu("cuStreamEndCapture", stream, out("u64"))
        ready = one.cu("cuGraphInstantiateWithFlags", out("u64"), graph, 0)
        assert one.code("cuGraphLaunch", ready, stream) == 0
        assert one.code("cuStreamSynchronize", stream) == 0
        assert one.read(address, 8) == struct.pack("d", 3.0), "rehearsed, in the one granule that there is"

        real = one.create(N * GRANULE)
        swap(one, address, real)
        one.cu("cuMemRelease", granule)
        assert counted(sim) == N * GRANULE, "the stand-in is gone"
        assert one.read(address + 2 * GRANULE, 8) == bytes(8), "nothing of the rehearsal is there"
        assert one.code("cuGraphLaunch", ready, stream) == 0
        assert one.code("cuStreamSynchronize", stream) == 0
        assert one.read(address + 2 * GRANULE, 8) == struct.pack("d", 3.0)
        assert one.read(address, 8) == bytes(8), "elsewhere nothing"


def test_an_unmapped_address_faults_a_graph_that_was_captured_on_it(sim: SimHost) -> None:
    with Program(sim) as one:
        address, _ = stand_in(one)
        stream = one.stream()
        one.cu("cuStreamBeginCapture_v2", stream, ("i32", RELAXED))
        fill = one.function(one.module(FAULTS), "fill")
        assert one.launch(fill, 64, ("u64", address), ("i32", 64), ("f64", 3.0), stream=stream) == 0
        graph = one.cu("cuStreamEndCapture", stream, out("u64"))
        ready = one.cu("cuGraphInstantiateWithFlags", out("u64"), graph, 0)
        one.cu("cuMemUnmap", address, N * GRANULE)
        assert one.code("cuGraphLaunch", ready, stream) == 0
        assert one.code("cuStreamSynchronize", stream) == 700
