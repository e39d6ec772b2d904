"""Static SM partitions and locality domains of protocol 3 as they are documented."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.gpusim.host import SimHost
from tests.gpusim.inject import Injector
from tests.gpusim.mps_harness import Mps, wait_for
from tests.gpusim.mps_v3_harness import create, join, listed, place_of, say

NEVER = 60_000
"""Milliseconds: a server that takes so long to start does not run in any test."""


def test_a_partition_needs_no_option_and_prints_what_a_client_sets(v3: Mps) -> None:
    create(v3, "a")
    gpu = v3.sim.gpus[0].uuid
    options = ("--server=a", f"--device={gpu}")
    first, value = say(v3, "sm-partition", "create", "p", *options, "--chunks=7")
    assert first == f"SM partition 'p' created on device {gpu} (sm-count=56)"
    partition = value.removeprefix("CUDA_MPS_SM_PARTITION=")
    assert partition.startswith(f"{gpu}/")
    assert say(v3, "sm-partition", "create", "q", "--server=a", "--device=0", "--chunks=10") == [
        "SM partition 'q' cannot be created: 10 chunks are not to be had: 9 are free"
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


def test_the_remainder_is_a_choice_that_is_shown(v3: Mps) -> None:
    create(v3, "a")
    for name, words in (("p", ()), ("q", ("--include-remainder=true",)), ("r", ("include-remainder=false",))):
        assert len(say(v3, "sm-partition", "create", name, "--server=a", "--device=0", "--chunks=1", *words)) == 2
    assert [row[2:7] for row in listed(v3, "sm-partition", "--all")] == [
        ["p", "1", "8", "false", "created"],
        ["q", "1", "8", "true", "created"],
        ["r", "1", "8", "false", "created"],
        ["-", "13", "104", "-", "unallocated"],
    ]
    heading = say(v3, "sm-partition", "list")[0].split()
    assert heading == "SERVER DEVICE NAME CHUNKS SM-COUNT INCLUDE-REMAINDER STATUS VISIBLE-UUID".split()


def test_partitions_are_listed_for_one_device_by_ordinal_or_uuid(sim_build: Path) -> None:
    with SimHost(gpus=2, build=sim_build, values={"ui_busy": "1"}) as sim, place_of(sim) as v3:
        create(v3, "a")
        uuids = [gpu.uuid for gpu in sim.gpus]
        assert [row[1] for row in listed(v3, "sm-partition", "--server=a")] == uuids
        for device in ("1", uuids[1]):
            assert [row[1] for row in listed(v3, "sm-partition", f"--device={device}")] == [uuids[1]]
        assert listed(v3, "sm-partition", "--device=2") == []
        assert listed(v3, "sm-partition", "--server=b") == []


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["q", "--server=b", "--device=0", "--chunks=1"], "Server b not found"),
        (["q", "--device=0", "--chunks=1"], "A server name is required"),
        (["q", "--server=a", "--device=1", "--chunks=1"], "device 1 not found"),
        (["q", "--server=a", "--chunks=1"], "device  not found"),
        (["q", "--server=a", "--device=0", "--chunks=0"], "chunks must be a positive integer, not 0"),
        (["q", "--server=a", "--device=0", "--chunks=-1"], "chunks must be a positive integer, not -1"),
        (["q", "--server=a", "--device=0"], "chunks must be a positive integer, not missing"),
        (["p", "--server=a", "--device=0", "--chunks=1"], "its name is bad or taken"),
        (["Q", "--server=a", "--device=0", "--chunks=1"], "its name is bad or taken"),
        (["q", "--server=a", "--device=0", "--chunks=1", "--include-remainder=1"],
         "include-remainder must be true or false, not 1"),
        (["q", "--server=a", "--device=0", "--chunks=1", "--include-remainder"], "Option include-remainder needs a value"),
        (["q", "--server=a", "--device=0", "--chunks=15"], "15 chunks are not to be had: 14 are free"),
    ],
)  # fmt: skip
def test_a_partition_that_cannot_be_is_refused(v3: Mps, words: list[str], answer: str) -> None:
    create(v3, "a")
    say(v3, "sm-partition", "create", "p", "--server=a", "--device=0", "--chunks=2")
    before = listed(v3, "sm-partition")
    (said,) = say(v3, "sm-partition", "create", *words)
    assert said.removeprefix(f"SM partition '{words[0]}' cannot be created: ") == answer
    assert listed(v3, "sm-partition") == before
    assert say(v3, "sm-partition", "delete", "q", "--server=a", "--device=0") == ["SM partition 'q' not found"]


def test_a_device_with_clients_of_any_server_gets_no_partition(v3: Mps) -> None:
    create(v3, "a")
    create(v3, "b")
    client = join(v3, "b")
    words = ("sm-partition", "create", "p", "--server=a", "--device=0", "--chunks=1")
    assert say(v3, *words) == [f"SM partition 'p' cannot be created: device {v3.sim.gpus[0].uuid} has clients"]
    client.end()
    wait_for("the client's end", lambda: len(say(v3, *words)) == 2 or None)


def test_locality_domains_and_partitions_exclude_each_other_on_one_server(v3: Mps) -> None:
    create(v3, "a", "--locality-domains=true")
    create(v3, "b", "--locality-domains=false")
    partition = ("p", "--device=0", "--chunks=1")
    assert say(v3, "sm-partition", "create", "--server=a", *partition) == [
        "SM partition 'p' cannot be created: server a has locality domains"
    ]
    assert len(say(v3, "sm-partition", "create", "--server=b", *partition)) == 2
    assert say(v3, "server", "set", "b", "--locality-domains=true", "--client-priority=1") == [
        "Server b has SM partitions and so no locality domains"
    ]
    assert say(v3, "namespace", "get", "default", "b", "client-priority") == ["-"]
    assert say(v3, "server", "set", "a", "--locality-domains=false") == []
    assert len(say(v3, "sm-partition", "create", "--server=a", *partition)) == 2
    say(v3, "sm-partition", "delete", "p", "--server=b", "--device=0")
    assert say(v3, "server", "set", "b", "--locality-domains=true") == []


def test_a_partition_for_a_server_that_is_not_running_yet_is_recorded(sim_host: SimHost, tmp_path: Path) -> None:
    Injector(sim_host.path).set("server_init_ms", NEVER)
    config = tmp_path / "config.toml"
    config.write_text("[servers.a]\n")
    gpu = sim_host.gpus[0].uuid
    with place_of(sim_host, "--apply", str(config)) as v3:
        assert say(v3, "server", "get", "a", "status") == ["Initializing"]
        partition = ("sm-partition", "create", "p", "--server=a", "--device=0", "--chunks=3")
        assert say(v3, *partition) == [f"SM partition 'p' recorded for device {gpu}: server a is not running yet"]
        assert say(v3, *partition) == ["SM partition 'p' cannot be created: its name is bad or taken"]
        assert listed(v3, "sm-partition") == [
            ["a", gpu, "p", "3", "24", "false", "configured", "-"],
            ["a", gpu, "-", "16", "128", "-", "unallocated", "-"],
        ]
        assert say(v3, "server", "set", "a", "--locality-domains=true") == [
            "Server a has SM partitions and so no locality domains"
        ]
        gone = [f"SM partition 'p' deleted from device {gpu}"]
        assert say(v3, "sm-partition", "delete", "p", "--server=a", "--device=0") == gone
        assert [row[2] for row in listed(v3, "sm-partition")] == ["-"]


def test_what_is_recorded_is_there_before_the_first_client(sim_host: SimHost, tmp_path: Path) -> None:
    gpu = sim_host.gpus[0].uuid
    config = tmp_path / "config.toml"
    lines = ["[servers.a]", "[[servers.a.devices]]", f'uuid = "{gpu}"']
    for name, chunks in (("p", 3), ("q", 14), ("r", 13)):  # q is not to be had
        lines += ["[[servers.a.devices.sm_partitions]]", f'name = "{name}"', f"chunks = {chunks}"]
    config.write_text("\n".join([*lines, "include_remainder = true"]))
    with place_of(sim_host, "--apply", str(config)) as v3:
        assert join(v3, "a").hello.startswith("attached")
        rows = listed(v3, "sm-partition")
        assert [row[2:7] for row in rows] == [
            ["p", "3", "24", "false", "created"],
            ["q", "14", "112", "false", "configured"],
            ["r", "13", "104", "true", "created"],
        ]
        assert "SM partition 'q' cannot be created: 14 chunks are not to be had: 13 are free" in v3.log("control.log")
        assert join(v3, "a", f"{gpu}/{rows[0][7]}").hello.startswith("attached")
