"""The simulated driver library as client of the simulated MPS: an unmodified CUDA program sees what the server does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.gpusim.mps_harness import Client, Mps, wait_for

pytestmark = pytest.mark.skipif(
    not (Path(__file__).resolve().parents[2] / "build/gpusim/libcuda.so.1").exists(),
    reason="make build first: no libcuda",
)

PROGRAM = """
import ctypes, sys
cuda = ctypes.CDLL("libcuda.so.1")
context, pointer, host = ctypes.c_void_p(), ctypes.c_uint64(), ctypes.create_string_buffer(64)
code = cuda.cuInit(0)
code = code or cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0) or cuda.cuCtxSetCurrent(context)
code = code or cuda.cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(4096))
print(code, flush=True)
for line in sys.stdin:
    if line == "bad\\n":
        cuda.cuMemcpyDtoHAsync_v2(host, ctypes.c_uint64(pointer.value + (1 << 38)), ctypes.c_size_t(64), None)
        cuda.cuCtxSynchronize()
    print(cuda.cuMemcpyDtoH_v2(host, pointer, ctypes.c_size_t(64)), flush=True)
"""


def program(mps: Mps) -> Client:
    """A CUDA program: its hello is the code of its start, each line gets the code of a copy."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=mps.env
    )
    made = Client(process)
    mps.clients.append(made)
    return made


def test_fault_of_one_program_reaches_the_other_and_the_server_recovers(mps: Mps) -> None:
    mps.start()
    culprit, bystander = program(mps), program(mps)
    assert (culprit.hello, bystander.hello) == ("0", "0")
    server = mps.server()
    assert mps.command(f"get_client_list {server}") == [str(culprit.pid), str(bystander.pid)]
    assert bystander.ask("go") == "0"
    assert culprit.ask("bad") == "700"
    assert bystander.ask("go") == "700"
    wait_for("FAULT", lambda: mps.command(f"get_server_status {server}") == ["FAULT"] or None)
    assert f"Client {{PID: {culprit.pid}, Context: 1}} encountered a fatal GPU error." in mps.log("server.log")
    assert f"): 31, pid={culprit.pid}, name=" in (mps.sim.path / "kmsg").read_text()
    assert program(mps).hello == "807"
    culprit.end()
    bystander.end()
    wait_for("ACTIVE", lambda: mps.command(f"get_server_status {server}") == ["ACTIVE"] or None)
    assert program(mps).hello == "0"


def test_terminated_program_gets_810_and_its_neighbour_nothing(mps: Mps) -> None:
    mps.start()
    target, neighbour = program(mps), program(mps)
    assert mps.command(f"terminate_client {mps.server()} {target.pid}") == ["0"]
    assert target.ask("go") == "810"
    assert neighbour.ask("go") == "0"


def test_program_of_a_killed_server_gets_806(mps: Mps) -> None:
    mps.start()
    one = program(mps)
    os.kill(mps.server(), signal.SIGKILL)
    wait_for("806", lambda: one.ask("go") == "806" or None)


def test_program_without_a_daemon_runs_without_mps(mps: Mps) -> None:
    assert program(mps).hello == "0"


def test_guard_confines_an_mmu_fault_to_its_culprit(mps: Mps) -> None:
    (mps.sim.path / "inject").write_text("set guard 1\n")
    mps.start()
    culprit, bystander = program(mps), program(mps)
    server = mps.server()
    assert culprit.ask("bad") == "700"
    assert bystander.ask("go") == "0"
    assert mps.command(f"get_server_status {server}") == ["ACTIVE"]
