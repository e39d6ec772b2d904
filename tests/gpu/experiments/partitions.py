"""Which faults do static SM partitions hold back, and does the server go on (E2)? Asked where the driver makes partitions.

Two partitions of one server: the culprit and a mate in the first, a neighbour that works on in the second. A driver before 610
makes partitions (from 590) or none; without them the answer is `not asked: driver too old`, at once.
"""

import copy
import subprocess
import time
from typing import Any

from resilience.parse.mps_control import PartitionTable, partition_table, partitions_made
from tests.gpu.experiments.two_servers import SIZE, work
from tests.gpu.faults import commit, heard, region
from tests.gpu.findings import Findings
from tests.gpu.stage import Server, Stage, end_leftovers

KINDS = ("trap", "illegal-write", "illegal-instruction")
"""An SM's fault, a memory fault, and one more of an SM: as many as the time allows."""
WATCH_SECONDS = 1.0
PATIENCE_SECONDS = 3.0


def driver() -> str:
    """Its version by nvidia-smi, or what went wrong."""
    argv = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=15, check=False)
    except OSError as error:
        return str(error)
    return done.stdout.split("\n")[0].strip() or done.stderr.strip()[-200:]


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
    except subprocess.TimeoutExpired as error:
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
    puppet = stage.puppet("newcomer", server)
    answer = heard(puppet, "start")
    puppet.kill()
    return answer.get("code", answer)


def faulted(stage: Stage, server: Server, here: Server, there: Server, kind: str) -> dict[str, Any]:
    """One fault in the partition `here` beside a neighbour in `there`."""
    culprit, mate, neighbour = (stage.puppet(name, where) for name, where in
                                (("culprit", here), ("mate", here), ("neighbour", there)))  # fmt: skip
    starts = [heard(each, "start").get("code") for each in (culprit, mate, neighbour)]
    mine = region(neighbour, SIZE)
    logged = len(server.log_lines("server.log"))
    before = work(neighbour, mine["address"], 0.2)
    fault = commit(kind, culprit)
    after = work(neighbour, mine["address"], 0.2 if stage.small else WATCH_SECONDS)
    found = {"starts": starts, "neighbour_before": before, "fault": fault, "neighbour_after": after,
             "mate_heard": heard(mate, "sync").get("code"), "state": server.state(),
             "newcomer_there": newcomer(stage, there), "newcomer_here_meanwhile": newcomer(stage, here),
             "table_meanwhile": server.command("lspart"), "logged": server.log_lines("server.log")[logged:][:60],
             "pids": {each.name: each.process.pid for each in (culprit, mate, neighbour)}}  # fmt: skip
    for each in (culprit, mate):
        each.kill()
    gone = time.monotonic()
    while (code := newcomer(stage, here)) != 0 and time.monotonic() - gone < PATIENCE_SECONDS:
        time.sleep(0.05)
    found |= {"newcomer_here_after_exit": code, "seconds": time.monotonic() - gone,
              "neighbour_at_the_end": work(neighbour, mine["address"], 0.2)}  # fmt: skip
    neighbour.kill()
    found["state_at_the_end"] = server.wait("ACTIVE", PATIENCE_SECONDS)
    found["table_at_the_end"] = server.command("lspart")
    return found


def run(stage: Stage, found: Findings) -> None:
    found["driver"] = driver()
    if not stage.mps:
        found["skipped"] = "no nvidia-cuda-mps-control on this machine"
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
    client = stage.puppet("client", there)
    found["with_a_client"] = {"start": heard(client, "start"), "table": server.command("lspart"),
                              "rm of the other": server.command(f"sm_partition rm {gpu} {ids[0]}")}  # fmt: skip
    client.kill()
    if ids[0] not in server.command("lspart"):
        found["made_again"] = server.command(f"sm_partition add {gpu} {half}")
        again = partitions_made((found["made_again"],), gpu)
        here = inside(server, f"{gpu}/{again[0]}") if again else here
    for kind in KINDS:
        found[kind] = faulted(stage, server, here, there, kind)
