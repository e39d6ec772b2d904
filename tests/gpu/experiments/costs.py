"""What do process start, context and the VMM calls cost, inside and outside MPS (E10, H7)?"""

from typing import Any

from tests.gpu.faults import MIB, heard
from tests.gpu.stage import Stage

ROUNDS = 5
LAYOUTS = ((2 * MIB, 100), (64 * MIB, 16), (1024 * MIB, 4))
"""Bytes of a handle and how many: small, middle, large."""


def run(stage: Stage) -> dict[str, Any]:
    found: dict[str, Any] = {}
    servers = {"outside": None, "mps": stage.server("s")} if stage.mps else {"outside": None}
    for where, server in servers.items():
        starts = []
        for _ in range(ROUNDS):
            client = stage.puppet("client", server)
            answer = heard(client, "start")
            starts.append({name: call["us"] for name, call in answer.get("calls", {}).items()} or answer)
            client.kill()
        worker = stage.puppet("worker", server)
        heard(worker, "start")
        found[where] = {
            "start_us": starts,
            "vmm_us": {f"{count} x {size // MIB} MiB": heard(worker, "costs", size=size, count=count, timeout=30)
                       for size, count in LAYOUTS},
        }  # fmt: skip
        worker.kill()
    return found
