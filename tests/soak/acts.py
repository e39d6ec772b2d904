"""What may happen to a node while jobs run on it: faults of neighbours, deaths of our processes and NVIDIA's, orders of
users and admins.

Each act says in words what it did, or "" when there was nothing to do it to. `harmless` acts must cost no job its first
run: the promise is recovery in the allocation. After the others a job may have to be requeued, never to be lost.
"""

import random
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.cluster.plan import REPO
from tests.cluster.sandbox import FINAL
from tests.demo import programs
from tests.demo.stage import NODE, Job, Stage

FAULTS = ("illegal-address", "illegal-write", "misaligned", "illegal-instruction", "trap", "assert")
GRES = "--gres=shard:1"


@dataclass(slots=True, kw_only=True)
class Round:
    """One cluster's jobs from an empty queue to the next."""

    stage: Stage
    dice: random.Random
    solvers: list[Job] = field(default_factory=list)
    culprits: list[Job] = field(default_factory=list)
    others: list[Job] = field(default_factory=list)
    cancelled: set[int] = field(default_factory=set)
    """Jobs that a user has ended: how they end is his affair."""
    requeued: set[int] = field(default_factory=set)
    """Jobs that an admin has requeued."""

    def pids(self, *words: str) -> list[int]:
        """Processes inside whose command line has all the words."""
        return [pid for pid, line in self.stage.sandbox.processes().items() if all(word in line for word in words)]

    def kill(self, victims: list[int], signal: str = "KILL") -> bool:
        chosen = self.dice.choice(victims) if victims else 0
        return bool(chosen) and not self.stage.sandbox.run(["kill", f"-{signal}", str(chosen)]).status

    def running(self, jobs: list[Job]) -> list[Job]:
        return [job for job in jobs if self.stage.sandbox.job(job.number)["JobState"] == "RUNNING"]


def fault(round_: Round) -> str:
    """A neighbour's job makes a GPU fault, alone or inside a session of its own."""
    kind, user = round_.dice.choice(FAULTS), round_.dice.choice(("alice", "alice", "bob"))
    argv = programs.culprit(round_.stage.sandbox.plan, kind)
    if round_.dice.random() < 0.3:
        argv += ["--session"]
    if round_.dice.random() < 0.5:
        argv += ["--after", "0.2"]
    number = round_.stage.sandbox.sbatch(
        "--mps", f"-w{NODE}", GRES, "--mem=50", script=f"srun {shlex.join(argv)}", user=user
    )
    round_.culprits.append(Job(number=number, user=user))
    return f"job {number} of {user}: {kind}"


def hang(round_: Round) -> str:
    """An endless kernel, which its user cancels."""
    argv = programs.culprit(round_.stage.sandbox.plan, "hang")
    number = round_.stage.sandbox.sbatch("--mps", f"-w{NODE}", GRES, "--mem=50", script=f"srun {shlex.join(argv)}")
    round_.others.append(Job(number=number, user="alice"))
    round_.cancelled.add(number)
    round_.stage.sandbox.run(["sleep", "1"])
    round_.stage.sandbox.run(["scancel", str(number)])
    return f"job {number}: an endless kernel, cancelled"


def bystander_of_slurm(round_: Round) -> str:
    """A job that did not ask for us."""
    number = round_.stage.sandbox.sbatch(f"-w{NODE}", "--mem=50", script="sleep 0.2", user="bob")
    round_.others.append(Job(number=number, user="bob"))
    return f"job {number} without --mps"


def agent_killed(round_: Round) -> str:
    return "agent killed" if round_.kill(round_.pids("resilience.cli.main", "agent", NODE)) else ""


def hook_server_hit(round_: Round) -> str:
    """Killed, or stopped until it is killed: prologs and epilogs then start by themselves."""
    signal = round_.dice.choice(("KILL", "STOP"))
    if not round_.kill(servers := round_.pids("resilience.cli.main", "hooks", NODE), signal):
        return ""
    if signal == "STOP":
        round_.stage.sandbox.run(["sleep", "2"])
        round_.kill(servers)
    return f"hook server: {signal}"


def agent_stopped(round_: Round) -> str:
    """The agent stands still for a while, as on a node that swaps."""
    agents = round_.pids("resilience.cli.main", "agent", NODE)
    if not round_.kill(agents, "STOP"):
        return ""
    round_.stage.sandbox.run(["sleep", "0.4"])
    round_.stage.sandbox.run(["kill", "-CONT", *map(str, agents)])
    return "agent stopped for 0.4 s"


def keeper_killed(round_: Round) -> str:
    return "a keeper killed" if round_.kill(round_.pids("resilience.state.keeper")) else ""


def cancelled(round_: Round) -> str:
    """A user ends one of his jobs."""
    jobs = round_.running(round_.solvers)
    if len(jobs) < 2:
        return ""
    job = round_.dice.choice(jobs)
    round_.cancelled.add(job.number)
    round_.stage.sandbox.run(["scancel", str(job.number)])
    return f"job {job.number} cancelled"


def server_killed(round_: Round) -> str:
    return "an MPS server killed" if round_.kill(round_.pids("nvidia-cuda-mps-server")) else ""


def daemon_killed(round_: Round) -> str:
    """One that is in service; killed while it starts, it would have its prolog refuse the job, and say so."""
    orphans = set(round_.stage.sandbox.good(["ps", "-o", "pid=", "--ppid", "1"]).split())
    daemons = [pid for pid in round_.pids("nvidia-cuda-mps-control", "-d") if str(pid) in orphans]
    return "an MPS control daemon killed" if round_.kill(daemons) else ""


def program_killed(round_: Round) -> str:
    """One process of a session is killed, active or standby. An active one's task fails, as it would without us."""
    running = {job.number for job in round_.running(round_.solvers)}
    jobs = [job for job in round_.solvers if job.number in running and not job.plain]
    if len(jobs) < 2:
        return ""
    job = round_.dice.choice(jobs)
    if not round_.kill(round_.pids(f"{REPO}/docs/tutorial/heat2d", job.stems[0])):
        return ""
    round_.cancelled.add(job.number)
    return f"a program of job {job.number} killed"


def requeued(round_: Round) -> str:
    """An admin requeues a job, and has it start again as soon as slurmd 22.05 takes it (adapters/slurm/requeue_sequence.py)."""
    jobs = [job for job in round_.running(round_.solvers) if job.number not in round_.cancelled]
    if not jobs:
        return ""
    job = round_.dice.choice(jobs)
    round_.requeued.add(job.number)
    round_.stage.sandbox.run(["scontrol", "requeue", str(job.number)])
    round_.stage.sandbox.wait(job.number, ("PENDING", *FINAL))
    round_.stage.sandbox.run(["sleep", "2"])
    round_.stage.sandbox.run(["scontrol", "update", f"JobId={job.number}", "StartTime=now"])
    return f"job {job.number} requeued by the admin"


Act = Callable[[Round], str]
HARMLESS: tuple[tuple[Act, int], ...] = (
    (fault, 8), (agent_killed, 2), (agent_stopped, 1), (hook_server_hit, 1), (keeper_killed, 2), (cancelled, 1), (bystander_of_slurm, 1),
    (hang, 1),
)  # fmt: skip
"""With how often each is chosen."""
HARMFUL: tuple[tuple[Act, int], ...] = ((server_killed, 2), (daemon_killed, 2), (program_killed, 1), (requeued, 1))
