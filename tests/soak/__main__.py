"""`make soak`: random trouble on a real Slurm cluster for as long as one likes, and what must hold all the same.

Rounds follow one another on a cluster of two nodes: some solvers of two users share their GPUs, acts of `acts.py` are drawn and happen
at random moments, then all jobs end and `verdict.py` looks. Half of the rounds draw harmless acts only, which must cost
no job its first run. `--seed` draws the same acts again; the moments at which the processes meet them differ, as they
do on a cluster. Ends with exit status 0 only if nothing was broken; build/soak.json has the rounds,
build/soak/ what a broken one left. Simulated GPU.
"""

import argparse
import json
import random
import sys
import time
from typing import Any

from tests.cluster.sandbox import ROOT, Sandbox, SandboxError
from tests.demo.stage import Stage
from tests.soak.acts import GRES, HARMFUL, HARMLESS, Round
from tests.soak.verdict import breaches

LOG_KIB = 65536
"""Size of the file system of the journals, which an act fills."""
SITE = "  recovery:\n    max_requeues_per_hour: 10000\n"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="random trouble on a real Slurm cluster")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30), help="draws the same acts again")
    parser.add_argument("--first", type=int, default=0, help="number of the first round")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    rounds: list[dict[str, Any]] = []
    try:
        with Sandbox(nodes=2, plugin=True, site=SITE, journal_kib=LOG_KIB) as sandbox:
            stage = Stage(sandbox, sandbox.nodes)
            for plain in (False, True):
                stage.reference(plain=plain)
            end = time.monotonic() + 60 * options.minutes
            while time.monotonic() < end:
                rounds.append(one(stage, options.seed, options.first + len(rounds)))
    except (SandboxError, KeyboardInterrupt) as error:
        rounds.append({"broken": [f"{type(error).__name__}: {error}"]})
    broken = sum(bool(entry["broken"]) for entry in rounds)
    target = ROOT / "build" / "soak.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps({"seed": options.seed, "rounds": rounds}, indent=2) + "\n", encoding="utf-8")
    print(f"\n{len(rounds)} rounds, {broken} of them broken; seed {options.seed}, {target.relative_to(ROOT)}")
    return 1 if broken or not rounds else 0


def one(stage: Stage, seed: int, number: int) -> dict[str, Any]:
    """One round: what happened, and what was broken."""
    dice = random.Random(f"{seed}.{number}")
    harmless = number % 2 == 0
    stage.title(f"round {number}", "harmless acts only" if harmless else "all acts")
    since = time.monotonic()
    log_before = {node: len(stage.sandbox.read(f"/var/log/slurm/agent.{node}.log")) for node in stage.nodes}
    round_ = Round(stage=stage, dice=dice)
    for _ in range(dice.randint(2, 4)):
        ask = [f"-w{round_.node()}", GRES, "--mem=150", "--mps-retries=50"]
        ask += ["--mps-standby=off"] if dice.random() < 0.25 else []
        ask += ["--mps-domain=job"] if dice.random() < 0.15 else []
        user = dice.choice(("alice", "alice", "bob"))
        round_.solvers.append(stage.solver(*ask, user=user, plain=dice.random() < 0.25))
    acts = HARMLESS if harmless else (*HARMLESS, *HARMFUL)
    happened: list[str] = []
    try:
        for _ in range(dice.randint(3, 7)):
            time.sleep(dice.choice((0.0, 0.05, 0.3, 1.0)))
            (act,) = dice.choices([act for act, _ in acts], [weight for _, weight in acts])
            if words := act(round_):
                stage.say(words)
                happened.append(words)
        broken = list(breaches(round_, since, harmless=harmless, log_before=log_before))
    except SandboxError as error:  # a job that does not end, say, or a Slurm that takes none
        queue = stage.sandbox.run(["squeue", "-h", "-o", "%i %T %r %N %u"]).out.split("\n")
        broken = [f"{error}; in the queue: {'; '.join(filter(None, queue))}"]
    for line in broken:
        stage.say(f"BROKEN: {line}")
    if broken:
        evidence(stage, number, since)
        stage.clear()
    return {"round": number, "harmless": harmless, "happened": happened, "broken": broken,
            "recovered": len(stage.journal(since, "recovered")), "seconds": round(time.monotonic() - since, 1)}  # fmt: skip


def evidence(stage: Stage, number: int, since: float) -> None:
    """What a broken round left to read, below build/soak/."""
    target = ROOT / "build" / "soak" / f"round-{number}"
    target.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(entry) for entry in stage.journal(since)]
    (target / "journal.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    of_nodes = [f"{daemon}.{node}.log" for node in stage.nodes for daemon in ("agent", "slurmd")]
    for name in (*of_nodes, "slurmctld.log"):
        (target / name).write_text(stage.sandbox.read(f"/var/log/slurm/{name}")[-200_000:], encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
