"""A running sandbox with what scenarios share: submit the programs, wait until they are under way, gather the facts.

Every fact comes from where a user or an admin would look: Slurm's own records, the job's files, the journal. Only
the moment of a fault is not: the simulated GPU records it; on a real GPU the culprit writes down the moment before its
launch. Both are stricter clocks than our own first sighting.
"""

import itertools
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from tests.cluster.sandbox import FINAL, Sandbox, SandboxError, wait_for
from tests.demo import programs
from tests.demo.result import Result

NODE = "n0"
_NUMBERS = itertools.count(1)
"""Of the files of runs, over all stages of a cluster."""
_REFERENCES: WeakKeyDictionary[Sandbox, dict[bool, str]] = WeakKeyDictionary()
"""Digests of undisturbed runs, of the solver and of the plain program: one of each for all stages of a cluster."""
EARLY = 300
"""Steps that every bystander has made before anything happens to it."""


@dataclass(slots=True, kw_only=True)
class Job:
    number: int
    user: str
    stems: list[str] = field(default_factory=list)
    """Of the files of each task: .log and .out."""
    plain: bool = False
    """A program that writes nothing before its end."""


class Stage:
    def __init__(self, sandbox: Sandbox, nodes: Sequence[str] = (NODE,)) -> None:
        """`nodes`: those whose journals are read."""
        self.sandbox = sandbox
        self.nodes = tuple(nodes)
        self.began = time.monotonic()

    # ------------------------------------------------------------------ telling
    def say(self, text: str) -> None:
        print(f"  {time.monotonic() - self.began:6.1f} s  {text}", flush=True)

    def title(self, name: str, text: str) -> Result:
        print(f"\n{name}: {text}", flush=True)
        self.began = time.monotonic()
        return Result(name=name, gpu=self.sandbox.gpu)

    # ------------------------------------------------------------------ jobs
    def solver(
        self, *options: str, user: str = "alice", plain: bool = False, tasks: int = 1, steps: int = programs.STEPS,
        pace_ms: float | None = None, also: str = "", mps: bool = True,
    ) -> Job:  # fmt: skip
        """Submit a batch job that runs a solver in a step; `also` is shell text that runs beside it."""
        stem = f"/home/{user}/run{next(_NUMBERS)}"
        make = programs.plain if plain else programs.heat2d
        inner = "exec " + " ".join(make(self.sandbox.plan, stem=f"{stem}.$SLURM_PROCID", steps=steps, pace_ms=pace_ms))
        memory = f" --mem={75 * tasks}" if also else ""  # leaves some for the step beside it
        line = f"srun -n{tasks}{memory} bash -c {shlex.quote(inner)}"
        script = f"{line} &\nsolver=$!\n{also}\nwait $solver\n" if also else f"exec {line}\n"
        ask = ["--mps"] if mps else []
        count = [] if also else [f"-n{tasks}"]
        number = self.sandbox.sbatch(
            *ask, f"-w{NODE}", *count, "--open-mode=append", *options, script=script, user=user
        )
        return Job(number=number, user=user, stems=[f"{stem}.{task}" for task in range(tasks)], plain=plain)

    def culprit(self, fault: str, *options: str, user: str = "alice") -> Job:
        argv = programs.culprit(self.sandbox.plan, fault)
        number = self.sandbox.sbatch("--mps", f"-w{NODE}", *options, script=f"srun {shlex.join(argv)}", user=user)
        return Job(number=number, user=user)

    def late_culprit(self, fault: str, user: str = "alice") -> tuple[str, str]:
        """Shell text for a job's script that runs a culprit beside it once `go` is called; and the name for that."""
        stem = f"/home/{user}/culprit{next(_NUMBERS)}"
        argv = shlex.join(programs.culprit(self.sandbox.plan, fault))
        text = (
            f"until [ -e {stem}.go ]; do sleep 0.02; done; srun --overlap --mem=100 -n1 {argv}; echo $? > {stem}.status"
        )
        return text, stem

    def go(self, stem: str) -> None:
        self.sandbox.path(f"{stem}.go").touch()

    def output(self, job: Job) -> str:
        return self.sandbox.output(job.number, job.user)

    def under_way(self, jobs: list[Job], steps: int = EARLY) -> None:
        """Wait until each of the solvers has committed so many steps; a plain program: until it is on the GPU."""
        for job in jobs:
            wait_for(partial(self._there, job, steps), 60, partial(self._where, job))
            self.say(f"job {job.number} of {job.user} " + ("computes" if job.plain else f"is at step {self.step(job)}"))

    def _there(self, job: Job, steps: int) -> bool:
        if self._ended(job):
            raise SandboxError(self._where(job))
        if not job.plain:
            return self.step(job) >= steps
        processes = self.sandbox.processes()
        return any(job.stems[0] in processes.get(pid, "") for node in self.nodes for pid in self.sandbox.on_gpu(node))

    def _where(self, job: Job) -> str:
        return f"job {job.number} is at step {self.step(job)}; its output ends: {self.output(job)[-800:]}"

    def step(self, job: Job) -> int:
        """The last commit of the job's slowest task."""
        return min(programs.last_step(self.sandbox.read(f"{stem}.log")) for stem in job.stems)

    def marks(self, job: Job, since: float) -> list[float]:
        """Moments after `since` at which a plain program made the first step of a start."""
        return [
            moment for line in self.sandbox.read(f"{job.stems[0]}.marks").split() if (moment := float(line)) > since
        ]

    def _ended(self, job: Job) -> bool:
        return self.sandbox.job(job.number)["JobState"] in FINAL

    def end(self, job: Job, timeout: float = 90.0) -> dict[str, str]:
        """Slurm's record of the job once it has ended."""
        fields = self.sandbox.wait(job.number, timeout=timeout)
        self.say(f"job {job.number} of {job.user} {fields['JobState']}, exit {fields['ExitCode']}, "
                 f"restarts {fields.get('Restarts', '0')}")  # fmt: skip
        return fields

    def digest(self, stem: str) -> str:
        """What a solver said of its field, empty when it said nothing."""
        return self.sandbox.read(f"{stem}.out")

    def reference(self, *, plain: bool = False) -> str:
        """The same of an undisturbed run; made once for a cluster."""
        made = _REFERENCES.setdefault(self.sandbox, {})
        if plain not in made:
            job = self.solver("--gres=shard:2", plain=plain)
            self.say(f"job {job.number}: an undisturbed run, to compare with")
            fields = self.end(job)
            if fields["JobState"] != "COMPLETED":
                raise SandboxError(f"the undisturbed run failed; its output ends: {self.output(job)[-800:]}")
            made[plain] = self.digest(job.stems[0])
        return made[plain]

    # ------------------------------------------------------------------ what was written down
    def journal(self, since: float, event: str = "") -> list[dict[str, Any]]:
        """The nodes' events after a moment of the monotonic clock, of one name if given."""
        every = (entry for node in self.nodes for entry in self.sandbox.journal(node))
        events = (entry for entry in every if entry["mono"] >= since)
        return [entry for entry in events if not event or entry["event"] == event]

    def of_job(self, job: Job, since: float, event: str) -> list[dict[str, Any]]:
        """The same of one job's tasks."""
        return [entry for entry in self.journal(since, event) if entry["task"].startswith(f"{job.number}.")]

    def faults(self, since: float) -> list[float]:
        """Moments of the monotonic clock at which the simulated GPU faulted, or at which a fault of a real one was launched."""
        if self.sandbox.plan.real_gpu:
            files = sorted(self.sandbox.path(programs.CLOCK).glob("faults.*"))
            launched = sorted(float(line) for file in files for line in file.read_text().splitlines())
            return [moment for moment in launched if moment >= since]
        rows = self.sandbox.read(f"{self.sandbox.plan.simgpu(NODE)}/events").splitlines()
        return [moment for moment in (int(row.split()[0]) / 1e9 for row in rows if row) if moment >= since]

    def recovery_ms(self, since: float) -> list[float]:
        """Of each task that made a step after a fault: fault to that step, in milliseconds."""
        faults = self.faults(since)
        back = [entry["done_mono"] for entry in self.journal(since, "recovered")]
        return [round(1000 * (moment - max(f for f in faults if f <= moment)), 2) for moment in back if faults]

    def clean(self, jobs: list[int], since: float) -> list[str]:
        """Wait for the epilogs of these jobs; what they and we find left behind."""

        def closed() -> list[dict[str, Any]]:
            events = [entry for entry in self.journal(since, "job.closed") if entry.get("job") in jobs]
            return events if {entry["job"] for entry in events} == set(jobs) else []

        events = wait_for(closed, 30, lambda: f"job.closed of {jobs}") if jobs else []
        left = [str(item) for entry in events for item in entry.get("residue", [])]
        try:
            wait_for(lambda: not self.sandbox.residue(), 5)
        except SandboxError:
            left += self.sandbox.residue()
        return left

    def kill(self, *words: str) -> int:
        """SIGKILL at once for every process whose command line has one of the words; how many there were."""
        processes = self.sandbox.processes().items()
        victims = [str(pid) for pid, command in processes if any(word in command for word in words)]
        if victims:
            self.sandbox.run(["kill", "-9", *victims])
        return len(victims)

    def clear(self) -> None:
        """After a scenario that went wrong: end its jobs, so that the next one has the GPU."""
        self.sandbox.run(["scancel", "-u", "alice"])
        self.sandbox.run(["scancel", "-u", "bob"])
        try:
            wait_for(lambda: not self.sandbox.good(["squeue", "-h"]).strip(), 30, lambda: "an empty queue")
        except SandboxError as error:
            self.say(str(error))
