"""Ending clients: terminate_client on a busy one, SIGKILL of a busy one, the server killed, writes that come late (E12, E13, H9, H10)."""

import os
import signal
import time
from typing import Any

from tests.gpu.faults import MIB, heard, region
from tests.gpu.findings import Findings
from tests.gpu.stage import Puppet, Server, Stage


def pair(stage: Stage, server: Server) -> tuple[Puppet, Puppet, dict[str, Any]]:
    """A busy client in an endless kernel, and a bystander with memory."""
    busy, bystander = stage.puppet("busy", server), stage.puppet("bystander", server)
    heard(busy, "start"), heard(bystander, "start")
    flag = region(busy, 2 * MIB)
    heard(busy, "fill", address=flag["address"], size=8, seed=0)
    heard(busy, "launch", kernel="spin", blocks=1, threads=1, values=[["p", flag["address"] + MIB]], sync=False)
    return busy, bystander, region(bystander, 2 * MIB)


def verdict(bystander: Puppet, mine: dict[str, Any]) -> list[dict[str, Any]]:
    return [heard(bystander, "fill", address=mine["address"], size=2 * MIB, seed=n) for n in range(3)]


def run(stage: Stage, found: Findings) -> None:
    if not stage.mps:
        found["skipped"] = "no nvidia-cuda-mps-control on this machine"
        return
    server = stage.server("s")
    for way in ("terminate_client", "SIGKILL", "SIGKILL server"):
        busy, bystander, mine = pair(stage, server)
        begin = time.monotonic()
        if way == "terminate_client":
            said = server.command(f"terminate_client {server.pid()} {busy.process.pid}")
        elif way == "SIGKILL":
            busy.kill()
            said = ""
        else:
            said = f"killed {server.pid()}"
            os.kill(server.pid(), signal.SIGKILL)
        row = {"said": said, "seconds": time.monotonic() - begin, "bystander": verdict(bystander, mine)}
        if way != "SIGKILL":
            row["busy_heard"] = heard(busy, "sync", timeout=5)
            busy.kill()
        bystander.kill()
        row["server_after"] = server.wait("ACTIVE", 15)
        found[way] = row
