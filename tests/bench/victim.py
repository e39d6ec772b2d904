"""A victim's recovery while another user attacks the node, beside undisturbed ones of the same run.

alice has a solver with a standby and makes one fault after the other beside it; bob attacks with a job of his own, which comes and
goes: undisturbed faults and attacked ones take turns, so that a machine that is busy otherwise is so for both. What counts is the
solver's time from the fault to its first step, that it is there at the end without a requeue, and whom the journal names.
"""

import time
from contextlib import suppress
from typing import Any

from tests.bench import recovery
from tests.bench.figures import figures
from tests.chaos.attacks import ASKS, ATTACKS
from tests.cluster.plan import USERS
from tests.cluster.sandbox import SandboxError, wait_for
from tests.demo import programs
from tests.demo.stage import NODE, Job, Stage

_TURNS = 3
_UNDER_WAY = 12.0
"""Seconds that an attack has before it is measured: it has used up its share of the agent's time by then."""
AIM = 3.0
"""Times an undisturbed recovery."""


def victim(stage: Stage, runs: int) -> dict[str, Any]:
    """By attack: times in ms without and with it, their ratio, whether the victim was lost, whether bob was named."""
    return {name: _row(stage, name, runs) for name in ATTACKS}


def _row(stage: Stage, name: str, runs: int) -> dict[str, Any]:
    stage.say(f"a neighbour's attack: {name}")
    job = stage.solver(
        "--gres=shard:1", "--mps-retries=100", "--mps-recover=standby,restore", steps=recovery.ENDLESS,
        pace_ms=recovery.PACE_MS,
    )  # fmt: skip
    stage.under_way([job])
    since, quiet, attacked = time.monotonic(), list[float](), list[float]()
    for turn in range(_TURNS):
        share = len(range(turn, runs, _TURNS))
        quiet += _times(stage, job, share)
        attacked += _attacked(stage, job, name, share)
    fields = stage.sandbox.job(job.number)
    stage.clear()
    lost = fields["JobState"] != "RUNNING" or fields["Restarts"] != "0"
    return {
        "quiet": figures(quiet),
        "attacked": figures(attacked),
        "ratio": round(figures(attacked)["p50"] / figures(quiet)["p50"], 2),
        "victims_lost": int(lost),
        "named": _named(stage, since),
    }


def _attacked(stage: Stage, job: Job, name: str, runs: int) -> list[float]:
    since = time.monotonic()
    number = stage.sandbox.sbatch(*ASKS, script=ATTACKS[name](stage.sandbox.plan, "bob"), user="bob")
    stage.sandbox.wait(number, {"RUNNING"})
    with suppress(SandboxError):
        wait_for(lambda: stage.journal(since, "user.throttled"), _UNDER_WAY)
    try:
        return _times(stage, job, runs)
    finally:
        stage.sandbox.run(["scancel", "-u", "bob"])
        wait_for(lambda: not stage.sandbox.good(["squeue", "-h", "-u", "bob"]).strip(), 60)


def _times(stage: Stage, job: Job, runs: int) -> list[float]:
    return [_once(stage, job) for _ in range(runs)]


def _once(stage: Stage, job: Job) -> float:
    """Milliseconds from a fault of alice's own to the solver's first step, by whichever rung."""
    since = time.monotonic()
    culprit = programs.culprit(stage.sandbox.plan, "illegal-address")
    stage.sandbox.srun("-Q", "--mps", f"-w{NODE}", "--gres=shard:1", *culprit, timeout=60)
    back = wait_for(lambda: stage.of_job(job, since, "recovered"), 60)[0]
    (opened,) = (one for one in stage.journal(since, "incident.opened") if one["incident"] == back["incident"])
    fault = _moment(stage, since, opened["server"])
    recovery.settle(stage, job, since, rebuilt=False)
    mine = opened["server"]
    wait_for(lambda: [one for one in _healed(stage, since) if one["server"] == mine], 60)
    return 1000 * (float(back["done_mono"]) - fault)


def _moment(stage: Stage, since: float, server: str) -> float:
    """When the simulated GPU made the fault of the process that this server's log names; others are bob's."""
    named = {row.get("pid") for row in stage.journal(since, "observation") if row.get("server") == server}
    rows = (row.split() for row in stage.sandbox.read(f"{stage.sandbox.plan.simgpu(NODE)}/events").splitlines())
    return next(int(row[0]) / 1e9 for row in rows if int(row[3]) in named and int(row[0]) / 1e9 >= since)


def _healed(stage: Stage, since: float) -> list[dict[str, Any]]:
    return stage.journal(since, "server.rebuilt") + stage.journal(since, "server.replaced")


def _named(stage: Stage, since: float) -> bool:
    """Whether the journal names the attacker's uid or jobs for what they did."""
    throttled = {entry["uid"] for entry in stage.journal(since, "user.throttled")}
    jobs = {entry["job"] for entry in stage.journal(since, "job.opened") if entry["uid"] == USERS["bob"]}
    blamed = [str(entry.get("culprit")) for entry in stage.journal(since, "incident.attributed")]
    return USERS["bob"] in throttled or any(one.startswith(f"job {job} ") for one in blamed for job in jobs)
