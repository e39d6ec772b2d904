"""Which faults do static SM partitions hold back, and does the server go on (E2)? Asked where the driver makes partitions.

Two partitions of one server: the culprit and a mate in the first, a neighbour that works on in the second. A driver before 610
makes partitions (from 590) or none; without them the answer is `not asked: driver too old`, at once.
"""

import copy
import subprocess
import time
from typing import Any

from resilience.parse.mps_control import PartitionTable, partition_table, partitions_made
from tests.gpu.experiments.two_servers import SIZE_MIB, work
from tests.gpu.faults import commit, drop, heard, region
from tests.gpu.findings import ExperimentFindings
from tests.gpu.leftovers import end_leftovers
from tests.gpu.nvml import Nvml
from tests.gpu.rows import row, without_mps
from tests.gpu.servers import Server
from tests.gpu.stage import Stage

KINDS = ("trap", "illegal-write", "illegal-instruction")
"""An SM's fault, a memory fault, and one more of an SM: as many as the time allows."""
WATCH_SECONDS = 1.0
PATIENCE_SECONDS = 3.0


def driver() -> str:
    """Its version by NVML, or what went wrong."""
    nvml = Nvml()
    return nvml.driver_version() or nvml.trouble


def probe(stage: Stage) -> dict[str, Any]:
    """What a daemon says to -S and lspart, in directories of its own; a driver without partitions may print its help and start nothing."""
    pipe = stage.folder / "probe.pipe"
    env = {
        **stage.environ,
        "CUDA_MPS_PIPE_DIRECTORY": str(pipe),
        "CUDA_MPS_LOG_DIRECTORY": str(stage.folder / "probe.log"),
    }
    said: dict[str, Any] = {}
    try:
        for name, argv, line in (("-d -S", [stage.mps, "-d", "-S"], ""), ("lspart", [stage.mps], "lspart\n")):
            done = subprocess.run(argv, input=line, env=env, capture_output=True, text=True, timeout=5, check=False)
            said[name] = {"rc": done.returncode, "out": (done.stdout + done.stderr)[-1500:]}
    except (OSError, subprocess.TimeoutExpired) as error:
        said["hangs"] = str(error)
    finally:
        end_leftovers(pipe)
    return said


def table(text: str) -> PartitionTable | None:
    return partition_table(tuple(text.splitlines()))


def inside(server: Server, partition: str) -> Server:
    """The same server for clients of one partition."""
    made = copy.copy(server)
    made.env = {**server.env, "CUDA_MPS_SM_PARTITION": partition}
    return made


def newcomer(stage: Stage, server: Server) -> Any:
    """What a fresh client hears from its first call."""
    answer = stage.begun("newcomer", server)
    return answer.get("code", answer)


def faulted(stage: Stage, entry: dict[str, Any], server: Server, here: Server, there: Server, kind: str) -> None:
    """One fault in the partition `here` beside a neighbour in `there`."""
    cast = stage.cast(culprit=here, mate=here, neighbour=there)
    neighbour, entry["proof"] = cast["neighbour"], cast.proof
    entry["starts"] = [each["code"] for each in cast.proof["clients"].values()]
    size = stage.bytes(SIZE_MIB)
    mine = region(neighbour, size)
    drop(mine)
    logged = len(server.log_lines("server.log"))
    entry["neighbour_before"] = work(neighbour, mine["address"], 0.2, size)
    entry["fault"] = commit(kind, cast["culprit"])
    entry["neighbour_after"] = work(neighbour, mine["address"], 0.2 if stage.small else WATCH_SECONDS, size)
    entry |= {"mate_heard": heard(cast["mate"], "sync").get("code"), "state": server.state(),
             "newcomer_there": newcomer(stage, there), "newcomer_here_meanwhile": newcomer(stage, here),
             "table_meanwhile": server.command("lspart"), "logged": server.log_lines("server.log")[logged:][:60],
             "pids": {name: each.process.pid for name, each in cast.puppets.items()}}  # fmt: skip
    for name in ("culprit", "mate"):
        cast[name].kill()
    gone = time.monotonic()
    while (code := newcomer(stage, here)) != 0 and time.monotonic() - gone < PATIENCE_SECONDS * stage.patience:
        time.sleep(0.05)
    entry |= {"newcomer_here_after_exit": code, "seconds": time.monotonic() - gone,
              "neighbour_at_the_end": work(neighbour, mine["address"], 0.2, size)}  # fmt: skip
    neighbour.kill()
    entry["state_at_the_end"] = server.wait_ready(PATIENCE_SECONDS)
    entry["table_at_the_end"] = server.command("lspart")


def run(stage: Stage, found: ExperimentFindings) -> None:
    found["driver"] = driver()
    if without_mps(stage, found):
        return
    found["probe"] = probe(stage)
    if table(found["probe"].get("lspart", {}).get("out", "")) is None:
        found["skipped"] = f"not asked: driver too old: {found['driver']} makes no static SM partitions"
        return
    server = stage.server("static", options=("-S",))
    found["table"] = server.command("lspart")
    free = table(found["table"])
    gpu = next((word for word in server.command("device_query").split() if word.startswith("GPU-")), "")
    half = max(1, (free.chunks if free else 0) // 2)
    found["added"] = [server.command(f"sm_partition add {gpu} {half}") for _ in range(2)]
    ids = partitions_made(tuple(found["added"]), gpu)
    if len(ids) != 2:
        found["skipped"] = "not asked: the driver did not make two partitions"
        return
    here, there = (inside(server, f"{gpu}/{name}") for name in ids)
    found["without_a_partition"] = newcomer(stage, server)
    with row(stage, found, "with_a_client") as entry:
        entry["proof"] = stage.cast(client=there).proof
        entry |= {
            "table": server.command("lspart"),
            "rm of the other": server.command(f"sm_partition rm {gpu} {ids[0]}"),
        }
    if ids[0] not in server.command("lspart"):
        found["made_again"] = server.command(f"sm_partition add {gpu} {half}")
        again = partitions_made((found["made_again"],), gpu)
        here = inside(server, f"{gpu}/{again[0]}") if again else here
    for kind in KINDS:
        with row(stage, found, kind) as entry:
            faulted(stage, entry, server, here, there, kind)
