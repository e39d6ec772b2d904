"""What do two servers on one GPU cost against one: two busy clients together, on the same server, on two, and outside MPS (E4)?

Ratios within one run. Small kernels show what concurrency is worth, large ones what bandwidth is left.
"""

from typing import Any

from tests.gpu.faults import MIB, drop, region
from tests.gpu.findings import ExperimentFindings
from tests.gpu.rows import row, without_mps
from tests.gpu.servers import Server
from tests.gpu.stage import Stage

SIZES_MIB = (2, 256)
SECONDS = 0.5


def together(stage: Stage, servers: tuple[Server | None, ...], size: int) -> dict[str, Any]:
    """Fills per second of clients that work at the same time, one on each of `servers`."""
    seconds = 0.1 if stage.small else SECONDS
    cast = stage.cast(**{f"client{n}": server for n, server in enumerate(servers)})
    clients = list(cast.puppets.values())
    regions = [region(client, size) for client in clients]
    for client, mine in zip(clients, regions, strict=True):
        drop(mine)
        client.send("burst", address=mine["address"], size=size, seconds=seconds)
    rounds = [client.hear() for client in clients]
    cast.kill()
    return {
        "proof": cast.proof,
        "per_second": [each["rounds"] / seconds for each in rounds],
        "codes": [each["code"] for each in rounds],
    }


def run(stage: Stage, found: ExperimentFindings) -> None:
    if without_mps(stage, found):
        return
    one, two = stage.open("one", "two")
    places = {"alone": (one,), "one_server": (one, one), "two_servers": (one, two), "outside": (None, None)}
    for size in map(stage.bytes, SIZES_MIB):
        with row(stage, found, f"{size // MIB} MiB") as entry:
            for name, servers in places.items():
                entry[name] = together(stage, servers, size)
            sums = {name: sum(entry[name]["per_second"]) for name in places}
            entry["two_servers_to_one"] = sums["two_servers"] / sums["one_server"] if sums["one_server"] else None
