"""What do two servers on one GPU cost against one: two busy clients together, on the same server, on two, and outside MPS (E4)?

Ratios within one run. Small kernels show what concurrency is worth, large ones what bandwidth is left.
"""

from typing import Any

from tests.gpu.faults import MIB, heard, region
from tests.gpu.findings import Findings
from tests.gpu.stage import Gone, Server, Stage

SIZES_MIB = (2, 256)
SECONDS = 0.5


def together(stage: Stage, servers: tuple[Server | None, ...], size: int) -> dict[str, Any]:
    """Fills per second of clients that work at the same time, one on each of `servers`."""
    seconds = 0.1 if stage.small else SECONDS
    clients = [stage.puppet("client", server) for server in servers]
    try:
        for client in clients:
            heard(client, "start")
        regions = [region(client, size) for client in clients]
        for client, mine in zip(clients, regions, strict=True):
            client.send("burst", address=mine["address"], size=size, seconds=seconds)
        rounds = [client.hear() for client in clients]
        return {"per_second": [each["rounds"] / seconds for each in rounds], "codes": [each["code"] for each in rounds]}
    except Gone as gone:
        return {"gone": str(gone)}
    finally:
        for client in clients:
            client.kill()


def run(stage: Stage, found: Findings) -> None:
    if not stage.mps:
        found["skipped"] = "no nvidia-cuda-mps-control on this machine"
        return
    one, two = stage.server("one"), stage.server("two")
    for size in map(stage.bytes, SIZES_MIB):
        row = {name: together(stage, servers, size)
               for name, servers in {"alone": (one,), "one_server": (one, one), "two_servers": (one, two),
                                     "outside": (None, None)}.items()}  # fmt: skip
        sums = {name: sum(each.get("per_second", [])) for name, each in row.items()}
        ratio = sums["two_servers"] / sums["one_server"] if sums["one_server"] else None
        found[f"{size // MIB} MiB"] = {**row, "two_servers_to_one": ratio}
