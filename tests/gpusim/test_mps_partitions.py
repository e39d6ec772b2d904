"""Static SM partitions of the 595 branch: their books."""

from __future__ import annotations

import pytest

from tests.gpusim.host import SimHost
from tests.gpusim.mps_harness import Mps, wait_for


@pytest.fixture
def partitioned(sim_host: SimHost) -> Mps:
    place = Mps(sim_host)
    place.env["SIMGPU_MPS_DIALECT"] = "595"
    assert place.start("-S").returncode == 0
    return place


def test_add_list_and_remove(partitioned: Mps) -> None:
    gpu = partitioned.sim.gpus[0].uuid
    try:
        (answer,) = partitioned.command(f"sm_partition add {gpu} 7")
        name = answer.removeprefix(f"Partition {gpu}/").removesuffix(" created")
        rows = [row.split() for row in partitioned.command("lspart")[2:]]
        assert rows == [[gpu[:20], "-", "9", "7", "76", "56"], [gpu[:20], name, "-", "7", "-", "56", "No"]]
        assert partitioned.command(f"sm_partition add {gpu} 10")[0].startswith("Failed to create the requested")
        client = partitioned.client()
        assert client.hello.startswith("attached")
        assert partitioned.command(f"sm_partition rm {gpu} {name}")[0].startswith(f"Partition {name} in use")
        client.end()
        empty = f"get_client_list {partitioned.server()}"
        wait_for("the client's end", lambda: partitioned.command(empty) == [] or None)
        assert partitioned.command(f"sm_partition rm {gpu}/{name}") == [f"Partition {name} removed"]
        assert partitioned.command(f"sm_partition rm {gpu}/{name}") == [f"Partition {name} not found"]
    finally:
        partitioned.close()
