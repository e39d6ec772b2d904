"""Which order of ending a busy client leaves the others alone: T1 SIGKILL; T2 terminate_client, SIGKILL; T3 SIGSTOP first (E12, E13, E15)?

A co-runner on the same server fills memory and compares digests with those of before, so that a wrong result shows as well as an error.
"""

import os
import signal
import time
from typing import Any

from tests.gpu.faults import MIB, drop, heard, region
from tests.gpu.findings import ExperimentFindings
from tests.gpu.rows import row, without_mps
from tests.gpu.servers import Server
from tests.gpu.stage import Stage, Unhealthy
from tests.gpu.strings import Puppet

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
    cast = stage.cast(busy=server)
    busy = cast["busy"]
    flag = region(busy, 2 * MIB)
    drop(flag)
    busy.ask("fill", address=flag["address"], size=8, seed=0)
    busy.ask("launch", kernel="spin", blocks=1, threads=1, values=[["p", flag["address"] + MIB]], sync=False)
    begin = time.monotonic()
    said = end(order, server, busy.process.pid)
    ended = time.monotonic()
    seen = digests(runner, mine, stage.bytes(SIZE_MIB))
    busy.kill()
    return {"proof": cast.proof, "terminate_said": said, "order_ms": (ended - begin) * 1000,
            "co_runner_ms": (time.monotonic() - ended) * 1000, "co_runner": "right" if seen == right else seen,
            "state": server.state()}  # fmt: skip


def run(stage: Stage, found: ExperimentFindings) -> None:
    if without_mps(stage, found):
        return
    server = stage.server("s")
    for order in ("T2", "T3", "T1"):
        server = stage.usable(server)
        with row(stage, found, order) as entry:
            cast = stage.cast(runner=server)
            entry |= {"proof": cast.proof, "tries": []}
            size = stage.bytes(SIZE_MIB)
            mine = region(cast["runner"], size)
            drop(mine)
            right = digests(cast["runner"], mine["address"], size)
            if len(right) != SEEDS or len(set(right)) != SEEDS:
                raise Unhealthy(f"runner does not work: {right[-1]}")
            for _ in range(1 if stage.small else ROUNDS):
                entry["tries"].append(once(stage, server, order, cast["runner"], mine["address"], right))
                found.save()
                if entry["tries"][-1]["co_runner"] != "right":
                    break
        server.wait_ready()
