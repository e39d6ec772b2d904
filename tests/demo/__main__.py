"""`make demo`: real jobs on a private real Slurm cluster survive their neighbour's GPU fault.

Runs the scenarios one after the other, tells what happens while it happens, prints an account, writes build/demo.json.
Ends with exit status 0 only if all of it held. Leaves nothing running, also when it is interrupted.
"""

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial

from tests.cluster import gpu
from tests.cluster.sandbox import ROOT, Sandbox, SandboxError
from tests.demo import faults, impossible, nobody, unmodified
from tests.demo.result import Result, account
from tests.demo.stage import Stage

Scenario = Callable[[Stage, Result], None]

SCENARIOS: dict[str, tuple[str, bool, Scenario]] = {
    # name: what it shows, part of --short, how
    "illegal-address-shard": (
        "a store to nowhere beside two solvers of the same user and one of another, gres/shard", True,
        partial(faults.faults, fault="illegal-address", neighbours=faults.SHARD),
    ),
    "illegal-address-mps": (
        "the same with gres/mps", False,
        partial(faults.faults, fault="illegal-address", neighbours=faults.MPS),
    ),
    "illegal-address-four-tasks": (
        "one job with a whole GPU: a step of four solvers, a faulty step beside it", False,
        partial(faults.four_tasks, fault="illegal-address"),
    ),
    "illegal-address-shared-users": (
        "solvers of two users on one server that they share", True,
        partial(faults.faults, fault="illegal-address", neighbours=faults.SHARED_USERS),
    ),
    "trap-shard": (
        "a trap instruction in place of the store", False,
        partial(faults.faults, fault="trap", neighbours=faults.SHARD),
    ),
    "trap-mps": (
        "the same with gres/mps", True,
        partial(faults.faults, fault="trap", neighbours=faults.MPS),
    ),
    "trap-four-tasks": (
        "a trap beside four solvers of one job", True,
        partial(faults.four_tasks, fault="trap"),
    ),
    "recovery-impossible-retries": (
        "one recovery is allowed, and there are two faults", True,
        impossible.retries,
    ),
    "recovery-impossible-keeper-and-server": (
        "keeper and servers are killed together", True,
        impossible.keeper_and_server,
    ),
    "unmodified": (
        "a solver that knows nothing of mpsr, beside a faulty job", True,
        unmodified.unmodified,
    ),
    "nobody-asked": (
        "a job without our options, with mpsr installed and without", True,
        nobody.nobody_asked,
    ),
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.demo", description="a real Slurm cluster survives GPU faults"
    )
    parser.add_argument("--short", action="store_true", help="leave out variants")
    parser.add_argument("--only", action="append", metavar="NAME", help=f"one of: {', '.join(SCENARIOS)}")
    parser.add_argument(
        "--gpu",
        choices=(gpu.AUTO, gpu.SIM, gpu.REAL),
        default=gpu.AUTO,
        help="default: a real one that nobody uses, if any",
    )
    options = parser.parse_args()
    if unknown := sorted(set(options.only or ()) - set(SCENARIOS)):
        parser.error(f"no scenario {unknown[0]}; there are: {', '.join(SCENARIOS)}")
    chosen = [
        name
        for name, (_, short, _) in SCENARIOS.items()
        if (name in options.only if options.only else short or not options.short)
    ]
    results: list[Result] = []
    try:
        choice = gpu.choose(options.gpu)
        with Sandbox(nodes=2, real=choice.gpu) as sandbox:
            introduce(sandbox, choice)
            results += [play(sandbox, name) for name in chosen]
    except LookupError as error:
        print(f"mpsr: demo: --gpu=real cannot be had: {error}", file=sys.stderr)
        return 1
    except SandboxError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nmpsr: demo: interrupted; the cluster is gone", file=sys.stderr)
        return 130
    held = all(not result.broken for result in results)
    print("\n" + account(results))
    target = ROOT / "build" / "demo.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps({result.name: result.as_json() for result in results}, indent=2) + "\n")
    print(f"\n{'All of it held' if held else 'NOT all of it held'}; {target.relative_to(ROOT)} has the figures, on the "
          f"{'simulated GPU' if results[0].gpu == 'simulated' else results[0].gpu}.")  # fmt: skip
    return 0 if held else 1


def introduce(sandbox: Sandbox, choice: gpu.Choice) -> None:
    release = ".".join(f"{part:02}" for part in sandbox.plan.slurm)
    print(choice)
    print(f"Slurm {release}: slurmctld, munged and slurmd for {', '.join(sandbox.nodes)}, in namespaces of their own")


def play(sandbox: Sandbox, name: str) -> Result:
    """One scenario; what goes wrong in it is its result."""
    text, _, scenario = SCENARIOS[name]
    stage = Stage(sandbox)
    result = stage.title(name, text)
    began = time.monotonic()
    try:
        scenario(stage, result)
    except (SandboxError, OSError, LookupError, ValueError) as error:
        result.broken.append(f"{type(error).__name__}: {error}")
        if not isinstance(error, SandboxError):
            traceback.print_exc()
        stage.clear()
    result.seconds = round(time.monotonic() - began, 1)
    stage.say("held" if not result.broken else "BROKEN: " + "; ".join(result.broken))
    return result


if __name__ == "__main__":
    sys.exit(main())
