"""Victims of 1,000 endings: how many neighbours are hurt by the ends of busy clients, without us and with --mps-endings=safe.

    python -m tests.bench.endings --endings 1000 --minutes 60 --out endings.json   # by itself, with progress

On the simulated GPU alone, where the harm is a hypothesis with a switch (tests/gpusim/mps_endings.py): a busy client that ends
without terminate_client hurts each client of its server with probability PERMILLE/1000. Here the hurt is counted and not done, so
that the neighbours, 8 idle and 7 busy ones, last for all endings. *Without us* is --mps-endings=plain: the same programs, on the
same servers, ended as Slurm ends them. The milliseconds are those from the ending's first command until the process has gone; for
a time limit, which slurmctld sees late, those since Slurm says that the job is over. Kinds and ways take turns, so that a machine
that is busy otherwise is so for all.
"""

import argparse
import itertools
import json
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.bench.figures import figures
from tests.cluster.plan import REPO
from tests.cluster.sandbox import FINAL, Sandbox, wait_for
from tests.demo.stage import NODE, Stage
from tests.gpusim.inject import Injector

PERMILLE = 100
IDLE, BUSY = 8, 7
HOME = "/home/alice"
WAYS = ("plain", "safe")
_NUMBERS = itertools.count(1)
CONF = (
    "PreemptType=preempt/partition_prio",
    "PreemptMode=CANCEL",
    "PartitionName=low Nodes=ALL PriorityTier=1 PreemptMode=CANCEL State=UP",
    "PartitionName=high Nodes=ALL PriorityTier=9 PreemptMode=OFF State=UP",
)
"""What the cluster needs for a preemption. Its partitions are for that alone."""
MOST = ("--gres=shard:7", "-phigh", f"-w{NODE}", "--mem=100")
"""Of the GPU, beside the neighbours: not to be had beside the one that is to end."""


@dataclass(slots=True)
class Ended:
    """What the endings of one kind came to."""

    endings: int = 0
    busy: int = 0
    """Of them those that found a client with work in flight."""
    victims: int = 0
    ms: list[float] = field(default_factory=list)

    def figures(self) -> dict[str, Any]:
        per = round(1000 * self.victims / self.endings) if self.endings else None
        return {"endings": self.endings, "busy": self.busy, "victims_per_1000": per, "ms": figures(self.ms)}


@dataclass(frozen=True, slots=True, kw_only=True)
class EndingKind:
    """A way in which a program ends."""

    end: Callable[[int, str], None]
    tasks: int = 1
    how: str = "busy"
    batch: bool = True
    late: bool = False
    """Its milliseconds begin when `end` has returned."""
    every: int = 1
    """Measured in the first of so many rounds: a time limit is a minute at least."""


class EndingsBench:
    """One sandbox with the neighbours."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.sandbox = stage.sandbox
        self.host = self.sandbox.path(self.sandbox.plan.simgpu(NODE))

    def argv(self, how: str, up: str) -> str:
        return shlex.join([self.sandbox.plan.python, "-m", "tests.programs.busy", how, up, f"{up}.go"])

    def neighbours(self) -> int:
        """Start them, each a client of one server; the job."""
        ups = [
            (how, f"{HOME}/neighbour{next(_NUMBERS)}")
            for how, many in (("idle", IDLE), ("busy", BUSY))
            for _ in range(many)
        ]
        lines = "".join(f"{self.argv(how, up)} &\n" for how, up in ups)
        job = self.sandbox.sbatch(
            "--mps",
            "-phigh",
            f"-w{NODE}",
            "--gres=shard:1",
            script=f"cd {REPO}\nsrun bash -c {shlex.quote(lines + 'wait')}",
        )
        wait_for(lambda: all(self.sandbox.path(up).exists() for _, up in ups), 120, lambda: self.sandbox.output(job))
        return job

    def deaths(self) -> dict[int, int]:
        """Pids of clients that died busy, as the server knows them, and whom they hurt."""
        rows = (line.split() for line in (self.host / "deaths").read_text().splitlines())
        return {int(pid): int(hurt) for pid, hurt in rows}

    def once(self, found: Ended, way: str, kind: EndingKind) -> None:
        """Start a busy client, end it, and see whom that hurt."""
        up = f"{HOME}/ending{next(_NUMBERS)}"
        before = set(self.deaths())
        ask = ["--mps", f"--mps-endings={way}", "-plow", f"-w{NODE}", "--gres=shard:1", "--mem=100", f"-n{kind.tasks}"]
        other = (
            f"[ $SLURM_PROCID = 1 ] && {{ until [ -e {up}.go ]; do sleep 0.01; done; exit 1; }}; "
            if kind.tasks > 1
            else ""
        )
        program = f"cd {REPO}; {other}exec {self.argv(kind.how, up)}"
        srun = ["srun", "-K", "bash", "-c", program]
        job = self.sandbox.sbatch(*ask, "--requeue", script=f"exec {shlex.join(srun)}") if kind.batch else 0
        process = None if kind.batch else self.sandbox.popen([*srun[:1], *ask, *srun[2:]], user="alice")
        wait_for(lambda: self.sandbox.path(up).exists(), 60, lambda: self.sandbox.output(job) if job else up)
        pid = self.pid(kind.how, up)
        began = time.monotonic()
        kind.end(job, up)
        began = time.monotonic() if kind.late else began
        wait_for(lambda: pid not in self.sandbox.processes(), 60, lambda: f"the end of process {pid}")
        found.ms.append(1000 * (time.monotonic() - began))
        wait_for(lambda: self.left(pid), 60, lambda: f"the server's word that client {pid} has left")
        if process is not None:
            process.communicate(timeout=60)
        else:
            self.sandbox.run(["scancel", str(job)])
            self.sandbox.wait(job, FINAL | {"PREEMPTED"}, timeout=60)
        found.endings += 1
        fresh = {dead: hurt for dead, hurt in self.deaths().items() if dead not in before}
        found.busy += pid in fresh
        found.victims += sum(fresh.values())

    def left(self, pid: int) -> bool:
        """Whether a server has written down that this client has gone: it has drawn its lots before."""
        logs = self.sandbox.path(f"/var/log/mpsr/{NODE}/d").glob("*/g*/?/server.log")
        return any(str(pid) in line and "exit" in line for log in logs for line in log.read_text().splitlines())

    def pid(self, how: str, up: str) -> int:
        """Of the process that has made the file, as the sandbox's processes are numbered."""
        mine = f"-m tests.programs.busy {how} {up} "
        found = (pid for pid, line in self.sandbox.processes().items() if mine in line and " -c " not in line)
        return next(found)

    def command(self, *argv: str) -> Callable[[int, str], None]:
        return lambda job, up: void(self.sandbox.run([word.format(job=job) for word in argv]))

    def run_out(self, job: int, up: str) -> None:
        """The job's time is over from now on; returns when Slurm has seen that."""
        self.sandbox.good(["scontrol", "update", f"JobId={job}", "TimeLimit=1"])
        self.sandbox.good(["scontrol", "update", f"JobId={job}", "EndTime=now"])
        wait_for(lambda: self.sandbox.job(job)["JobState"] != "RUNNING", 90, lambda: f"the time limit of job {job}")

    def preempt(self, job: int, up: str) -> None:
        self.sandbox.sbatch(*MOST, script="true")

    def go(self, job: int, up: str) -> None:
        self.sandbox.path(f"{up}.go").touch()

    def interrupt(self, job: int, up: str) -> None:
        """Ctrl-C at srun, twice within a second, as a user types it."""
        for _ in range(2):
            self.sandbox.run(["pkill", "-INT", "-f", f"^srun .*{up}"])
            time.sleep(0.3)


def void(_: object) -> None:
    """Its outcome is seen by the process's end."""


def kinds(here: EndingsBench) -> dict[str, EndingKind]:
    return {
        "scancel": EndingKind(end=here.command("scancel", "{job}")),
        "time limit": EndingKind(end=here.run_out, late=True, every=50),
        "preemption": EndingKind(end=here.preempt),
        "requeue by hand": EndingKind(end=here.command("scontrol", "requeue", "{job}")),
        "kill on bad exit": EndingKind(end=here.go, tasks=2),
        "crash of the host side": EndingKind(end=here.go, how="crash"),
        "Ctrl-C at srun": EndingKind(end=here.interrupt, batch=False),
        "scancel -s KILL": EndingKind(end=here.command("scancel", "-s", "KILL", "{job}")),
    }


def measure(stage: Stage, endings: int, minutes: float) -> dict[str, Any]:
    """By kind of ending and way, with the number of endings: `endings` of each, or as many as the minutes allow."""
    here, until = EndingsBench(stage), time.monotonic() + 60 * minutes
    inject = Injector(here.host)
    inject.set("busy_death_permille", PERMILLE)
    inject.set("busy_death_how", 4)
    here.neighbours()
    found = {name: {way: Ended() for way in WAYS} for name in kinds(here)}
    try:
        for number in range(1, endings + 1):
            for (name, kind), way in itertools.product(kinds(here).items(), WAYS):
                if (number - 1) % kind.every:
                    continue
                here.once(found[name][way], way, kind)
            if number % 10 == 0 or number == endings:
                hurt = {way: sum(one[way].victims for one in found.values()) for way in WAYS}
                stage.say(f"{number} of {endings} endings of each kind; victims so far: {hurt}")
            if time.monotonic() > until:
                break
    finally:
        inject.clear()
        stage.clear()
    ended = {name: {way: one.figures() for way, one in ways.items()} for name, ways in found.items()}
    return {"permille": PERMILLE, "clients": 1 + IDLE + BUSY, **ended}


def rows(values: dict[str, Any]) -> list[str]:
    """Lines of the table."""
    lines = [
        f"victims per 1,000 endings, simulated: a busy client's end hurts a neighbour with {values['permille']} in 1000"
    ]
    for name, found in values.items():
        if isinstance(found, dict):
            plain, safe = found["plain"], found["safe"]
            added = safe["ms"]["p50"] - plain["ms"]["p50"]
            lines.append(
                f"  {name:24} without us {_shown(plain)}; safe {_shown(safe)}; added {added:.0f} ms; n {plain['endings']}"
            )
    return lines


def _shown(found: dict[str, Any]) -> str:
    return f"{found['victims_per_1000']:>5} ({found['busy']} died busy), p50 {found['ms']['p50']:.0f} ms"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.endings", description="victims of 1,000 endings")
    parser.add_argument("--endings", type=int, default=1000, help="of each kind, without us and with us")
    parser.add_argument("--minutes", type=float, default=60.0, help="then it stops, with as many as there are")
    parser.add_argument("--out", default="build/endings.json", help="file for the figures")
    options = parser.parse_args()
    with Sandbox(nodes=1, conf=CONF) as sandbox:
        values = measure(Stage(sandbox), options.endings, options.minutes)
    with open(options.out, "w", encoding="utf-8") as file:
        file.write(json.dumps(values, indent=2) + "\n")
    print("\n".join(rows(values)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
