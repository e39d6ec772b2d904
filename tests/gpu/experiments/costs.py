"""What do process start, context and the VMM calls cost, inside and outside MPS (E10, H7)?"""

from tests.gpu.faults import MIB, heard
from tests.gpu.findings import Findings
from tests.gpu.stage import Stage

ROUNDS = 5
LAYOUTS = ((2 * MIB, 100), (64 * MIB, 8))
"""Bytes of a handle and how many."""


def run(stage: Stage, found: Findings) -> None:
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
        before = heard(worker, "free").get("value", 0)
        second = stage.puppet("second", server)
        heard(second, "start")
        context_mib = (before - heard(worker, "free").get("value", 0)) / MIB
        second.kill()
        found[where] = {
            "start_us": starts,
            "context_mib": context_mib,
            "vmm_us": {f"{count} x {size // MIB} MiB": heard(worker, "costs", size=size, count=count, timeout=30)
                       for size, count in LAYOUTS},
        }  # fmt: skip
        worker.kill()
