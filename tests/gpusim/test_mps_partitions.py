"""Static SM partitions of the 595 branch: their books, and what later drivers promise for faults."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.gpusim.host import SimHost
from tests.gpusim.mps_harness import Client, Mps, wait_for


@pytest.fixture
def partitioned(sim_host: SimHost) -> Iterator[Mps]:
    place = Mps(sim_host)
    place.env["SIMGPU_MPS_DIALECT"] = "595"
    assert place.start("-S").returncode == 0
    yield place
    place.close()


def two_partitions(place: Mps) -> list[str]:
    """What CUDA_MPS_SM_PARTITION is to be for each."""
    gpu = place.sim.gpus[0].uuid
    said = [place.command(f"sm_partition add {gpu} 4")[0] for _ in range(2)]
    return [one.removeprefix("Partition ").removesuffix(" created") for one in said]


def test_add_list_and_remove(partitioned: Mps) -> None:
    gpu = partitioned.sim.gpus[0].uuid
    (answer,) = partitioned.command(f"sm_partition add {gpu} 7")
    name = answer.removeprefix(f"Partition {gpu}/").removesuffix(" created")
    rows = [row.split() for row in partitioned.command("lspart")[2:]]
    assert rows == [[gpu[:20], "-", "9", "7", "76", "56"], [gpu[:20], name, "-", "7", "-", "56", "No"]]
    assert partitioned.command(f"sm_partition add {gpu} 10")[0].startswith("Failed to create the requested")
    assert partitioned.client().hello == "error code=915"  # a daemon in this mode takes nobody who names no partition
    client = partitioned.client(CUDA_MPS_SM_PARTITION=f"{gpu}/{name}")
    assert client.hello.startswith("attached")
    assert partitioned.command(f"sm_partition rm {gpu} {name}")[0].startswith(f"Partition {name} in use")
    assert partitioned.command(f"sm_partition add {gpu} 1")[0].startswith("Failed to create the requested")
    client.end()
    empty = f"get_client_list {partitioned.server()}"
    wait_for("the client's end", lambda: partitioned.command(empty) == [] or None)
    assert partitioned.command(f"sm_partition rm {gpu}/{name}") == [f"Partition {name} removed"]
    assert partitioned.command(f"sm_partition rm {gpu}/{name}") == [f"Partition {name} not found"]


def test_an_sm_fault_stays_in_its_partition_where_the_driver_isolates(partitioned: Mps) -> None:
    (partitioned.sim.path / "inject").write_text("set partition_isolates 1\n")
    first, second = two_partitions(partitioned)
    culprit, beside = (partitioned.client(CUDA_MPS_SM_PARTITION=first) for _ in range(2))
    elsewhere = partitioned.client(CUDA_MPS_SM_PARTITION=second)
    server = partitioned.server()
    culprit.tell("fault 719 13")
    mark = f"sticky=719 culprit={culprit.pid}"
    wait_for("the mark", lambda: beside.ask("look").startswith(mark) or None)
    assert partitioned.client(CUDA_MPS_SM_PARTITION=first).hello == "error code=807"
    assert elsewhere.ask("look").startswith("sticky=0 culprit=0")
    assert partitioned.command(f"get_server_status {server}") == ["ACTIVE"]
    assert partitioned.client(CUDA_MPS_SM_PARTITION=second).hello.startswith("attached")
    sticky = partitioned.log("server.log")
    assert str(elsewhere.pid) not in sticky
    culprit.kill()
    beside.end()
    fresh = wait_for("the partition", lambda: _attached(partitioned, first))
    assert fresh.ask("look").startswith("sticky=0")


def _attached(place: Mps, partition: str) -> Client | None:
    client = place.client(CUDA_MPS_SM_PARTITION=partition)
    return client if client.hello.startswith("attached") else None


@pytest.mark.parametrize(("rule", "fault"), [("1", "700 31"), ("0", "719 13")])
def test_other_faults_reach_every_partition(partitioned: Mps, rule: str, fault: str) -> None:
    """A memory fault, and any fault where the driver does not isolate."""
    (partitioned.sim.path / "inject").write_text(f"set partition_isolates {rule}\n")
    first, second = two_partitions(partitioned)
    culprit = partitioned.client(CUDA_MPS_SM_PARTITION=first)
    elsewhere = partitioned.client(CUDA_MPS_SM_PARTITION=second)
    server = partitioned.server()
    culprit.tell(f"fault {fault}")
    wait_for("FAULT", lambda: partitioned.command(f"get_server_status {server}") == ["FAULT"] or None)
    assert elsewhere.ask("look").startswith(f"sticky={fault.split(maxsplit=1)[0]} culprit={culprit.pid}")


def test_a_partition_that_nobody_made_is_refused(partitioned: Mps) -> None:
    assert partitioned.client(CUDA_MPS_SM_PARTITION="GPU-0/Sm0009").hello == "error code=1"
