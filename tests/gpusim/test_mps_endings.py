"""The hypothesis about ends of busy clients, and terminate_client that is slow, refused or silent."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from tests.gpusim.driver_harness import FAULTS, Program, built, out
from tests.gpusim.host import SimHost
from tests.gpusim.inject import Injector
from tests.gpusim.mps_harness import Client, Mps, wait_for

Join = Callable[[], Program]


@pytest.fixture
def mps() -> Iterator[Mps]:
    with SimHost(memory=64, build=built(), values={"ui_busy": "1"}) as made:
        place = Mps(made)
        place.start()
        yield place
        place.close()


@pytest.fixture
def inject(mps: Mps) -> Injector:
    return Injector(mps.sim.path)


@pytest.fixture
def client(mps: Mps) -> Iterator[Join]:
    """Makes programs that join the daemon."""
    made: list[Program] = []

    def join() -> Program:
        made.append(Program(mps.sim, CUDA_MPS_PIPE_DIRECTORY=str(mps.pipe)))
        return made[-1]

    yield join
    for one in made:
        one.kill()


def work(one: Program) -> None:
    """Start a kernel without an end."""
    flag = one.cu("cuMemAlloc_v2", out("u64"), 4)
    one.cu("cuMemsetD32_v2", flag, ("u32", 0), 1)
    one.launch(one.function(one.module(FAULTS), "spin"), 1, ("u64", flag), stream=one.stream())


def listed(mps: Mps) -> list[str]:
    return mps.command(f"get_client_list {mps.server()}")


def gone(mps: Mps, pid: int) -> None:
    wait_for("the client's end", lambda: str(pid) not in listed(mps) or None)


def hurt(clients: list[Client]) -> list[str]:
    return [one.ask("hurt") for one in clients]


def test_a_busy_death_is_an_error_of_the_neighbour(mps: Mps, inject: Injector, client: Join) -> None:
    inject.set("busy_death_permille", 1000)
    inject.set("busy_death_how", 2)
    busy, neighbour = client(), client()
    work(busy)
    busy.kill()
    wait_for("the neighbour's error", lambda: neighbour.code("cuCtxSynchronize") == 719 or None)
    assert mps.command(f"get_server_status {mps.server()}") == ["ACTIVE"]


def test_a_busy_death_stops_a_neighbours_endless_kernel_with_the_error(inject: Injector, client: Join) -> None:
    inject.set("busy_death_permille", 1000)
    inject.set("busy_death_how", 2)
    busy, neighbour = client(), client()
    work(neighbour)
    neighbour.begin("cuCtxSynchronize")
    work(busy)
    busy.kill()
    assert neighbour.ended() == 719


def test_a_busy_death_is_wrong_bytes_of_the_neighbour(mps: Mps, inject: Injector, client: Join) -> None:
    inject.set("busy_death_permille", 1000)
    inject.set("busy_death_how", 3)
    busy, neighbour = client(), client()
    address = neighbour.map(neighbour.create())
    neighbour.write(address, b"neighbour")
    work(busy)
    busy.kill()
    gone(mps, busy.pid)
    wait_for("wrong bytes", lambda: neighbour.read(address, 9) != b"neighbour" or None)
    assert neighbour.code("cuCtxSynchronize") == 0


def test_a_busy_death_is_work_of_the_neighbour_that_never_ends(mps: Mps, inject: Injector, client: Join) -> None:
    inject.set("busy_death_permille", 1000)
    inject.set("busy_death_how", 1)
    busy, neighbour = client(), client()
    address, stream = neighbour.map(neighbour.create()), neighbour.stream()
    work(busy)
    busy.kill()
    gone(mps, busy.pid)
    neighbour.cu("cuMemsetD32Async", address, ("u32", 7), 1, stream)
    assert neighbour.code("cuStreamQuery", stream) == 600
    neighbour.begin("cuCtxSynchronize")
    assert mps.command(f"terminate_client {mps.server()} {neighbour.pid}") == ["0"]
    assert neighbour.ended() == 810


@pytest.mark.parametrize("way", ["idle", "terminated", "finished", "switch off"])
def test_who_ends_idle_or_terminated_hurts_nobody(mps: Mps, inject: Injector, way: str) -> None:
    inject.set("busy_death_permille", 0 if way == "switch off" else 1000)
    ending, neighbour = mps.client(), mps.client()
    if way != "idle":
        ending.tell("busy 3")
        ending.ask("look")
    if way == "finished":
        ending.tell("busy 0")
        ending.ask("look")
    if way == "terminated":
        assert mps.command(f"terminate_client {mps.server()} {ending.pid}") == ["0"]
    ending.kill()
    gone(mps, ending.pid)
    assert neighbour.ask("hurt") == "hurt=0"


def deaths(seed: int, permille: int) -> list[str]:
    """What 20 busy deaths do to 6 neighbours on a server of their own."""
    with SimHost(memory=64, build=built(), values={"ui_busy": "1"}) as made:
        inject, place = Injector(made.path), Mps(made)
        place.start()
        try:
            inject.set("busy_death_permille", permille)
            inject.set("busy_death_seed", seed)
            stay = [place.client() for _ in range(6)]
            for _ in range(20):
                one = place.client()
                one.tell("busy 1")
                one.ask("look")
                one.kill()
                gone(place, one.pid)
            return hurt(stay)
        finally:
            place.close()


def test_the_lots_are_the_seeds() -> None:
    first = deaths(1, 60)
    assert deaths(1, 60) == first
    assert deaths(2, 60) != first
    assert {"hurt=0"} < set(first)


def test_terminate_client_is_refused_and_ends_nobody(mps: Mps, inject: Injector) -> None:
    inject.set("terminate_code", 999)
    target = mps.client()
    assert mps.command(f"terminate_client {mps.server()} {target.pid}") == ["999"]
    assert listed(mps) == [str(target.pid)]


def test_terminate_client_is_slow_and_newcomers_wait_for_it(mps: Mps, inject: Injector) -> None:
    inject.set("terminate_ms", 300)
    target, server = mps.client(), mps.server()
    began = time.monotonic()
    asks = subprocess.Popen(
        [str(mps.sim.build / "bin" / "nvidia-cuda-mps-control")], env=mps.env, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    answer, _ = asks.communicate(f"terminate_client {server} {target.pid}\n", timeout=10)
    assert answer == "0\n"
    assert time.monotonic() - began >= 0.3
    assert target.read() == "terminated"


def test_terminate_client_hangs_until_its_target_has_gone(mps: Mps, inject: Injector) -> None:
    inject.set("terminate_hangs", 1)
    target, server = mps.client(), mps.server()
    asks = subprocess.Popen(
        [str(mps.sim.build / "bin" / "nvidia-cuda-mps-control")], env=mps.env, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert asks.stdin
    asks.stdin.write(f"terminate_client {server} {target.pid}\n")
    asks.stdin.flush()
    wait_for("the refusal of newcomers", lambda: mps.client().hello == "error code=807" or None)
    assert asks.poll() is None
    target.kill()
    answer, _ = asks.communicate(timeout=10)
    assert answer == "0\n"
    assert mps.client().hello.startswith("attached")
