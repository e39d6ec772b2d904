"""Slurm ends clients that outlive SIGTERM, where a busy client's death hurts each neighbour: who is hurt, and who is blamed."""

import shlex
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.bench.endings import HOME, EndingsBench
from tests.cluster.plan import REPO
from tests.cluster.sandbox import Sandbox, wait_for
from tests.demo.stage import NODE, Stage
from tests.gpusim.inject import Injector

pytestmark = [pytest.mark.cluster, pytest.mark.sim, pytest.mark.slow]

OURS = "ending"
"""The name of all jobs that a test starts."""
GRACE = 8
"""Seconds of a preemption; KillWait - 3 s is 2 s here, slurmd's least KillWait being 5 s."""
PREEMPTION = (
    "PreemptType=preempt/partition_prio",
    "PreemptMode=CANCEL",
    f"PartitionName=low Nodes=ALL PriorityTier=1 PreemptMode=CANCEL GraceTime={GRACE} State=UP",
    "PartitionName=high Nodes=ALL PriorityTier=9 PreemptMode=OFF State=UP",
)


@pytest.fixture(scope="module")
def endings() -> Iterator[EndingsBench]:
    """With a bystander, which keeps the domain's servers and their logs."""
    with Sandbox(nodes=1, conf=PREEMPTION) as sandbox:
        made = EndingsBench(Stage(sandbox))
        start(made, "bystander", "idle")
        yield made


@pytest.fixture(autouse=True)
def hazard(endings: EndingsBench) -> Iterator[Injector]:
    """Every busy death hurts each neighbour: counted, and not done."""
    inject = Injector(endings.host)
    inject.set("busy_death_permille", 1000)
    inject.set("busy_death_how", 4)
    yield inject
    endings.sandbox.run(["scancel", "-u", "alice", "-n", OURS])
    wait_for(lambda: not endings.sandbox.good(["squeue", "-h", "-n", OURS]).strip(), 60)
    inject.clear()


def start(endings: EndingsBench, name: str, how: str, *options: str) -> tuple[int, int]:
    """A batch job with one program: the job, and the program's process once it is there."""
    ask = (
        "--mps",
        "-J",
        name if name == "bystander" else OURS,
        f"-w{NODE}",
        "--mem=100",
        *(options or ("--gres=shard:1",)),
    )
    up = f"{HOME}/{name}"
    job = endings.sandbox.sbatch(
        *ask, script=f"cd {REPO}\nexec srun bash -c {shlex.quote('exec ' + endings.argv(how, up))}"
    )
    wait_for(endings.sandbox.path(up).exists, 60, lambda: endings.sandbox.output(job))
    return job, endings.pid(how, up)


def died_busy(endings: EndingsBench, pid: int) -> bool:
    wait_for(lambda: pid not in endings.sandbox.processes(), 60, lambda: f"the end of process {pid}")
    wait_for(lambda: endings.left(pid), 60, lambda: f"the server's word that client {pid} has left")
    return pid in endings.deaths()


def client_ended(endings: EndingsBench, pid: int) -> list[dict[str, Any]]:
    return [row for row in endings.sandbox.journal() if row["event"] == "client.ended" and pid in row["pids"]]


def terms(endings: EndingsBench, name: str) -> list[float]:
    return [float(line) for line in endings.sandbox.read(f"{HOME}/{name}.terms").split()]


SAFE = ("--gres=shard:1", "--mps-endings=safe")


def test_a_program_that_ignores_sigterm_is_killed_without_work_beside_a_bystander(endings: EndingsBench) -> None:
    job, pid = start(endings, "stubborn", "stubborn", *SAFE)
    endings.sandbox.run(["scancel", str(job)])
    assert not died_busy(endings, pid)
    gone = time.monotonic()
    (ended,) = client_ended(endings, pid)
    (term,) = terms(endings, "stubborn")
    assert 2 <= ended["mono"] - term < gone - term
    assert gone - term > 4, "KillWait is 2 s here, and slurmd waits 5 s at least"
    assert endings.sandbox.wait(job)["JobState"] == "CANCELLED"


def test_without_the_option_it_is_as_without_us(endings: EndingsBench) -> None:
    job, pid = start(endings, "plain", "stubborn")
    endings.sandbox.run(["scancel", str(job)])
    assert died_busy(endings, pid)
    assert client_ended(endings, pid) == []


def test_a_time_limit_is_an_end_as_any(endings: EndingsBench) -> None:
    job, pid = start(endings, "limited", "stubborn", *SAFE)
    endings.sandbox.good(["scontrol", "update", f"JobId={job}", "TimeLimit=1"])
    endings.sandbox.good(["scontrol", "update", f"JobId={job}", "EndTime=now"])
    assert not died_busy(endings, pid)
    assert len(client_ended(endings, pid)) == 1


def test_a_users_own_sigterm_ends_no_client(endings: EndingsBench) -> None:
    """Slurm is asked about it before the other, which it ends, and lets this job run."""
    job, pid = start(endings, "signalled", "stubborn", *SAFE)
    endings.sandbox.run(["scancel", "-s", "TERM", str(job)])
    wait_for(lambda: terms(endings, "signalled"), 30)
    other, killed = start(endings, "cancelled", "stubborn", *SAFE)
    endings.sandbox.run(["scancel", str(other)])
    assert not died_busy(endings, killed)
    assert client_ended(endings, pid) == []
    assert endings.sandbox.job(job)["JobState"] == "RUNNING"


def test_the_grace_time_of_a_preemption_is_the_programs(endings: EndingsBench) -> None:
    """SIGTERM, GraceTime, SIGTERM, KillWait, SIGKILL: its clients are ended before the last, and after the second."""
    job, pid = start(endings, "preempted", "stubborn", "-plow", "--gres=shard:7", "--mps-endings=safe")
    endings.sandbox.sbatch("--mps", f"-w{NODE}", "-J", OURS, "-phigh", "--gres=shard:7", script="sleep 1")
    assert not died_busy(endings, pid)
    assert endings.sandbox.wait(job, {"PREEMPTED"})
    (ended,) = client_ended(endings, pid)
    first, second, *_ = terms(endings, "preempted")
    assert second - first > GRACE / 2
    assert ended["mono"] > second


def test_a_terminate_client_that_hangs_holds_up_the_end_for_a_bounded_time(
    endings: EndingsBench, hazard: Injector
) -> None:
    """The daemon is silent for as long as its target lives: the program ends after 2 s, and the server serves on."""
    hazard.set("terminate_hangs", 1)
    job, pid = start(endings, "hangs", "busy", *SAFE)
    endings.sandbox.run(["scancel", str(job)])
    died_busy(endings, pid)
    endings.sandbox.wait(job, {"CANCELLED"})
    told = [row for row in endings.sandbox.journal() if row["event"] == "client.ended" and row.get("wrong")]
    assert [row["task"] for row in told] == [f"{job}.0.0"]
    hazard.set("terminate_hangs", 0)
    job, pid = start(endings, "afterwards", "busy", *SAFE)
    endings.sandbox.run(["scancel", str(job)])
    assert not died_busy(endings, pid)


def test_what_a_killed_client_broke_is_put_down_to_it(endings: EndingsBench, hazard: Injector) -> None:
    """A neighbour that keeps state meets its first CUDA error: its standby goes on, and the killed job is the culprit."""
    neighbour = endings.stage.solver("-J", OURS, "--gres=shard:1", steps=10**6)
    endings.stage.under_way([neighbour])
    hazard.set("busy_death_how", 2)
    since = time.monotonic()
    job, pid = start(endings, "killed", "stubborn", "--gres=shard:1")
    processes = endings.sandbox.processes()
    assert pid in processes
    endings.sandbox.good(["kill", "-KILL", str(pid)])
    wait_for(lambda: endings.stage.of_job(neighbour, since, "recovered"), 60)
    (busy,) = endings.stage.journal(since, "client.killed_busy")
    assert busy["pid"] == pid
    (blamed,) = endings.stage.journal(since, "incident.attributed")
    assert f"job {job} " in str(blamed["culprit"])
    assert blamed["confidence"] == "strong"
    assert endings.sandbox.job(neighbour.number)["JobState"] == "RUNNING"
