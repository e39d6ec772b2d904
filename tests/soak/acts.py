"""What may happen to a node while jobs run on it: faults of neighbours, deaths of our processes and NVIDIA's, orders of
users and admins.

Each act says in words what it did, or "" when there was nothing to do it to. `harmless` acts must cost no job its first
run: the promise is recovery in the allocation. After the others a job may have to be requeued, never to be lost.
"""

import random
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

from tests.cluster.plan import REPO
from tests.cluster.sandbox import FINAL, Sandbox, SandboxError, wait_for
from tests.demo import programs
from tests.demo.stage import Job, Stage

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
    mended: set[int] = field(default_factory=set)
    """Those that he has requeued since Slurm had them run without a process."""
    disturbed: bool = False
    """slurmd or slurmctld has been killed: what Slurm makes of a job that it was starting or ending is Slurm's, and the
    admin's to mend."""
    unwritten: bool = False
    """The disk of the journals was full: they have gaps."""

    def node(self) -> str:
        return self.dice.choice(self.stage.nodes)

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
        "--mps", f"-w{round_.node()}", GRES, "--mem=50", script=f"srun {shlex.join(argv)}", user=user
    )
    round_.culprits.append(Job(number=number, user=user))
    return f"job {number} of {user}: {kind}"


def hang(round_: Round) -> str:
    """An endless kernel, which its user cancels."""
    argv = programs.culprit(round_.stage.sandbox.plan, "hang")
    number = round_.stage.sandbox.sbatch(
        "--mps", f"-w{round_.node()}", GRES, "--mem=50", script=f"srun {shlex.join(argv)}"
    )
    round_.others.append(Job(number=number, user="alice"))
    round_.cancelled.add(number)
    round_.stage.sandbox.run(["sleep", "1"])
    round_.stage.sandbox.run(["scancel", str(number)])
    return f"job {number}: an endless kernel, cancelled"


def bystander_of_slurm(round_: Round) -> str:
    """A job that did not ask for us."""
    number = round_.stage.sandbox.sbatch(f"-w{round_.node()}", "--mem=50", script="sleep 0.2", user="bob")
    round_.others.append(Job(number=number, user="bob"))
    return f"job {number} without --mps"


def agent_killed(round_: Round) -> str:
    return "agent killed" if round_.kill(round_.pids("resilience.cli.main", "agent", round_.node())) else ""


def hook_server_hit(round_: Round) -> str:
    """Killed, or stopped until it is killed: prologs and epilogs then start by themselves."""
    signal = round_.dice.choice(("KILL", "STOP"))
    victims = round_.pids("resilience.cli.main", "hooks", round_.node())
    victim = [round_.dice.choice(victims)] if victims else []  # the server, or what it has forked for a prolog
    if not round_.kill(victim, signal):
        return ""
    if signal == "STOP":
        round_.stage.sandbox.run(["sleep", "2"])
        round_.kill(victim)
    return f"hook server: {signal}"


def agent_stopped(round_: Round) -> str:
    """The agent stands still for a while, as on a node that swaps."""
    agents = round_.pids("resilience.cli.main", "agent", round_.node())
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
    """One in service, as with daemons: one that dies as it starts has its prolog refuse the job, and say so."""
    ages = (line.split() for line in round_.stage.sandbox.good(["ps", "-e", "-o", "pid=,etimes="]).splitlines())
    old = {int(pid) for pid, seconds in ages if int(seconds) >= 3}
    victims = [pid for pid in round_.pids("nvidia-cuda-mps-server") if pid in old]
    return "an MPS server killed" if round_.kill(victims) else ""


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


def _saved(round_: Round) -> bool:
    """Whether slurmctld has written down all jobs of the round. It does so within seconds; a job that it forgets at its death
    is none, and its number is another's later."""
    sandbox = round_.stage.sandbox
    jobs = [sandbox.job(job.number) for job in (*round_.solvers, *round_.culprits, *round_.others)]
    last = max((datetime.fromisoformat(job["SubmitTime"]).timestamp() for job in jobs), default=0.0)
    return sandbox.path("/var/spool/slurmctld/job_state").stat().st_mtime > last + 1


def slurmctld_killed(round_: Round) -> str:
    """And away for a while; it comes back with what it had saved, and has jobs run that have ended since."""
    sandbox, away = round_.stage.sandbox, round_.dice.choice((0, 1, 4))
    try:
        wait_for(lambda: _saved(round_), 10)
    except SandboxError:
        return ""
    round_.disturbed = True
    if not round_.kill([pid for pid, line in sandbox.processes().items() if line.split()[0] == "slurmctld"]):
        return ""
    sandbox.run(["sleep", str(away)])
    sandbox.good(["slurmctld"], node=round_.stage.nodes[0])
    # until its nodes have registered it knows no gres, and takes no job that asks for one
    probe = ["sbatch", "--test-only", GRES, "--mem=150", "--wrap=true"]
    for node in round_.stage.nodes:
        states = partial(sandbox.good, ["sinfo", "-h", "-N", "-o", "%T %N %E"])
        wait_for(partial(_taken, sandbox, [*probe, f"-w{node}"]), 60, states)
    return f"slurmctld killed, back after {away} s"


def resume_nodes(sandbox: Sandbox) -> None:
    """What an admin does with nodes that Slurm has drained itself. What says `mpsr` is ours, and stays to be seen."""
    for line in sandbox.good(["sinfo", "-h", "-N", "-o", "%T|%N|%E"]).splitlines():
        state, node, reason = line.split("|", 2)
        if state.rstrip("*$@") in ("drained", "draining", "down") and not reason.startswith("mpsr"):
            sandbox.run(["scontrol", "update", f"NodeName={node}", "State=resume"])


def _taken(sandbox: Sandbox, probe: list[str]) -> bool:
    resume_nodes(sandbox)
    return not sandbox.run(probe, user="alice").status


def slurmd_killed(round_: Round) -> str:
    """Its steps go on; the node's own slurmd is started again, as a service manager would."""
    sandbox, node, away = round_.stage.sandbox, round_.node(), round_.dice.choice((0, 1, 3))
    round_.disturbed = True
    if not round_.kill([pid for pid, line in sandbox.processes().items() if line.split() == ["slurmd", "-N", node]]):
        return ""
    sandbox.run(["sleep", str(away)])
    view = sandbox.read(f"/run/sandbox/view/{node}").strip()
    sandbox.good(["nsenter", f"--target={view}", "--mount", "slurmd", "-N", node], node=node)
    return f"slurmd of {node} killed, back after {away} s"


def disk_full(round_: Round) -> str:
    """Nothing more can be written where the journals and the logs of MPS lie, for a while."""
    sandbox, seconds = round_.stage.sandbox, round_.dice.choice((0.2, 1, 2))
    round_.unwritten = True
    sandbox.run(["sh", "-c", f"dd if=/dev/zero of=/var/log/mpsr/junk bs=64k; sleep {seconds:g}; rm /var/log/mpsr/junk"])
    return f"the disk of the journals full for {seconds:g} s"


Act = Callable[[Round], str]
HARMLESS: tuple[tuple[Act, int], ...] = (
    (fault, 8), (agent_killed, 2), (agent_stopped, 1), (hook_server_hit, 1), (keeper_killed, 2), (cancelled, 1), (bystander_of_slurm, 1),
    (hang, 1), (disk_full, 1),
)  # fmt: skip
"""With how often each is chosen."""
HARMFUL: tuple[tuple[Act, int], ...] = (
    (server_killed, 2),
    (daemon_killed, 2),
    (program_killed, 1),
    (requeued, 1),
    (slurmd_killed, 2),
    (slurmctld_killed, 2),
)
