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


NEWS_SECONDS = 2.0
"""How long a client may go on before it hears that its server is dead."""


def verdict(bystander: Puppet, mine: dict[str, Any], patience: float = 0.0) -> list[dict[str, Any]]:
    """Three fills by the bystander; more, until one fails, for as long as `patience` says."""
    calls, end = list[dict[str, Any]](), time.monotonic() + patience
    while len(calls) < 3 or (not calls[-1].get("code") and "gone" not in calls[-1] and time.monotonic() < end):
        calls.append(heard(bystander, "fill", address=mine["address"], size=2 * MIB, seed=len(calls)))
    return [*calls[:2], calls[-1]]


def end(way: str, server: Server, busy: Puppet) -> dict[str, Any]:
    """End something; what was said, and which clients the server lists after it."""
    pid, said = server.pid(), ""
    if way == "terminate_client":
        said = server.command(f"terminate_client {pid} {busy.process.pid}")
    elif way == "SIGKILL":
        busy.kill()
    else:
        os.kill(pid if way == "SIGKILL server" else server.daemon(), signal.SIGKILL)
    listed = server.command(f"get_client_list {pid}").split() if way == "terminate_client" else []
    return {"said": said, "still_listed": str(busy.process.pid) in listed}


def run(stage: Stage, found: Findings) -> None:
    if not stage.mps:
        found["skipped"] = "no nvidia-cuda-mps-control on this machine"
        return
    server = stage.server("s")
    for way in ("terminate_client", "SIGKILL", "SIGKILL server", "SIGKILL control daemon"):
        if way.endswith("daemon") and not server.daemon():
            found[way] = {"skipped": "this driver writes no pid file"}
            continue
        busy, bystander, mine = pair(stage, server)
        begin = time.monotonic()
        row = end(way, server, busy)
        row |= {
            "seconds": time.monotonic() - begin,
            "bystander": verdict(bystander, mine, NEWS_SECONDS if way == "SIGKILL server" else 0.0),
        }
        if way != "SIGKILL":
            row["busy_heard"] = heard(busy, "sync" if way != "SIGKILL control daemon" else "init", timeout=5)
            busy.kill()
        bystander.kill()
        if way == "SIGKILL server":
            server.command(f"start_server -uid {os.getuid()}")
        if way != "SIGKILL control daemon":
            row["server_after"] = server.wait("ACTIVE", 10)
        found[way] = row
