"""Protocol 3 of driver 615 as it is documented: named servers side by side, each with its own clients and faults."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gpusim.host import SimHost
from tests.gpusim.mps_harness import Client, Mps, wait_for


@pytest.fixture
def v3(sim_host: SimHost) -> Iterator[Mps]:
    place = Mps(sim_host)
    place.env["SIMGPU_MPS_DIALECT"] = "615"
    assert place.start("-p", "3").returncode == 0
    yield place
    place.close()


def say(place: Mps, *words: str) -> list[str]:
    """One command in the words of the command line."""
    done = place.run(["nvidia-cuda-mps-control", *words])
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def create(place: Mps, name: str, *options: str) -> None:
    assert say(place, "server", "create", name, f"--uid={os.getuid()}", *options) == []
    wait_for(f"server {name}", lambda: say(place, "server", "get", name, "status") == ["Ready"] or None)


def join(place: Mps, name: str, partition: str = "") -> Client:
    pipe = str(place.pipe / name / "default")
    return place.client(CUDA_MPS_PIPE_DIRECTORY=pipe, CUDA_MPS_SM_PARTITION=partition)


def test_named_servers_live_side_by_side_and_a_fault_stays_in_one(v3: Mps) -> None:
    for name in ("a", "b"):
        create(v3, name)
    rows = [row.split(",") for row in say(v3, "server", "list", "--format=csv,noheader")]
    assert [(row[0], row[1], row[3], row[4]) for row in rows] == [
        (name, str(os.getuid()), "Ready", str(v3.pipe / name / "default")) for name in ("a", "b")
    ]
    culprit, bystander = join(v3, "a"), join(v3, "b")
    assert say(v3, "client", "list") == [f"{culprit.pid},a,default", f"{bystander.pid},b,default"]
    culprit.tell("fault 719 13")
    wait_for("Fault", lambda: say(v3, "server", "get", "a", "status") == ["Fault"] or None)
    assert join(v3, "a").hello == "error code=807"
    assert bystander.ask("look").startswith("sticky=0")
    assert "encountered a fatal GPU error" in (v3.logs / "a" / "server.log").read_text()
    assert "fatal" not in (v3.logs / "b" / "server.log").read_text()


def test_a_client_without_a_server_of_its_own_gets_that_of_its_user(v3: Mps) -> None:
    client = v3.client()
    assert client.hello.startswith("attached")
    assert say(v3, "client", "list") == [f"{client.pid},uid_{os.getuid()},default"]


def test_terminate_and_delete(v3: Mps) -> None:
    create(v3, "a")
    client = join(v3, "a")
    assert say(v3, "client", "terminate", str(client.pid)) == ["0"]
    assert client.read() == "terminated"
    assert say(v3, "client", "terminate", "1") == ["Client 1 not found"]
    assert say(v3, "server", "delete", "a") == ["Server a has 1 clients"]
    assert say(v3, "server", "delete", "a", "--force") == []
    assert client.read() == "lost"
    wait_for("its end", lambda: say(v3, "server", "list", "--format=csv,noheader") == [] or None)
    assert not Path(v3.pipe / "a").exists()


def test_a_bad_device_is_accepted_and_clients_then_run_without_mps(v3: Mps) -> None:
    assert say(v3, "server", "create", "a", f"--uid={os.getuid()}", "--allowed-devices=GPU-nothing") == []
    wait_for("its end", lambda: say(v3, "server", "list", "--format=csv,noheader") == [] or None)
    assert join(v3, "a").hello == "no-daemon"


def test_a_partition_needs_no_option_and_prints_what_a_client_sets(v3: Mps) -> None:
    create(v3, "a")
    gpu = v3.sim.gpus[0].uuid
    (partition,) = say(v3, "sm-partition", "create", "p", "--server=a", f"--device={gpu}", "--chunks=7")
    assert partition.startswith(f"{gpu}/")
    assert join(v3, "a", partition).hello.startswith("attached")
    assert say(v3, "sm-partition", "create", "q", "--server=a", f"--device={gpu}", "--chunks=10") == [
        "10 chunks are not to be had: 9 are free"
    ]


def test_the_commands_of_the_one_protocol_are_unknown_to_the_other(v3: Mps, sim_host: SimHost) -> None:
    assert v3.command("get_server_list") == ['Unknown command "get_server_list"']
    old = Mps(sim_host, "old")
    old.env["SIMGPU_MPS_DIALECT"] = "615"
    assert old.start().returncode == 0
    try:
        assert say(old, "server", "list") == ['Unknown command "server"']
        assert old.command("get_server_list") == []
    finally:
        old.close()
