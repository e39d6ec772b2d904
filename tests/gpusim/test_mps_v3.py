"""Protocol 3 of driver 615 as it is documented: named servers side by side, each with its own namespaces, clients and faults."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from tests.gpusim.driver_harness import GRANULE, Program, out, prop
from tests.gpusim.host import SimHost
from tests.gpusim.inject import Injector
from tests.gpusim.mps_harness import Mps, wait_for
from tests.gpusim.mps_v3_harness import create, door, join, listed, place_of, say

OUT_OF_MEMORY = 2


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
        (["server", "create"], "A server name or --uid is required"),
        (["server", "create", "b", "--uid=me"], "Invalid user me"),
        (["server", "create", "b", "--uid="], "Option uid needs a value"),
        (["server", "create", "b", "--uid"], "Option uid needs a value"),
        (["server", "create", "b", "--locality-domains=on"], "Invalid value on, expected true or false"),
        (["server", "create", "b", "--allowed-device=0"], "Unknown option allowed-device"),
        (["server", "create", "b", "c"], "Too many arguments: c"),
        (["server", "delete", "a", "--force=yes"], "Option force takes no value"),
        (["server", "set", "a"], "At least one option is required: --uid=, --pinned-memory-limit=, --active-thread-percentage=, "
                                 "--client-priority=, --locality-domains="),
        (["server", "set", "a", "--client-priority=2"], "Invalid priority value - must be 0 or 1!"),
        (["server", "set", "a", "--locality-domains=1", "--client-priority=1"], "Invalid value 1, expected true or false"),
        (["server", "set", "a", "--uid=x"], "Invalid user x"),
        (["server", "set", "b", "--uid=0"], "Server b not found"),
        (["server", "get", "a", "context-ids"], "Unknown field context-ids"),
        (["server", "get", "a", "name", "uid"], "Too many arguments: uid"),
        (["server", "list", "--format=json"], "Invalid format json"),
        (["server", "start", "a"], 'Unknown command "server start a"'),
        (["namespace", "set", "default", "--server=a"],
         "At least one option is required: --pinned-memory-limit=, --active-thread-percentage=, --client-priority="),
        (["namespace", "set", "default", "--server=a", "--locality-domains=true"], "Unknown option locality-domains"),
        (["client", "list", "all"], "Too many arguments: all"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said_and_changes_nothing(v3: Mps, words: list[str], answer: str) -> None:
    create(v3, "a")
    before = listed(v3, "namespace"), listed(v3, "server")
    assert say(v3, *words) == [answer]
    assert (listed(v3, "namespace"), listed(v3, "server")) == before


def test_a_path_that_no_socket_can_have_leaves_nothing_behind(v3: Mps) -> None:
    create(v3, "a")
    for words in (["server", "create", "x" * 64], ["namespace", "create", "x" * 64, "--server=a"]):
        (answer,) = say(v3, *words)
        assert answer.endswith("cannot be created: AF_UNIX path too long")
    assert [row[:2] for row in listed(v3, "namespace")] == [["default", "a"]]
    assert sorted(path.name for path in v3.pipe.iterdir() if path.is_dir()) == ["a"]
    assert sorted(path.name for path in (v3.pipe / "a").iterdir()) == ["control", "default", "log"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become other users")
def test_a_user_has_servers_of_their_own_and_no_say_in_others(v3: Mps) -> None:
    create(v3, "a")
    client = join(v3, "a")
    for words in (
        ["server", "delete", "a"],
        ["server", "set", "a", "--client-priority=1"],
        ["server", "create", "b", "--uid=0"],
        ["namespace", "create", "x", "--server=a"],
        ["namespace", "set", "default", "--server=a", "--client-priority=1"],
        ["namespace", "delete", "default", "--server=a", "--force"],
        ["client", "terminate", str(client.pid)],
        ["sm-partition", "create", "p", "--server=a", "--device=0", "--chunks=1"],
        ["sm-partition", "delete", "p", "--server=a", "--device=0"],
    ):
        assert say(v3, *words, user=64001) == ["Insufficient privileges for UID 64001"]
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


def test_a_server_is_made_by_name_or_by_user_and_is_there_when_the_command_returns(v3: Mps) -> None:
    uid = os.getuid()
    Injector(v3.sim.path).set("server_init_ms", 300)  # longer than the next command takes to come
    assert say(v3, "server", "create", f"uid={uid}") == []  # key=value is --key=value
    assert say(v3, "server", "get", f"uid_{uid}", "status") == ["Ready"]
    assert say(v3, "server", "create", "all") == []  # a word without dashes is no flag
    assert say(v3, "server", "get", "all", "uid") == [str(uid)]
    assert [row[0] for row in listed(v3, "server", "all")] == ["all"]


def test_what_a_server_says_of_itself(v3: Mps) -> None:
    create(v3, "a", f"--allowed-devices={v3.sim.gpus[0].uuid}")
    (row,) = listed(v3, "server")
    columns = ["name", "uid", "pid", "status", "pipe-directory", "allowed-devices", "context-ids"]
    assert say(v3, "server", "list", "--format=csv")[0].split(",") == columns
    for field, value in zip(columns[:-1], row, strict=False):
        assert say(v3, "server", "get", "a", field) == [value]
    assert row[4:] == [str(v3.pipe / "a"), v3.sim.gpus[0].uuid, "-"]


def test_a_server_has_a_log_pipe_and_a_log_of_its_own(v3: Mps) -> None:
    create(v3, "a")
    pipe = (v3.pipe / "a" / "log").stat()
    assert stat.S_ISFIFO(pipe.st_mode)
    assert stat.S_IMODE(pipe.st_mode) == 0o777
    assert sorted(str(path.relative_to(v3.logs)) for path in v3.logs.rglob("*.log")) == ["a/server.log", "control.log"]


def test_settings_of_a_server_are_taken_together_or_not_at_all(v3: Mps) -> None:
    create(v3, "a")
    assert say(v3, "server", "set", "a", "--pinned-memory-limit=4M", "--locality-domains=yes") == [
        "Invalid value yes, expected true or false"
    ]
    assert listed(v3, "namespace")[0][3:6] == ["-", "-", "-"]
    assert (
        say(v3, "server", "set", "a", "--pinned-memory-limit=4M", "--locality-domains=true", "client-priority=1") == []
    )
    assert listed(v3, "namespace")[0][3:6] == ["4M", "-", "1"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become other users")
def test_a_server_can_be_given_to_a_user_who_then_may_change_it(v3: Mps) -> None:
    create(v3, "a")
    assert say(v3, "server", "set", "a", "--uid=64001") == []
    assert say(v3, "server", "get", "a", "uid") == ["64001"]
    assert say(v3, "server", "set", "a", "--client-priority=1", user=64001) == []
    assert say(v3, "server", "set", "a", "--uid=64002", user=64001) == ["Insufficient privileges for UID 64001"]
    assert say(v3, "server", "delete", "a", user=64002) == ["Insufficient privileges for UID 64002"]
    assert say(v3, "server", "get", "a", "uid") == ["64001"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may start a multi-user daemon")
def test_with_multiuser_a_server_is_made_for_root_or_for_whoever_asks(sim_host: SimHost) -> None:
    with place_of(sim_host, "--multiuser") as v3:
        assert say(v3, "server", "create", "a", "--uid=64001") == ["Invalid user 64001"]
        assert say(v3, "server", "create", "a", "--uid=0") == []
        assert say(v3, "server", "create", "b", user=64001) == []
        assert [row[:2] for row in listed(v3, "server")] == [["a", "0"], ["b", "64001"]]
        assert say(v3, "server", "set", "b", "--uid=64001", user=64001) == ["Invalid user 64001"]
        assert say(v3, "server", "delete", "b", user=64001) == []


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
