"""The simulated driver's virtual memory management: shared between processes, counted exactly, gone with its last holder."""

from __future__ import annotations

import os
import socket
import struct

import pytest

from tests.gpusim.driver_harness import (
    GRANULE,
    MEMORY,
    POSIX_FD,
    READ,
    READ_WRITE,
    CudaError,
    Program,
    access,
    counted,
    out,
    prop,
    room,
)
from tests.gpusim.host import SimHost


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
