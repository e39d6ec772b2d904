"""Does the end of a busy client hurt a neighbour on its server: SIGTERM, SIGKILL, terminate_client before SIGTERM (E13, issue of endings)?

The neighbour works and verifies its results all through the end. A client is busy in an endless kernel, or with a queue of launches.
"""

import os
import signal
import time
from typing import Any

from tests.gpu.faults import MIB, drop, region
from tests.gpu.findings import ExperimentFindings
from tests.gpu.rows import row, without_mps
from tests.gpu.servers import Server
from tests.gpu.stage import Cast, Stage, Unhealthy
from tests.gpu.strings import Puppet, PuppetGone

WAYS = ("terminate_client, SIGTERM", "terminate_client, SIGKILL", "SIGTERM", "SIGKILL")
BUSY = ("queue", "endless")
ROUNDS = 6
SIZE, SMALL_SIZE = 4096 * MIB, 8 * MIB
"""Of the launches in the queue: about a millisecond each, a second in all."""
LAUNCHES = 1000
BUSY_CODE = 600
"""CUDA_ERROR_NOT_READY: what a stream with work in it answers."""
CO_SIZE = 4 * MIB
SEEDS = 4
LEAD_SECONDS, WATCH_SECONDS = 0.1, 0.4
"""The neighbour's work before the end, and after it."""
GONE_SECONDS = 5.0


def keep_busy(stage: Stage, busy: Puppet, how: str) -> dict[str, Any]:
    size = SMALL_SIZE if stage.small else SIZE
    mine = region(busy, size)
    drop(mine)
    if how == "queue":
        return busy.ask("queue", address=mine["address"], size=size, count=LAUNCHES)
    busy.ask("fill", address=mine["address"], size=8, seed=0)
    return busy.ask("launch", kernel="spin", blocks=1, threads=1, values=[["p", mine["address"] + MIB]], sync=False)


def digests(co: Puppet, address: int) -> list[str]:
    """What the neighbour's memory holds after each fill while nobody else works."""
    right = []
    for seed in range(SEEDS):
        if code := co.ask("fill", address=address, size=CO_SIZE, seed=seed)["code"]:
            raise Unhealthy(f"neighbour does not work: CUDA error {code}")
        right.append(co.ask("digest", address=address, size=CO_SIZE).get("sha256", ""))
    return right


def end(way: str, server: Server, busy: Puppet) -> dict[str, Any]:
    """End it; what terminate_client said and took, and the seconds until the process was gone (None: still there)."""
    told: dict[str, Any] = {}
    begin = time.monotonic()
    if way.startswith("terminate_client"):
        told["said"] = server.command(f"terminate_client {server.pid()} {busy.process.pid}")
        told["terminate_s"] = time.monotonic() - begin
    signalled = time.monotonic()
    os.kill(busy.process.pid, signal.SIGTERM if way.endswith("SIGTERM") else signal.SIGKILL)
    while busy.process.poll() is None and time.monotonic() - signalled < GONE_SECONDS:
        time.sleep(0.001)
    told["gone_s"] = None if busy.process.poll() is None else time.monotonic() - signalled
    return told


def once(
    stage: Stage, server: Server, way: str, how: str, co: Puppet, address: int, right: list[str]
) -> dict[str, Any]:
    cast = stage.cast(busy=server)
    told: dict[str, Any] = {"proof": cast.proof, "busy": how, "launched": keep_busy(stage, cast["busy"], how)["code"]}
    co.send("verify", address=address, size=CO_SIZE, right=right, seconds=LEAD_SECONDS + WATCH_SECONDS)
    time.sleep(LEAD_SECONDS)
    told["busy_code"] = cast["busy"].ask("query")["code"]
    told |= end(way, server, cast["busy"])
    try:
        told["neighbour"] = co.hear(20.0)
    except PuppetGone as gone:
        told["neighbour"] = {"gone": gone.how}
    cast.kill()
    neighbour = told["neighbour"]
    told["hurt"] = bool(neighbour.get("code", -1)) or "wrong" in neighbour
    told["state"] = server.state()
    return told


def tries(stage: Stage, entry: dict[str, Any], server: Server, way: str, cast: Cast, found: ExperimentFindings) -> None:
    mine = region(cast["neighbour"], CO_SIZE)
    drop(mine)
    right = digests(cast["neighbour"], mine["address"])
    entry["tries"] = []
    for number in range(len(BUSY) if stage.small else ROUNDS):
        entry["tries"].append(once(stage, server, way, BUSY[number % 2], cast["neighbour"], mine["address"], right))
        found.save()
        if entry["tries"][-1]["hurt"]:
            return


def run(stage: Stage, found: ExperimentFindings) -> None:
    if without_mps(stage, found):
        return
    server = stage.server("s")
    for way in WAYS:
        server = stage.usable(server)
        with row(stage, found, way) as entry:
            cast = stage.cast(neighbour=server)
            entry["proof"] = cast.proof
            tries(stage, entry, server, way, cast, found)
        server.wait_ready()
