"""Ending clients: terminate_client on a busy one, SIGKILL of a busy one, the server killed, writes that come late (E12, E13, H9, H10)."""

import os
import signal
import time
from typing import Any

from tests.gpu.faults import MIB, drop, heard, region
from tests.gpu.findings import ExperimentFindings
from tests.gpu.rows import row, without_mps
from tests.gpu.servers import Server
from tests.gpu.stage import Cast, Stage, Unhealthy
from tests.gpu.strings import Puppet


def pair(stage: Stage, server: Server) -> tuple[Cast, dict[str, Any]]:
    """A busy client in an endless kernel, and a bystander with memory."""
    cast = stage.cast(busy=server, bystander=server)
    busy = cast["busy"]
    flag, mine = region(busy, 2 * MIB), region(cast["bystander"], 2 * MIB)
    for each in (flag, mine):
        drop(each)
    busy.ask("fill", address=flag["address"], size=8, seed=0)
    busy.ask("launch", kernel="spin", blocks=1, threads=1, values=[["p", flag["address"] + MIB]], sync=False)
    return cast, mine


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
        target = pid if way == "SIGKILL server" else server.daemon()
        if not target:
            raise Unhealthy("its process id is not known")
        os.kill(target, signal.SIGKILL)
    listed = server.command(f"get_client_list {pid}").split() if way == "terminate_client" else []
    return {"said": said, "still_listed": str(busy.process.pid) in listed}


def one_row(stage: Stage, entry: dict[str, Any], server: Server, way: str) -> None:
    cast, mine = pair(stage, server)
    busy, entry["proof"] = cast["busy"], cast.proof
    begin = time.monotonic()
    entry |= end(way, server, busy)
    entry["seconds"] = time.monotonic() - begin
    patience = NEWS_SECONDS * stage.patience if way == "SIGKILL server" else 0.0
    entry["bystander"] = verdict(cast["bystander"], mine, patience)
    if way != "SIGKILL":
        entry["busy_heard"] = heard(busy, "sync" if way != "SIGKILL control daemon" else "init", timeout=5)
    cast.kill()
    if way == "SIGKILL server":
        server.command(f"start_server -uid {os.getuid()}")
    if way != "SIGKILL control daemon":
        entry["server_after"] = server.wait_ready()


def run(stage: Stage, found: ExperimentFindings) -> None:
    if without_mps(stage, found):
        return
    server = stage.server("s")
    for way in ("terminate_client", "SIGKILL", "SIGKILL server", "SIGKILL control daemon"):
        if way.endswith("daemon") and not server.daemon():
            found[way] = {"skipped": "this driver writes no pid file"}
            continue
        server = stage.usable(server)
        with row(stage, found, way) as entry:
            one_row(stage, entry, server, way)
