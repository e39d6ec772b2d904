"""The simulated driver as client of the simulated MPS daemon: joining, faults that spread, ends of all kinds."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.gpusim.driver_harness import FAULTS, GRANULE, MIB, Program, built, counted, out, prop, xids
from tests.gpusim.host import SimHost
from tests.gpusim.mps_harness import Mps, wait_for

MPS_ENABLED = 133


@pytest.fixture
def sim() -> Iterator[SimHost]:
    with SimHost(gpus=2, memory=64, build=built(), values={"ui_busy": "1"}) as made:
        yield made


@pytest.fixture
def mps(sim: SimHost) -> Iterator[Mps]:
    """A daemon that sees GPU 0."""
    place = Mps(sim)
    place.start(CUDA_VISIBLE_DEVICES=sim.gpus[0].uuid)
    yield place
    place.close()


@pytest.fixture
def client(mps: Mps) -> Iterator[Callable[..., Program]]:
    """Makes programs that join the daemon."""
    made: list[Program] = []

    def join(**options: str | bool) -> Program:
        made.append(Program(mps.sim, **{"CUDA_MPS_PIPE_DIRECTORY": str(mps.pipe)} | options))  # type: ignore[arg-type]
        return made[-1]

    yield join
    for one in made:
        one.kill()


Join = Callable[..., Program]


def spin(one: Program) -> None:
    """Start a kernel without an end, on a stream of its own."""
    flag = one.cu("cuMemAlloc_v2", out("u64"), 4)
    one.cu("cuMemsetD32_v2", flag, ("u32", 0), 1)
    one.launch(one.function(one.module(FAULTS), "spin"), 1, ("u64", flag), stream=one.stream())


def fault(one: Program, kernel: str, *arguments: tuple[str, int | float]) -> None:
    """Launch a kernel that goes wrong."""
    assert one.launch(one.function(one.module(FAULTS), kernel), 1, *arguments) == 0


def enabled(one: Program) -> int:
    return int(one.cu("cuDeviceGetAttribute", out("i32"), ("i32", MPS_ENABLED), ("i32", 0)))


def test_a_program_joins_and_is_listed(mps: Mps, client: Join) -> None:
    one = client()
    assert enabled(one) == 1
    assert mps.command(f"get_client_list {mps.server()}") == [str(one.pid)]
    assert (mps.sim.path / "procs" / f"0.{one.pid}").read_text().startswith("mps=1 uid=")
    one.finish()
    wait_for("the client's end", lambda: mps.command(f"get_client_list {mps.server()}") == [] or None)


def test_without_a_daemon_the_program_runs_without_mps(sim: SimHost, tmp_path: Path) -> None:
    with Program(sim, CUDA_MPS_PIPE_DIRECTORY=str(tmp_path)) as one:
        assert enabled(one) == 0


def test_a_dead_daemons_socket_is_no_daemon(mps: Mps, sim: SimHost) -> None:
    pid = mps.daemon()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_for("the daemon's end", lambda: mps.daemon() is None or None)
    assert (mps.pipe / "control").exists()
    with Program(sim, CUDA_MPS_PIPE_DIRECTORY=str(mps.pipe)) as one:
        assert enabled(one) == 0


@pytest.mark.parametrize(
    ("kernel", "arguments", "code", "xid"),
    [("write_address", [("u64", 64), ("f64", 1.0)], 700, 31), ("trap", [], 719, 13), ("misaligned", [], 716, 13)],
)
def test_a_fault_reaches_every_client_of_the_server(
    mps: Mps, client: Join, kernel: str, arguments: list[tuple[str, int | float]], code: int, xid: int
) -> None:
    culprit, working, waiting = client(), client(), client()
    with Program(mps.sim) as outsider:
        if kernel == "misaligned":
            arguments = [("u64", culprit.map(culprit.create()))]
        kept = working.create()
        address = working.map(kept)
        working.write(address, b"innocent")
        spin(waiting)
        waiting.begin("cuCtxSynchronize")
        fault(culprit, kernel, *arguments)
        assert culprit.code("cuCtxSynchronize") == code
        assert working.code("cuCtxSynchronize") == code
        assert working.code("cuMemRelease", kept) == code
        assert waiting.ended() == code  # its endless kernel was stopped
        assert outsider.code("cuCtxSynchronize") == 0
    log = xids(mps.sim)
    assert len(log) == 1
    assert f"): {xid}, pid={culprit.pid}, name=python" in log[0]
    server = mps.server()
    wait_for("FAULT", lambda: mps.command(f"get_server_status {server}") == ["FAULT"] or None)
    assert f"Client {{PID: {culprit.pid}, Context: 1}} encountered a fatal GPU error." in mps.log("server.log")


def test_newcomers_get_807_and_the_same_process_may_try_again(mps: Mps, client: Join) -> None:
    culprit, bystander = client(), client()
    fault(culprit, "trap")
    assert culprit.code("cuCtxSynchronize") == 719
    late = client(start=False)
    assert late.code("cuInit", 0) == 807
    assert late.code("cuCtxSynchronize") == 3
    culprit.kill()
    bystander.kill()
    wait_for("cuInit", lambda: late.code("cuInit", 0) == 0 or None)
    late.cu("cuCtxCreate_v2", out("u64"), 0, 0)
    assert enabled(late) == 1
    assert late.code("cuCtxSynchronize") == 0


def test_memory_survives_the_fault_in_another_process(mps: Mps, client: Join, sim: SimHost) -> None:
    solver, culprit = client(), client()
    handle = solver.create()
    solver.write(solver.map(handle), b"step 41")
    descriptor = solver.export(handle)
    fault(culprit, "trap")
    assert solver.code("cuCtxSynchronize") in (0, 719)
    wait_for("the error", lambda: solver.code("cuCtxSynchronize") == 719 or None)
    solver.kill()
    culprit.kill()
    assert counted(sim) == GRANULE
    heir = client(start=False)
    wait_for("cuInit", lambda: heir.code("cuInit", 0) == 0 or None)
    heir.cu("cuCtxCreate_v2", out("u64"), 0, 0)
    assert heir.read(heir.map(heir.import_(descriptor)), 7) == b"step 41"
    os.close(descriptor)


def test_another_server_on_the_same_gpu_is_not_touched(mps: Mps, client: Join, sim: SimHost) -> None:
    other = Mps(sim, "other")
    other.start(CUDA_VISIBLE_DEVICES=sim.gpus[0].uuid)
    try:
        culprit = client()
        with Program(sim, CUDA_MPS_PIPE_DIRECTORY=str(other.pipe)) as safe:
            fault(culprit, "trap")
            assert culprit.code("cuCtxSynchronize") == 719
            assert safe.code("cuCtxSynchronize") == 0
            assert enabled(safe) == 1
    finally:
        other.close()


def test_the_guard_keeps_an_mmu_fault_with_its_culprit(mps: Mps, client: Join, sim: SimHost) -> None:
    (sim.path / "inject").write_text("set guard 1\n")
    culprit, bystander = client(), client()
    fault(culprit, "write_address", ("u64", 64), ("f64", 1.0))
    assert culprit.code("cuCtxSynchronize") == 700
    assert bystander.code("cuCtxSynchronize") == 0
    assert mps.command(f"get_server_status {mps.server()}") == ["ACTIVE"]
    assert len(xids(sim)) == 1
    second = client()
    fault(second, "trap")  # not an MMU fault: no guard against it
    assert second.code("cuCtxSynchronize") == 719
    assert bystander.code("cuCtxSynchronize") == 719


def test_terminate_client_ends_one_client_also_in_an_endless_kernel(mps: Mps, client: Join) -> None:
    target, other = client(), client()
    spin(target)
    target.begin("cuCtxSynchronize")
    assert mps.command(f"terminate_client {mps.server()} {target.pid}") == ["0"]
    assert target.ended() == 810
    assert target.code("cuMemAlloc_v2", out("u64"), 4) == 810
    assert other.code("cuCtxSynchronize") == 0
    assert xids(mps.sim) == []


def test_a_killed_server_is_806_and_a_killed_daemon_is_nothing(mps: Mps, client: Join) -> None:
    one = client()
    server = mps.server()
    daemon = mps.daemon()
    assert daemon is not None
    os.kill(daemon, signal.SIGKILL)
    wait_for("the daemon's end", lambda: mps.daemon() is None or None)
    address = one.map(one.create())
    one.write(address, b"fine")
    os.kill(server, signal.SIGKILL)
    wait_for("806", lambda: one.code("cuCtxSynchronize") == 806 or None)
    assert one.code("cuMemcpyHtoD_v2", address, b"x", 1) == 806


def test_a_killed_server_stops_an_endless_kernel(mps: Mps, client: Join) -> None:
    one = client()
    spin(one)
    one.begin("cuCtxSynchronize")
    os.kill(mps.server(), signal.SIGKILL)
    assert one.ended() == 806


def test_one_client_too_many_gets_808(mps: Mps, client: Join, sim: SimHost) -> None:
    (sim.path / "inject").write_text("set client_limit 2\n")
    client()
    client()
    assert client(start=False).code("cuInit", 0) == 808


def test_visible_devices_count_among_the_servers_gpus(sim: SimHost) -> None:
    place = Mps(sim)
    place.start(CUDA_VISIBLE_DEVICES=sim.gpus[1].uuid)
    try:
        pipe = str(place.pipe)
        for visible in ("0", sim.gpus[1].uuid):
            with Program(sim, CUDA_MPS_PIPE_DIRECTORY=pipe, CUDA_VISIBLE_DEVICES=visible) as one:
                one.create()
                assert counted(sim, 1) == GRANULE
        for visible in ("1", sim.gpus[0].uuid):
            with Program(sim, start=False, CUDA_MPS_PIPE_DIRECTORY=pipe, CUDA_VISIBLE_DEVICES=visible) as one:
                assert one.code("cuInit", 0) == 100
    finally:
        place.close()


def test_pinned_memory_limits(mps: Mps, client: Join) -> None:
    own = client(CUDA_MPS_PINNED_DEVICE_MEM_LIMIT="1=1G,0=6M")
    handles = [own.create() for _ in range(3)]
    assert own.code("cuMemCreate", out("u64"), GRANULE, prop(), 0) == 2
    assert own.cu("cuMemGetInfo_v2", out("u64"), out("u64")) == [58 * MIB, 64 * MIB]
    own.cu("cuMemRelease", handles.pop())
    own.cu("cuMemAlloc_v2", out("u64"), 1)
    assert own.code("cuMemAlloc_v2", out("u64"), 1) == 2
    other = client()
    shared = other.create()
    own.map(own.import_(other.export(shared)))  # what others created does not count
    server = mps.server()
    mps.command(f"set_device_pinned_mem_limit {server} 0 4M")
    late = client()
    assert [late.code("cuMemCreate", out("u64"), GRANULE, prop(), 0) for _ in range(3)] == [0, 0, 2]


def test_limits_bind_only_under_mps(sim: SimHost) -> None:
    with Program(sim, CUDA_MPS_PINNED_DEVICE_MEM_LIMIT="0=2M") as one:
        one.create()
        one.create()


def test_a_forked_child_does_not_hold_the_place_of_its_parent(mps: Mps, client: Join) -> None:
    one = client()
    server = mps.server()
    child = one.do("fork_sleeper")
    try:
        one.kill()
        wait_for("the client's end", lambda: mps.command(f"get_client_list {server}") == [] or None)
    finally:
        os.kill(child, signal.SIGKILL)


# -- daemons that misbehave: a tiny one that speaks the wire ---


def answer_with(listener: socket.socket, answers: list[bytes], held: list[socket.socket]) -> None:
    """Answer each connection's first packet with the next of `answers`; b'' hangs up, the others stay in `held`."""
    for text in answers:
        peer, _ = listener.accept()
        held.append(peer)
        peer.recv(4096)
        if text:
            peer.send(text)
        else:
            peer.close()


@pytest.mark.parametrize(
    ("answers", "code"),
    [
        ([b"error code=805"], 805),
        ([b"error code=800"], 800),
        ([b"error"], 805),
        ([b"hello"], 805),
        ([b""], 805),
        ([b"server pid=1"], 805),
        ([b"server pid=1 path=/nonexistent"], 805),
        ([b"server pid=1 path=CONTROL", b"error code=808"], 808),
        ([b"server pid=1 path=CONTROL", b"attached context=1 minor=0"], 805),
        ([b"server pid=1 path=CONTROL", b""], 805),
    ],
)
def test_what_a_daemon_may_answer(sim: SimHost, answers: list[bytes], code: int) -> None:
    path = sim.path / "control"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        listener.listen()
        script = [text.replace(b"CONTROL", bytes(path)) for text in answers]
        held: list[socket.socket] = []
        thread = threading.Thread(target=answer_with, args=(listener, script, held), daemon=True)
        thread.start()
        with Program(sim, start=False, CUDA_MPS_PIPE_DIRECTORY=str(sim.path)) as one:
            assert one.code("cuInit", 0) == code
        thread.join()
        for peer in held:
            peer.close()


def test_a_silent_daemon_is_805(sim: SimHost) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(sim.path / "control"))
        listener.listen()
        with Program(sim, start=False, CUDA_MPS_PIPE_DIRECTORY=str(sim.path)) as one:
            assert one.code("cuInit", 0) == 805
