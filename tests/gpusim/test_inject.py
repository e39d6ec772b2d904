"""The injection interface: each verb has the effect that its page promises, on the simulated driver and on MPS."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.gpusim.host import SimHost
from tests.gpusim.inject import Injector
from tests.gpusim.mps_harness import LIMIT, Mps, wait_for

needs_library = pytest.mark.skipif(
    not (Path(__file__).resolve().parents[2] / "build/gpusim/libcuda.so.1").exists(),
    reason="make build first: no libcuda",
)

PROGRAM = """
import ctypes
cuda = ctypes.CDLL("libcuda.so.1")
context, pointer = ctypes.c_void_p(), ctypes.c_uint64()
print(cuda.cuInit(0), end=" ")
cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0)
print(cuda.cuCtxSetCurrent(context), end=" ")
for size in SIZES:
    print(cuda.cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(size << 20)), end=" ")
"""


def driver(sim: SimHost, sizes: list[int], **more: str) -> list[int]:
    """Return codes of cuInit, cuCtxSetCurrent and one cuMemAlloc for each size in MiB."""
    program = PROGRAM.replace("SIZES", repr(sizes))
    env = sim.env(CUDA_MPS_PIPE_DIRECTORY=str(sim.path / "nobody"), **more)
    done = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, timeout=LIMIT, check=True
    )
    return [int(word) for word in done.stdout.split()]


@needs_library
def test_nth_call_fails_and_only_that_one(sim_host: SimHost) -> None:
    injector = Injector(sim_host.path)
    injector.fail("cuMemAlloc", 2, 999)
    assert driver(sim_host, [1, 1, 1]) == [0, 0, 0, 999, 0]
    injector.clear()
    assert driver(sim_host, [1, 1, 1]) == [0, 0, 0, 0, 0]


@needs_library
def test_filled_memory_is_out_of_memory_and_comes_back(sim_host: SimHost) -> None:
    with Injector(sim_host.path).fill(0, leave=16) as taken:
        assert taken == 256 - 16
        assert driver(sim_host, [32, 8]) == [0, 0, 2, 0]
    assert driver(sim_host, [32, 8]) == [0, 0, 0, 0]


def test_bad_rules_are_refused(sim_host: SimHost) -> None:
    injector = Injector(sim_host.path)
    for function, call, code in (("malloc", 1, 2), ("cuMemCreate", 0, 2), ("cuMemCreate", 1, 0)):
        with pytest.raises(ValueError, match="gpusim: inject"):
            injector.fail(function, call, code)
    with pytest.raises(ValueError, match="gpusim: inject"):
        injector.set("rebuild ms", 1)
    assert (sim_host.path / "inject").read_text() == ""


def test_xid_without_a_fault_stands_in_both_places(sim_host: SimHost) -> None:
    Injector(sim_host.path).xid(0, 79, text="GPU has fallen off the bus.")
    line = "NVRM: Xid (PCI:0000:06:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.\n"
    assert (sim_host.path / "kmsg").read_text() == line
    assert (sim_host.path / "events").read_text().split()[1:] == ["0", "79", "0"]


def test_sightings_can_come_in_either_order(sim_host: SimHost) -> None:
    injector = Injector(sim_host.path)
    injector.xid(0, 31, pid=1, kmsg=False)
    assert (sim_host.path / "kmsg").read_text() == ""
    injector.xid(0, 31, pid=1, event=False)
    assert (sim_host.path / "kmsg").read_text().startswith("NVRM: Xid (PCI:0000:06:00): 31, pid=1, name=")
    assert len((sim_host.path / "events").read_text().splitlines()) == 1


def test_hanging_server_answers_nobody_until_it_goes_on(mps: Mps) -> None:
    mps.start()
    mps.client()
    server = mps.server()
    with Injector(mps.sim.path).hang(server):
        held = subprocess.Popen(
            [str(mps.sim.build / "bin" / "gpusim-mps-client")],
            env=mps.env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        wait_for("the client at the control daemon", lambda: f"NEW CLIENT {held.pid} from user" in _log(mps) or None)
        assert mps.command(f"get_client_list {server}") != [str(held.pid)]
        assert held.poll() is None
    assert held.stdout is not None
    assert held.stdout.readline().startswith("attached")
    held.communicate(timeout=LIMIT)


def _log(mps: Mps) -> str:
    return "\n".join(mps.log("control.log"))


def test_killed_server_from_the_interface(mps: Mps) -> None:
    mps.start()
    client = mps.client()
    Injector(mps.sim.path).kill(mps.server())
    assert client.read() == "lost"


def test_processes_from_the_command_line(mps: Mps) -> None:
    mps.start()
    client = mps.client()
    argv = [sys.executable, "-m", "tests.gpusim.inject", str(mps.sim.path)]
    with subprocess.Popen([*argv, "hang", str(client.pid)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as held:
        assert held.stdout is not None
        assert held.stdout.readline() == b"stopped\n"
        wait_for("the client to stop", lambda: _state(client.pid) == "T" or None)
        held.communicate(timeout=LIMIT)
    wait_for("the client to go on", lambda: _state(client.pid) != "T" or None)
    subprocess.run([*argv, "kill", str(mps.server())], check=True)
    assert client.read() == "lost"
    gone = subprocess.run([*argv, "kill", "999999999"], capture_output=True, text=True, check=False)
    assert (gone.returncode, gone.stderr) == (1, "gpusim: inject: no such process: 999999999\n")


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_command_line(sim_host: SimHost) -> None:
    for words in (["set", "rebuild_ms", "7"], ["fail", "cuInit", "1", "100"], ["xid", "0", "13", "--pid", "5"]):
        subprocess.run([sys.executable, "-m", "tests.gpusim.inject", str(sim_host.path), *words], check=True)
    assert (sim_host.path / "inject").read_text() == "set rebuild_ms 7\nfail cuInit 1 100\n"
    assert (sim_host.path / "events").read_text().endswith("0 13 5\n")
    done = subprocess.run(
        [sys.executable, "-m", "tests.gpusim.inject", "/nowhere", "clear"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr == "gpusim: directory: holds no simulated host: /nowhere\n"
