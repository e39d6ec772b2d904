"""The simulated driver through ctypes: its start, the devices that it shows, and processes that fork."""

from __future__ import annotations

import os
import re
import signal

import pytest

from tests.gpusim.driver_harness import MEMORY, Program, counted, out, room
from tests.gpusim.host import SimHost
from tests.gpusim.mps_harness import wait_for

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
