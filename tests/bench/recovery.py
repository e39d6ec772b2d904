"""Time from a fault to its detection, to the decision, and to the first step after it, on each rung of the ladder.

One long solver is the bystander; a culprit beside it makes the same fault again and again. The fault's moment is the
simulated GPU's own record of it (on a real GPU: the moment before the culprit's launch), detection and decision are the
journal's, the first step is when the bystander itself says that it was done: all on one monotonic clock. A run counts for
the rung that the journal says was used, not for the one that was meant.
"""

import time
from dataclasses import dataclass, field

from tests.bench.figures import figures
from tests.cluster.sandbox import wait_for
from tests.demo import programs
from tests.demo.stage import NODE, Job, Stage

RUNGS = ("standby", "restore", "relaunch", "requeue")
ENDLESS = 100_000_000
BETWEEN = 300
"""Steps between two faults."""
PACE_MS = 1.0
"""Rest of the bystander after each commit of ten steps: it computes nearly all the time and so meets the fault at once."""
_ACTION_RUNG = {"promote": "standby", "restore": "restore", "relaunch": "relaunch", "requeue": "requeue"}


@dataclass(slots=True, kw_only=True)
class Times:
    """Milliseconds since the fault."""

    detection: list[float] = field(default_factory=list)
    decision: list[float] = field(default_factory=list)
    first_step: list[float] = field(default_factory=list)

    def add(self, more: "Times") -> None:
        self.detection += more.detection
        self.decision += more.decision
        self.first_step += more.first_step

    def figures(self) -> dict[str, object]:
        return figures(self.first_step) | {
            "detection": figures(self.detection),
            "decision": figures(self.decision),
        }


def measure(stage: Stage, rung: str, runs: int) -> dict[str, Times]:
    """Times by the rung that was used."""
    found = {name: Times() for name in RUNGS}
    standby = "on" if rung == "standby" else "off"
    allowed = "standby,restore" if rung == "standby" else rung  # a standby may not be back yet on a busy machine
    ask = ["--gres=shard:1", "--mps-retries=100", f"--mps-recover={allowed}"]
    ask += [] if standby == "on" else ["--mps-standby=off"]
    job = stage.solver(*ask, plain=rung == "relaunch", steps=ENDLESS, pace_ms=PACE_MS)
    stage.under_way([job])
    for _ in range(runs):
        once(stage, job, rung, found)
    stage.clear()
    return found


def once(stage: Stage, job: Job, rung: str, found: dict[str, Times]) -> None:
    since = time.monotonic()
    before = stage.sandbox.job(job.number)["Restarts"]
    culprit = programs.culprit(stage.sandbox.plan, "illegal-address")
    stage.sandbox.srun("--mps", f"-w{NODE}", "--gres=shard:1", *culprit, timeout=60)
    fault = stage.faults(since)[0]
    verdict = wait_for(lambda: stage.of_job(job, since, "verdict"), 30)[0]
    if verdict["action"] == "requeue":
        wait_for(lambda: stage.sandbox.job(job.number)["Restarts"] > before, 60)
        at = stage.step(job)
        wait_for(lambda: stage.step(job) > at, 60)  # its first commit: up to 10 steps and 20 ms late
        back = time.monotonic()
    else:
        done = wait_for(lambda: stage.of_job(job, since, "recovered"), 60)
        back = wait_for(lambda: stage.marks(job, fault), 60)[0] if job.plain else done[0]["done_mono"]
    times = found[_ACTION_RUNG[verdict["action"]]]
    seen = [entry["at_mono"] for entry in stage.journal(since, "observation")]
    fault = min(
        fault, *seen
    )  # the simulated kernel log has the line some microseconds before the record has the moment
    times.detection.append(1000 * (min(seen) - fault))
    times.decision.append(1000 * (verdict["mono"] - fault))
    times.first_step.append(1000 * (back - fault))
    settle(stage, job, since, rebuilt=verdict["action"] != "requeue")


def settle(stage: Stage, job: Job, since: float, *, rebuilt: bool) -> None:
    """The bystander works again, and the server that faulted takes clients again."""
    if not job.plain:
        stage.under_way([job], stage.step(job) + BETWEEN)
    if rebuilt:  # of a domain whose only job is requeued nobody follows the servers; that it works again says enough
        wait_for(lambda: stage.journal(since, "server.rebuilt") or stage.journal(since, "server.replaced"), 30)
