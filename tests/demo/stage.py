"""A running sandbox with what scenarios share: submit the programs, wait until they are under way, gather the facts.

Every fact comes from where a user or an admin would look: Slurm's own records, the job's files, the journal. Only
the moment of a simulated fault is read from the simulated GPU itself, which is a stricter clock than ours.
"""

import hashlib
import shlex
import time
from dataclasses import dataclass, field
from typing import Any

from tests.cluster.sandbox import Sandbox, SandboxError, wait_for
from tests.demo import programs
from tests.demo.result import Result

NODE = "n0"
SIZE = 192
STEPS = 3000
EARLY = 300
"""Steps that every bystander has made before anything happens to it."""


@dataclass(slots=True, kw_only=True)
class Job:
    number: int
    user: str
    outs: list[str] = field(default_factory=list)
    """Result files, one for each task."""


class Stage:
    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.began = time.monotonic()
        self._count = 0
        self._reference: dict[tuple[int, int], str] = {}

    # ------------------------------------------------------------------ telling
    def say(self, text: str) -> None:
        print(f"  {time.monotonic() - self.began:6.1f} s  {text}", flush=True)

    def title(self, name: str, text: str) -> Result:
        print(f"\n{name}: {text}", flush=True)
        self.began = time.monotonic()
        return Result(name=name, gpu=self.sandbox.gpu)

    # ------------------------------------------------------------------ jobs
    def solver(
        self, *options: str, user: str = "alice", program: str = "heat2d", tasks: int = 1, size: int = SIZE,
        steps: int = STEPS, also: str = "", mps: bool = True,
    ) -> Job:  # fmt: skip
        """Submit a batch job that runs a solver in a step; `also` is shell text that runs beside it."""
        self._count += 1
        stem = f"/home/{user}/field{self._count}"
        outs = [f"{stem}.{task}" for task in range(tasks)]
        make = programs.heat2d if program == "heat2d" else programs.plain
        argv = make(self.sandbox.plan, out=f"{stem}.$SLURM_PROCID", size=size, steps=steps)
        inner = f"exec {' '.join(argv)}"
        label = " -l" if tasks > 1 else ""
        line = f"srun -n{tasks}{label} bash -c {shlex.quote(inner)}"
        script = f"{line} &\nsolver=$!\n{also}\nwait $solver\n" if also else f"exec {line}\n"
        ask = ["--mps"] if mps else []
        number = self.sandbox.sbatch(
            *ask, f"-w{NODE}", f"-n{tasks}", "--open-mode=append", *options, script=script, user=user
        )
        return Job(number=number, user=user, outs=outs)

    def culprit(self, fault: str, *options: str, user: str = "alice") -> Job:
        argv = programs.culprit(self.sandbox.plan, fault)
        number = self.sandbox.sbatch("--mps", f"-w{NODE}", *options, script=f"srun {shlex.join(argv)}", user=user)
        return Job(number=number, user=user)

    def late_culprit(self, fault: str, user: str = "alice") -> tuple[str, str]:
        """Shell text for a job's script that runs a culprit beside it once `go` is called; and the name for that."""
        self._count += 1
        stem = f"/home/{user}/culprit{self._count}"
        argv = shlex.join(programs.culprit(self.sandbox.plan, fault))
        text = f"until [ -e {stem}.go ]; do sleep 0.02; done; srun --overlap -n1 {argv}; echo $? > {stem}.status"
        return text, stem

    def go(self, stem: str) -> None:
        self.sandbox.path(f"{stem}.go").touch()

    def output(self, job: Job) -> str:
        return self.sandbox.output(job.number, job.user)

    def under_way(self, jobs: list[Job], steps: int = EARLY) -> None:
        """Wait until each of the solvers has made so many steps."""
        for job in jobs:
            wait_for(
                lambda job=job: self.step(job) >= steps or self._ended(job),  # type: ignore[misc]
                60,
                lambda job=job: f"job {job.number} at step {steps}; its output ends: {self.output(job)[-500:]}",  # type: ignore[misc]
            )
            self.say(f"job {job.number} of {job.user} is at step {self.step(job)}")

    def step(self, job: Job) -> int:
        return programs.step(self.output(job), len(job.outs))

    def _ended(self, job: Job) -> bool:
        state = self.sandbox.job(job.number)["JobState"]
        if state in ("FAILED", "CANCELLED", "COMPLETED", "NODE_FAIL", "TIMEOUT"):
            raise SandboxError(f"job {job.number} is {state} too early; its output ends: {self.output(job)[-800:]}")
        return False

    def end(self, job: Job, timeout: float = 90.0) -> dict[str, str]:
        """Slurm's record of the job once it has ended."""
        fields = self.sandbox.wait(job.number, timeout=timeout)
        self.say(f"job {job.number} of {job.user} {fields['JobState']}, exit {fields['ExitCode']}, "
                 f"restarts {fields.get('Restarts', '0')}")  # fmt: skip
        return fields

    def digest(self, path: str) -> str:
        file = self.sandbox.path(path)
        return hashlib.sha256(file.read_bytes()).hexdigest() if file.exists() else "missing"

    def reference(self, size: int = SIZE, steps: int = STEPS) -> str:
        """The digest of an undisturbed run's field; made once."""
        key = (size, steps)
        if key not in self._reference:
            job = self.solver("--gres=shard:2", size=size, steps=steps)
            self.say(f"job {job.number}: {steps} undisturbed steps on {size} x {size}, to compare with")
            fields = self.end(job)
            if fields["JobState"] != "COMPLETED":
                raise SandboxError(f"the undisturbed run failed; its output ends: {self.output(job)[-800:]}")
            self._reference[key] = self.digest(job.outs[0])
        return self._reference[key]

    # ------------------------------------------------------------------ what was written down
    def journal(self, since: float, event: str = "") -> list[dict[str, Any]]:
        """The node's events after a moment of the monotonic clock, of one name if given."""
        events = (entry for entry in self.sandbox.journal(NODE) if entry["mono"] >= since)
        return [entry for entry in events if not event or entry["event"] == event]

    def faults(self, since: float) -> list[float]:
        """Moments of the monotonic clock at which the GPU faulted: simulated, or as first seen by the agent."""
        if self.sandbox.plan.real_gpu:
            return [entry["mono"] for entry in self.journal(since, "incident.opened")]
        rows = self.sandbox.read(f"{self.sandbox.plan.simgpu(NODE)}/events").splitlines()
        return [moment for moment in (int(row.split()[0]) / 1e9 for row in rows if row) if moment >= since]

    def recovery_ms(self, since: float) -> list[float]:
        """Of each task that made a step after a fault: fault to that step, in milliseconds."""
        faults = self.faults(since)
        back = [entry["mono"] for entry in self.journal(since, "recovered")]
        return [round(1000 * (moment - max(f for f in faults if f <= moment)), 2) for moment in back if faults]

    def clean(self, jobs: list[int], since: float) -> list[str]:
        """Wait for the epilogs of these jobs; what they and we find left behind."""

        def closed() -> list[dict[str, Any]]:
            events = [entry for entry in self.journal(since, "job.closed") if entry.get("job") in jobs]
            return events if {entry["job"] for entry in events} == set(jobs) else []

        events = wait_for(closed, 30, lambda: f"job.closed of {jobs}")
        left = [str(item) for entry in events for item in entry.get("residue", [])]
        try:
            wait_for(lambda: not self.sandbox.residue(), 5)
        except SandboxError:
            left += self.sandbox.residue()
        return left

    def clear(self) -> None:
        """After a scenario that went wrong: end its jobs, so that the next one has the GPU."""
        self.sandbox.run(["scancel", "-u", "alice"])
        self.sandbox.run(["scancel", "-u", "bob"])
        try:
            wait_for(lambda: not self.sandbox.good(["squeue", "-h"]).strip(), 30, lambda: "an empty queue")
        except SandboxError as error:
            self.say(str(error))
