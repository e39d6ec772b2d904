"""Protocol 3 of driver 615 as it is documented: named servers side by side, each with its own namespaces, clients and faults."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gpusim.driver_harness import GRANULE, Program, out, prop
from tests.gpusim.host import SimHost
from tests.gpusim.mps_harness import Client, Mps, wait_for

OUT_OF_MEMORY = 2


@pytest.fixture
def v3(sim_host: SimHost) -> Iterator[Mps]:
    place = Mps(sim_host)
    place.env["SIMGPU_MPS_DIALECT"] = "615"
    assert place.start("-p", "3").returncode == 0
    yield place
    place.close()


def say(place: Mps, *words: str, user: int | None = None) -> list[str]:
    """One command in the words of the command line."""
    done = place.run(["nvidia-cuda-mps-control", *words], user=user)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def listed(place: Mps, module: str, *words: str) -> list[list[str]]:
    """What `<module> list` prints, a list of fields for each line."""
    return [row.split(",") for row in say(place, module, "list", *words, "--format=csv,noheader")]


def create(place: Mps, name: str, *options: str) -> None:
    assert say(place, "server", "create", name, f"--uid={os.getuid()}", *options) == []
    wait_for(f"server {name}", lambda: say(place, "server", "get", name, "status") == ["Ready"] or None)


def door(place: Mps, server: str, space: str = "default") -> str:
    return str(place.pipe / server / space)


def join(place: Mps, server: str, partition: str = "", space: str = "default") -> Client:
    return place.client(CUDA_MPS_PIPE_DIRECTORY=door(place, server, space), CUDA_MPS_SM_PARTITION=partition)


def test_named_servers_live_side_by_side_and_a_fault_stays_in_one(v3: Mps) -> None:
    for name in ("a", "b"):
        create(v3, name)
    rows = listed(v3, "server")
    assert [(row[0], row[1], row[3:]) for row in rows] == [
        (name, str(os.getuid()), ["Ready", str(v3.pipe / name), "all", "-"]) for name in ("a", "b")
    ]
    culprit, bystander = join(v3, "a"), join(v3, "b")
    assert [row[:4] for row in listed(v3, "client")] == [
        [str(culprit.pid), "a", "0", "default"],
        [str(bystander.pid), "b", "0", "default"],
    ]
    culprit.tell("fault 719 13")
    wait_for("Fault", lambda: say(v3, "server", "get", "a", "status") == ["Fault"] or None)
    assert join(v3, "a").hello == "error code=807"
    assert bystander.ask("look").startswith("sticky=0")
    assert "encountered a fatal GPU error" in (v3.logs / "a" / "server.log").read_text()
    assert "fatal" not in (v3.logs / "b" / "server.log").read_text()


def test_a_client_without_a_server_of_its_own_gets_that_of_its_user(v3: Mps) -> None:
    client = v3.client()
    assert client.hello.startswith("attached")
    assert [row[:2] for row in listed(v3, "client")] == [[str(client.pid), f"uid_{os.getuid()}"]]


def test_namespaces_share_a_server_and_its_faults_but_not_their_limits(v3: Mps) -> None:
    create(v3, "a")
    assert say(v3, "namespace", "create", "tight", "--server=a") == []
    assert say(v3, "namespace", "set", "tight", "--server=a", "--pinned-memory-limit=4M") == []
    assert say(v3, "namespace", "set", "tight", "--server=a", "--active-thread-percentage=25") == []
    assert say(v3, "namespace", "get", "tight", "a", "pinned-memory-limit") == ["4M"]
    assert listed(v3, "namespace", "--server=a") == [
        ["default", "a", "Ready", "-", "-", "-", door(v3, "a")],
        ["tight", "a", "Ready", "4M", "25", "-", door(v3, "a", "tight")],
    ]
    assert say(v3, "server", "set", "a", "--pinned-memory-limit=6M") == []  # of the default namespace alone
    sizes = {"tight": 4, "default": 6}
    for space, mib in sizes.items():
        with Program(v3.sim, CUDA_MPS_PIPE_DIRECTORY=door(v3, "a", space)) as one:
            codes = [one.code("cuMemCreate", out("u64"), GRANULE, prop(), 0) for _ in range(4)]
            assert codes == [0] * (mib // 2) + [OUT_OF_MEMORY] * (4 - mib // 2), space
            assert say(v3, "client", "get", str(one.pid), "maws-ns") == [space]
    # the server's own socket leads to the default namespace
    with Program(v3.sim, CUDA_MPS_PIPE_DIRECTORY=str(v3.pipe / "a")) as one:
        assert [row[3] for row in listed(v3, "client")] == ["default"]
    culprit, neighbour = join(v3, "a", space="tight"), join(v3, "a")
    assert "percentage=25" in culprit.hello
    assert "percentage=100" in neighbour.hello
    culprit.tell("fault 700 31")
    wait_for("the neighbour's error", lambda: neighbour.ask("look").startswith("sticky=700") or None)


def test_a_namespace_goes_when_it_is_empty_or_by_force(v3: Mps) -> None:
    create(v3, "a")
    assert say(v3, "namespace", "create", "x", "--server=a") == []
    client = join(v3, "a", space="x")
    assert say(v3, "namespace", "delete", "x", "--server=a") == ["Namespace x has 1 clients"]
    assert say(v3, "namespace", "delete", "default", "--server=a") == ["Namespace default cannot be deleted"]
    assert say(v3, "namespace", "delete", "x", "--server=a", "--force") == []
    assert client.ask("look").startswith("sticky=0")
    assert join(v3, "a", space="x").hello == "no-daemon"  # its directory has gone: silently without MPS
    assert [row[0] for row in listed(v3, "namespace")] == ["default"]


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["namespace", "create", "Bad-Name", "--server=a"], "Invalid namespace name Bad-Name"),
        (["namespace", "create", "default", "--server=a"], "Namespace default already exists on server a"),
        (["namespace", "create", "x", "--server=b"], "Server b not found"),
        (["namespace", "create", "x"], "A server name is required"),
        (["namespace", "set", "x", "--server=a", "--client-priority=1"], "Namespace x not found on server a"),
        (["namespace", "set", "default", "--server=a", "--pinned-memory-limit=4"], "Invalid memory limit 4"),
        (["namespace", "set", "default", "--server=a", "--client-priority=2"], "Invalid priority value - must be 0 or 1!"),
        (
            ["namespace", "set", "default", "--server=a", "--active-thread-percentage=0"],
            "Invalid percentage 0, expected between 1 and 100",
        ),
        (["namespace", "get", "default", "a", "colour"], "Unknown field colour"),
        (["server", "create", "a"], "Server a already exists"),
        (["server", "create", "A"], "Invalid server name A"),
        (["server", "create", "x/y"], "Invalid server name x/y"),
        (["client", "terminate", "1"], "Client 1 not found"),
        (["feature", "enable", "memacct"], 'Unknown command "feature enable memacct"'),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said_and_changes_nothing(v3: Mps, words: list[str], answer: str) -> None:
    create(v3, "a")
    before = listed(v3, "namespace")
    if words[0] == "feature":  # not one of the simulated modules: the front end takes its words for options
        assert v3.command(" ".join(words)) == [answer]
    else:
        assert say(v3, *words) == [answer]
    assert listed(v3, "namespace") == before


def test_a_path_that_no_socket_can_have_leaves_nothing_behind(v3: Mps) -> None:
    create(v3, "a")
    for words in (["server", "create", "x" * 64], ["namespace", "create", "x" * 64, "--server=a"]):
        (answer,) = say(v3, *words)
        assert answer.endswith("cannot be created: AF_UNIX path too long")
    assert [row[:2] for row in listed(v3, "namespace")] == [["default", "a"]]
    assert sorted(path.name for path in v3.pipe.iterdir() if path.is_dir()) == ["a"]
    assert sorted(path.name for path in (v3.pipe / "a").iterdir()) == ["control", "default"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become other users")
def test_a_user_has_servers_of_their_own_and_no_say_in_others(v3: Mps) -> None:
    create(v3, "a")
    for words in (["delete", "a"], ["set", "a", "--client-priority=1"], ["create", "b", "--uid=0"]):
        assert say(v3, "server", *words, user=64001) == ["Insufficient privileges for UID 64001"]
    assert say(v3, "server", "create", "theirs", user=64001) == []
    assert [row[:2] for row in listed(v3, "server")] == [["a", "0"], ["theirs", "64001"]]


def test_terminate_and_delete(v3: Mps) -> None:
    create(v3, "a")
    client = join(v3, "a")
    assert say(v3, "client", "terminate", str(client.pid)) == ["0"]
    assert client.read() == "terminated"
    other = join(v3, "a")
    assert say(v3, "server", "delete", "a") == ["Server a has 2 clients"]
    assert say(v3, "server", "delete", "a", "--force") == []
    assert other.read() == "terminated"
    assert other.process.stdout is not None
    assert other.process.stdout.readline() == "lost\n"  # both may have come at once
    assert client.read() == "lost"
    wait_for("its end", lambda: listed(v3, "server") == [] or None)
    assert not Path(v3.pipe / "a").exists()


def test_quit_ends_daemon_and_servers_with_their_clients(v3: Mps) -> None:
    create(v3, "a")
    client = join(v3, "a")
    assert say(v3, "-q") == []
    assert client.read() == "lost"
    wait_for("the daemon's end", lambda: v3.run(["nvidia-cuda-mps-control", "server", "list"]).returncode == 1 or None)


def test_a_bad_device_is_accepted_and_clients_then_run_without_mps(v3: Mps) -> None:
    assert say(v3, "server", "create", "a", f"--uid={os.getuid()}", "--allowed-devices=GPU-nothing") == []
    wait_for("its end", lambda: listed(v3, "server") == [] or None)
    assert join(v3, "a").hello == "no-daemon"


def test_devices_are_listed_as_a_server_sees_them(v3: Mps) -> None:
    gpu = v3.sim.gpus[0]
    create(v3, "a")
    assert listed(v3, "device") == [["0", "a", gpu.bus, gpu.uuid, gpu.name, "132", "16", "-"]]
    assert say(v3, "device", "list")[0].split("  ")[0] == "ORDINAL SERVER PCI ID"


def test_a_partition_needs_no_option_and_prints_what_a_client_sets(v3: Mps) -> None:
    create(v3, "a")
    gpu = v3.sim.gpus[0].uuid
    options = ("--server=a", f"--device={gpu}")
    first, value = say(v3, "sm-partition", "create", "p", *options, "--chunks=7")
    assert first == f"SM partition 'p' created on device {gpu} (sm-count=56)"
    partition = value.removeprefix("CUDA_MPS_SM_PARTITION=")
    assert partition.startswith(f"{gpu}/")
    assert say(v3, "sm-partition", "create", "q", "--server=a", "--device=0", "--chunks=10") == [
        "10 chunks are not to be had: 9 are free"
    ]
    assert [row[:5] + row[6:7] for row in listed(v3, "sm-partition")] == [
        ["a", gpu, "p", "7", "56", "created"],
        ["a", gpu, "-", "9", "72", "unallocated"],
    ]
    client = join(v3, "a", partition)
    assert client.hello.startswith("attached")
    assert say(v3, "sm-partition", "delete", "p", *options) == [
        f"SM partition 'p' cannot be deleted: device {gpu} has clients"
    ]
    client.end()
    gone = [f"SM partition 'p' deleted from device {gpu}"]
    wait_for("the client's end", lambda: say(v3, "sm-partition", "delete", "p", *options) == gone or None)
    assert join(v3, "a", partition).hello == "error code=1"


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
