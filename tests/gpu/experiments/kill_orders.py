"""Which order of ending a busy client leaves the others alone: T1 SIGKILL; T2 terminate_client, SIGKILL; T3 SIGSTOP first (E12, E13, E15)?

A co-runner on the same server fills memory and compares digests with those of before, so that a wrong result shows as well as an error.
"""

import os
import signal
import time
from typing import Any

from tests.gpu.faults import MIB, heard, region
from tests.gpu.findings import Findings
from tests.gpu.stage import Puppet, Server, Stage

SIZE_MIB = 64
SEEDS = 4
ROUNDS = 5


def digests(runner: Puppet, address: int, size: int) -> list[Any]:
    """What the co-runner's memory holds after each of a few fills; a code or a word where it heard an error."""
    seen: list[Any] = []
    for seed in range(SEEDS):
        filled = heard(runner, "fill", address=address, size=size, seed=seed)
        if filled.get("code") != 0:
            return [*seen, filled.get("code", filled.get("gone"))]
        digest = heard(runner, "digest", address=address, size=size)
        seen.append(digest.get("sha256", digest.get("code", digest.get("gone"))))
    return seen


def end(order: str, server: Server, pid: int) -> str:
    """End a process in that order; what terminate_client said."""
    said = ""
    if order == "T3":
        os.kill(pid, signal.SIGSTOP)
    if order != "T1":
        said = server.command(f"terminate_client {server.pid()} {pid}")
    os.kill(pid, signal.SIGKILL)
    return said


def once(stage: Stage, server: Server, order: str, runner: Puppet, mine: int, right: list[Any]) -> dict[str, Any]:
    """End one busy client and look after its co-runner."""
    busy = stage.puppet("busy", server)
    heard(busy, "start")
    flag = region(busy, 2 * MIB)
    heard(busy, "launch", kernel="spin", blocks=1, threads=1, values=[["p", flag["address"]]], sync=False)
    os.close(flag["fd"])
    begin = time.monotonic()
    said = end(order, server, busy.process.pid)
    ended = time.monotonic()
    seen = digests(runner, mine, stage.bytes(SIZE_MIB))
    row = {"terminate_said": said, "order_ms": (ended - begin) * 1000, "co_runner_ms": (time.monotonic() - ended) * 1000,
           "co_runner": "right" if seen == right else seen, "state": server.state()}  # fmt: skip
    busy.kill()
    return row


def run(stage: Stage, found: Findings) -> None:
    if not stage.mps:
        found["skipped"] = "no nvidia-cuda-mps-control on this machine"
        return
    server = stage.server("s")
    for order in ("T2", "T3", "T1"):
        runner = stage.puppet("co-runner", server)
        heard(runner, "start")
        mine = region(runner, stage.bytes(SIZE_MIB))
        right, rows = digests(runner, mine["address"], stage.bytes(SIZE_MIB)), list[dict[str, Any]]()
        for _ in range(1 if stage.small else ROUNDS):
            rows.append(once(stage, server, order, runner, mine["address"], right))
            found[order] = rows
            if rows[-1]["co_runner"] != "right":
                break
        runner.kill()
        os.close(mine["fd"])
        server.wait("ACTIVE", 10)
