"""Victims of 1,000 endings: how many neighbours are hurt by the ends of busy clients, without us and with --mps-endings=safe.

On the simulated GPU alone, where the harm is a hypothesis with a switch (tests/gpusim/mps_endings.py): a busy client that ends without
terminate_client hurts each client of its server with probability PERMILLE/1000. Here the hurt is counted and not done, so
that the neighbours, 8 idle and 7 busy ones, last for all endings. *Without us* is --mps-endings=plain: the same programs, on the same
servers, ended as Slurm ends them. The milliseconds are those from the ending's first command until the process has gone.
"""

import itertools
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.bench.figures import figures
from tests.cluster.plan import REPO
from tests.cluster.sandbox import wait_for
from tests.demo.stage import NODE, Stage
from tests.gpusim.inject import Injector

PERMILLE = 100
IDLE, BUSY = 8, 7
HOME = "/home/alice"
WAYS = ("plain", "safe")
_NUMBERS = itertools.count(1)


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


class Endings:
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
            "--mps", f"-w{NODE}", "--gres=shard:1", script=f"cd {REPO}\nsrun bash -c {shlex.quote(lines + 'wait')}"
        )
        wait_for(lambda: all(self.sandbox.path(up).exists() for _, up in ups), 120, lambda: self.sandbox.output(job))
        return job

    def deaths(self) -> dict[int, int]:
        """Pids of clients that died busy, as the server knows them, and whom they hurt."""
        rows = (line.split() for line in (self.host / "deaths").read_text().splitlines())
        return {int(pid): int(hurt) for pid, hurt in rows}

    def once(
        self, found: Ended, way: str, tasks: int, how: str, end: Callable[[int, str], None], *, batch: bool
    ) -> None:
        """Start a busy client, end it, and see whom that hurt."""
        up = f"{HOME}/ending{next(_NUMBERS)}"
        before = set(self.deaths())
        ask = ["--mps", f"--mps-endings={way}", f"-w{NODE}", "--gres=shard:1", "--mem=100", f"-n{tasks}"]
        other = (
            f"[ $SLURM_PROCID = 1 ] && {{ until [ -e {up}.go ]; do sleep 0.01; done; exit 1; }}; " if tasks > 1 else ""
        )
        program = f"cd {REPO}; {other}exec {self.argv(how, up)}"
        srun = ["srun", "-K", "bash", "-c", program]
        job = self.sandbox.sbatch(*ask, "--requeue", script=f"exec {shlex.join(srun)}") if batch else 0
        process = None if batch else self.sandbox.popen([*srun[:1], *ask, *srun[2:]], user="alice")
        wait_for(lambda: self.sandbox.path(up).exists(), 60, lambda: self.sandbox.output(job) if job else up)
        pid = self.pid(how, up)
        began = time.monotonic()
        end(job, up)
        wait_for(lambda: pid not in self.sandbox.processes(), 60, lambda: f"the end of process {pid}")
        found.ms.append(1000 * (time.monotonic() - began))
        wait_for(lambda: self.left(pid), 60, lambda: f"the server's word that client {pid} has left")
        if process is not None:
            process.communicate(timeout=60)
        else:
            self.sandbox.run(["scancel", str(job)])
            self.sandbox.wait(job, timeout=60)
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

    def go(self, job: int, up: str) -> None:
        self.sandbox.path(f"{up}.go").touch()

    def interrupt(self, job: int, up: str) -> None:
        """Ctrl-C at srun, twice within a second, as a user types it."""
        for _ in range(2):
            self.sandbox.run(["pkill", "-INT", "-f", f"^srun .*{up}"])
            time.sleep(0.3)


def void(_: object) -> None:
    """Its outcome is seen by the process's end."""


def measure(stage: Stage, runs: int) -> dict[str, Any]:
    """By kind of ending and way, with the number of endings."""
    here = Endings(stage)
    kinds: dict[str, tuple[int, str, Callable[[int, str], None], bool]] = {
        "scancel": (1, "busy", here.command("scancel", "{job}"), True),
        "requeue by hand": (1, "busy", here.command("scontrol", "requeue", "{job}"), True),
        "kill on bad exit": (2, "busy", here.go, True),
        "crash of the host side": (1, "crash", here.go, True),
        "Ctrl-C at srun": (1, "busy", here.interrupt, False),
        "scancel -s KILL": (1, "busy", here.command("scancel", "-s", "KILL", "{job}"), True),
    }
    inject = Injector(here.host)
    inject.set("busy_death_permille", PERMILLE)
    inject.set("busy_death_how", 4)
    here.neighbours()
    values: dict[str, Any] = {"permille": PERMILLE, "clients": 1 + IDLE + BUSY}
    try:
        for name, (tasks, how, end, batch) in kinds.items():
            found = {way: Ended() for way in WAYS}
            for _ in range(runs):
                for way in WAYS:
                    here.once(found[way], way, tasks, how, end, batch=batch)
            values[name] = {way: found[way].figures() for way in WAYS}
            stage.say(f"{name}: {values[name]}")
    finally:
        inject.clear()
        stage.clear()
    return values


def rows(values: dict[str, Any]) -> list[str]:
    """Lines of the table."""
    lines = [
        f"victims per 1,000 endings, simulated: a busy client's end hurts a neighbour with {values['permille']} in 1000"
    ]
    for name, found in values.items():
        if isinstance(found, dict):
            plain, safe = found["plain"], found["safe"]
            lines.append(f"  {name:32} without us {_shown(plain)}; safe {_shown(safe)}; n {plain['endings']}")
    return lines


def _shown(found: dict[str, Any]) -> str:
    return f"{found['victims_per_1000']:>5} ({found['busy']} died busy), p50 {found['ms']['p50']:.0f} ms"
