"""`make bench`: a table of what mpsr costs and how fast it is, and the same with more detail in build/bench.json.

Everything comes from one run on one machine, which the first lines name. Figures of the simulated GPU say so: they tell of
our own code (detection, decisions, sockets, hand-over), not of a driver.
"""

import argparse
import json
import os
import platform
import sys
from typing import Any

from resilience.adapters.gpu.computing import EVERY
from tests.bench import endings, recovery
from tests.bench.figures import shown
from tests.bench.idle import idle, pids
from tests.bench.latency import hooks, plugin
from tests.bench.model import model, rows
from tests.bench.overhead import overhead
from tests.bench.promotion import SIZES_MIB, promotion
from tests.bench.victim import AIM, victim
from tests.cluster import gpu
from tests.cluster.sandbox import ROOT, Sandbox, SandboxError, wait_for
from tests.demo.stage import NODE, Stage

AIMS = {
    "standby p50 ms": 10,
    "promotion p50 ms, any size": 10,
    "overhead percent": 0.5,
    "prolog p50 ms": 150,
    "agent MiB": 40,
    "agent cpu percent": 0.1,
    "victim's time attacked / undisturbed": AIM,
}
OPTIONS = (
    "mps=on;domain=user;threads=;memory=;state=;standby=on;recover=standby,restore,relaunch,requeue;retries=3;"
    "on-culprit=fail;ranks=auto;servers=auto;endings=plain;require=mps"
)
SITE = "  recovery:\n    max_requeues_per_hour: 10000\n"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="what mpsr costs and how fast it is")
    parser.add_argument("--runs", type=int, default=20, help="faults on each rung; a quarter of it for requeue")
    parser.add_argument(
        "--gpu",
        choices=(gpu.AUTO, gpu.SIM, gpu.REAL),
        default=gpu.AUTO,
        help="default: a real one that nobody uses, if any",
    )
    options = parser.parse_args()
    try:
        choice = gpu.choose(options.gpu)
        print(choice)
        real = choice.gpu
        with (
            Sandbox(nodes=1, plugin=True, site=SITE, real=real, conf=endings.CONF) as ours,
            Sandbox(nodes=1, plugin=False, real=real) as plain,
        ):
            values = measure(ours, plain, options.runs)
    except LookupError as error:
        print(f"mpsr: bench: --gpu=real cannot be had: {error}", file=sys.stderr)
        return 1
    except SandboxError as error:
        print(error, file=sys.stderr)
        return 1
    target = ROOT / "build" / "bench.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    print(table(values))
    print(f"\n{target.relative_to(ROOT)} has the rest")
    return 0


_LISTS = """
import time, pynvml
pynvml.nvmlInit()
gpu = pynvml.nvmlDeviceGetHandleByIndex(0)
began = time.thread_time()
for _ in range(50):
    pynvml.nvmlDeviceGetMPSComputeRunningProcesses(gpu)
    pynvml.nvmlDeviceGetComputeRunningProcesses(gpu)
print((time.thread_time() - began) / 50)
"""


def measure(ours: Sandbox, plain: Sandbox, runs: int) -> dict[str, Any]:
    stage = Stage(ours)
    values: dict[str, Any] = {"ran_on": machine(ours)}
    agent = pids(ours, "resilience.cli.main", "agent", NODE)[0]
    stage.say("prolog and epilog")
    values |= hooks(ours, OPTIONS, runs, first=900_000)
    stage.say("srun with and without mpsr")
    values["plugin_ms"] = plugin(plain, ours, max(runs, 6))
    stage.say("the idle agent")
    values["agent"] = idle(ours, agent, 20)
    stage.say("the agent beside 48 clients of a server")
    values["agent_48_clients"] = beside_clients(stage, agent, 48)
    values["hook_server"] = idle(ours, pids(ours, "resilience.cli.main", "hooks", NODE)[0], 5)
    stage.say("the idle keeper and supervisor of a program that computes")
    values |= residents(stage)
    stage.say("overhead without faults")
    values |= overhead(stage, max(10, 4 * runs))
    found = {rung: recovery.Times() for rung in recovery.RUNGS}
    for rung in recovery.RUNGS:
        count = max(3, runs // 4) if rung == "requeue" else runs
        stage.say(f"{count} faults, recovered by {rung}")
        for name, measured in recovery.measure(stage, rung, count).items():
            found[name].add(measured)
    stage.say("a standby's promotion by the size of its state")
    values["victim"] = victim(stage, max(5, runs // 4))
    values["promotion_ms"] = promotion(runs, real=bool(ours.plan.real_gpu))
    stage.say("a model of many tensors")
    values["model_ms"] = model(runs, real=bool(ours.plan.real_gpu))
    if not ours.plan.real_gpu:
        stage.say("the ends of busy clients beside neighbours")
        values["endings"] = endings.measure(stage, max(runs // 2, 5), minutes=30)
    values["recovery_ms"] = {rung: found[rung].figures() for rung in recovery.RUNGS}
    return values


def beside_clients(stage: Stage, agent: int, count: int) -> dict[str, Any]:
    """The agent while clients hold their contexts and do nothing. `nvml`: percent of a core that one list of them costs in
    the library itself, at the agent's two lists a look, driver or simulated."""
    sandbox = stage.sandbox
    hold = "import sys, time; from resilience.state.driver import CudaGpu; held = CudaGpu(); held.allocate(4096); time.sleep(600)"
    sandbox.path("/home/alice/hold.py").write_text(hold)
    line = f"for each in $(seq {count}); do {sandbox.plan.python} /home/alice/hold.py & done; wait"
    job = sandbox.sbatch("--mps", "--gres=shard:1", script=line)
    wait_for(lambda: len(sandbox.on_gpu(NODE)) >= count, 120)
    values = idle(sandbox, agent, 5) | idle(sandbox, agent, 20)  # the first with the news of them
    took = float(sandbox.good([sandbox.plan.python, "-c", _LISTS], node=NODE))
    sandbox.good(["scancel", str(job)])
    sandbox.wait(job)
    return values | {"clients": count, "nvml": round(100 * took / EVERY, 3)}


def residents(stage: Stage) -> dict[str, Any]:
    """Keeper and supervisor beside a solver that works and commits all the time."""
    job = stage.solver("--gres=shard:1", steps=recovery.ENDLESS)
    stage.under_way([job])
    keeper = pids(stage.sandbox, "resilience.state.keeper")[0]
    supervisor = pids(stage.sandbox, "mpsr-launch")[0]
    values = {"keeper": idle(stage.sandbox, keeper, 5), "supervisor": idle(stage.sandbox, supervisor, 5)}
    stage.clear()
    return values


def machine(sandbox: Sandbox) -> dict[str, Any]:
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
        models = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    return {
        "gpu": sandbox.gpu,
        "cpu": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "slurm": ".".join(f"{part:02}" for part in sandbox.plan.slurm),
        "python": platform.python_version(),
    }


def table(values: dict[str, Any]) -> str:
    where = values["ran_on"]
    lines = [
        f"GPU {where['gpu']}; {where['cores']} cores of {where['cpu']}; Slurm {where['slurm']}, Linux {where['kernel']}",
        "",
    ]
    for rung, entry in values["recovery_ms"].items():
        lines.append(shown(f"{rung}: fault to first step", entry, "ms"))
        lines.append(shown("  to detection", entry["detection"], "ms"))
        lines.append(shown("  to decision", entry["decision"], "ms"))
    promoted = values["promotion_ms"]
    for size in SIZES_MIB:
        lines.append(shown(f"promotion, own time, {size} MiB", promoted["by_mib"][str(size)]["promotion"], "ms"))
        lines.append(shown("  of it putting the memory in place", promoted["by_mib"][str(size)]["memory"], "ms"))
    lines.append(f"{'  in place, largest to smallest':34} {promoted['largest_to_smallest']['memory']:>13.2f}")
    lines.append(shown(f"commit of {values['commit_us']['bytes'] // 1024} KiB", values["commit_us"], "us"))
    lines += [shown(name, entry, "ms") for name, entry in rows(values["model_ms"])]
    more = values["overhead_percent"]
    low, high = more["median_between"]
    lines.append(f"{shown('overhead without faults', more, '%')}, median between {low} and {high}")
    lines.append(
        f"  of it commits, and steps             {more['of_it_commits']:>9.2f}       {more['of_it_steps']:>7.4f} %"
    )
    for hook, what in (("prolog", "prolog (two servers from nothing)"), ("epilog", "epilog")):
        lines.append(shown(what, values[f"{hook}_ms"], "ms"))
        lines.append(shown("  of it our own", values[f"{hook}_ms"]["of_it_ours"], "ms"))
        lines.append(shown("  the whole without a hook server", values[f"{hook}_ms"]["without_server"], "ms"))
    lines.append(shown("srun, not asked: added", values["plugin_ms"], "ms"))
    lines += endings.rows(values["endings"]) if "endings" in values else []
    for name in ("agent", "agent_48_clients", "hook_server", "keeper", "supervisor"):
        entry = values[name]
        lines.append(f"{name:34} {entry['rss_mib']:.1f} MiB ({entry['private_mib']:.1f} of its own), "
                     f"{entry['cpu_percent']:.3f} % of a core over {entry['seconds']:.0f} s"
                     + (f", {entry['nvml']:.3f} % of it in NVML" if "nvml" in entry else ""))  # fmt: skip
    lines.append("a neighbour's attack: p50 without, with, ratio, lost, attacker named")
    for name, row in values["victim"].items():
        times = f"{row['quiet']['p50']:>9.2f} {row['attacked']['p50']:>9.2f} ms {row['ratio']:>6.2f}"
        lines.append(f"  {name:34} {times} {row['victims_lost']:>4} {'yes' if row['named'] else 'no':>4}")
    lines += ["", "aims: " + ", ".join(f"{name} under {value}" for name, value in AIMS.items())]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
