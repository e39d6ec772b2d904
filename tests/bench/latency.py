"""How long Slurm takes with mpsr and without: srun in both clusters in turns, and the prolog and epilog by themselves."""

import json
import time
from typing import Any

from resilience.contract import path
from tests.bench.figures import figures, interval
from tests.cluster.plan import USERS
from tests.cluster.sandbox import Sandbox, SandboxError, wait_for

NODE = "n0"
_SOCKET = path("hook_socket", run="/run/mpsr", node=NODE)

_HOOKS = """
import json, os, subprocess, sys, time
node, uid, first, runs, gpus = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
options = sys.argv[6]
times = {"prolog": [], "epilog": []}
for job in range(first, first + runs):
    environment = {
        "SLURM_JOB_ID": str(job), "SLURM_JOB_UID": uid, "SLURM_JOB_GID": uid, "SLURM_JOB_USER": "alice",
        "SLURMD_NODENAME": node, "SLURM_JOB_RESTART_COUNT": "0", "SLURM_JOB_GPUS": gpus,
        "CUDA_VISIBLE_DEVICES": gpus, "SPANK_MPSR": options,
    }
    for hook in ("prolog", "epilog"):
        began = time.monotonic()
        done = subprocess.run([f"/etc/slurm/{hook}.d/50-mpsr"], env=environment, capture_output=True, text=True)
        times[hook].append(1000 * (time.monotonic() - began))
        if done.returncode or done.stderr:
            sys.exit(f"{hook}: {done.returncode}: {done.stderr}")
print(json.dumps(times))
"""


def hooks(sandbox: Sandbox, options: str, runs: int, first: int) -> dict[str, Any]:
    """Milliseconds of the prolog (two servers from nothing) and the epilog (both ended, all removed).

    `of_it_servers` is the part in which control daemons and servers start or end: on a simulated GPU the start of Python
    programs that a real one does not have. `of_it_ours` is the rest. `without_server`: the whole where no hook server
    is, so that Python starts for each.
    """
    wait_for(lambda: not sandbox.run(["test", "-S", _SOCKET]).status, 15)
    _hooks(sandbox, options, 1, first)  # the server's first: it binds before it has loaded everything
    values = _hooks(sandbox, options, runs, first + 1)
    sandbox.good(["mv", _SOCKET, f"{_SOCKET}.away"])
    try:
        without = _hooks(sandbox, options, runs, first + 1 + runs)
    finally:
        sandbox.good(["mv", f"{_SOCKET}.away", _SOCKET])
    for name in values:
        values[name]["without_server"] = {key: without[name][key] for key in ("p50", "p99", "n")}
    return values


def _hooks(sandbox: Sandbox, options: str, runs: int, first: int) -> dict[str, Any]:
    argv = [sandbox.plan.python, "-c", _HOOKS, NODE, str(USERS["alice"]), str(first), str(runs), "0", options]
    whole: dict[str, list[float]] = json.loads(sandbox.good(argv, timeout=300))
    values: dict[str, Any] = {}
    for hook, event in (("prolog", "job.opened"), ("epilog", "job.closed")):
        told = (entry for entry in sandbox.journal(NODE) if entry["event"] == event)
        servers = [entry["ms"] for entry in told if first <= entry["job"] < first + runs]
        rest = [all_of_it - part for all_of_it, part in zip(whole[hook], servers, strict=True)]
        values[f"{hook}_ms"] = figures(whole[hook]) | {"of_it_servers": figures(servers), "of_it_ours": figures(rest)}
    return values


def srun_ms(side: Sandbox, *options: str) -> float:
    began = time.monotonic()
    done = side.srun(f"-w{NODE}", *options, "true")
    if done.status:
        raise SandboxError(f"srun {' '.join(options)} true: {done.err}")
    return 1000 * (time.monotonic() - began)


def plugin(plain: Sandbox, ours: Sandbox, runs: int) -> dict[str, Any]:
    """srun true with mpsr installed and not asked for, less srun true without mpsr: differences of runs in turns."""
    differences, bare, asked = [], [], []
    for _ in range(runs):
        without = srun_ms(plain)
        differences.append(srun_ms(ours) - without)
        bare.append(without)
    for _ in range(max(5, runs // 3)):
        asked.append(srun_ms(ours, "--mps", "--gres=shard:1"))
    low, high = interval(differences)
    return figures(differences) | {
        "median_between": [round(low, 2), round(high, 2)],
        "srun_without_mpsr": figures(bare),
        "srun_with_mps_asked": figures(asked),
    }
