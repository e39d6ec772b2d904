"""SM partitions on a real Slurm: one job's trap is none of its neighbours' business, and everybody can read that.

The driver is the simulated one, as documented for 610; that its partitions isolate is the assumption `partition_isolates`,
which no hardware has confirmed (question E2).
"""

import json
import time
from collections.abc import Iterator

import pytest

from tests.cluster.plan import REPO
from tests.cluster.sandbox import Sandbox, wait_for
from tests.demo.stage import NODE, Job, Stage

pytestmark = [pytest.mark.cluster, pytest.mark.sim]
SITE = """\
  mps:
    sm_partitions: auto
"""
DRIVER = ("driver=610.43.02", "cuda=13030", "dialect=610", "partition_isolates=1")
ASK = "--gres=shard:2"


@pytest.fixture(scope="module")
def partitioned() -> Iterator[Sandbox]:
    with Sandbox(nodes=1, site=SITE, simulation=DRIVER) as sandbox:
        yield sandbox


@pytest.fixture
def stage(partitioned: Sandbox) -> Iterator[Stage]:
    made = Stage(partitioned)
    yield made
    made.clear()


def status(stage: Stage) -> str:
    return stage.sandbox.run(["mpsr", "status", "--node", NODE], node=NODE).out


def whole(stage: Stage, job: Job, reference: str) -> None:
    fields = stage.end(job)
    assert (fields["JobState"], fields["Restarts"]) == ("COMPLETED", "0"), stage.output(job)[-800:]
    assert [stage.digest(stem) for stem in job.stems] == [reference] * len(job.stems)


def recovery_log(stage: Stage, job: Job) -> str:
    return stage.sandbox.read(f"/home/{job.user}/mpsr-{job.number}.log")


def test_a_trap_in_one_partition_does_not_touch_the_other(stage: Stage) -> None:
    """Two jobs of one user on one server: the neighbour is not told, not moved, and computes the same bytes."""
    since = time.monotonic()
    reference = stage.reference()
    job = stage.solver(ASK)
    stage.under_way([job])
    culprit = stage.culprit("trap", ASK)
    fields = stage.end(culprit)
    assert (fields["JobState"], fields["Restarts"]) == ("FAILED", "0")
    said = status(stage)
    whole(stage, job, reference)
    assert f"lease of job {job.number} (alice): open, domain u64101-sm, GPU 0, isolation sm (SM partition 1)" in said
    assert "server u64101-sm/g0/a: ACTIVE" in said
    assert "4 SM partitions" in said
    (attributed,) = stage.journal(since, "incident.attributed")
    assert (attributed["culprit"], attributed["isolated"]) == (f"job {culprit.number} step 0 task 0", True)
    assert stage.faults(since)
    assert stage.of_job(job, since, "verdict") == []
    assert stage.of_job(job, since, "task.exit") == [
        entry for entry in stage.of_job(job, since, "task.exit") if not entry["status"]
    ]
    assert stage.recovery_ms(since) == []
    (asked,) = stage.journal(since, "slurm.intent")  # Slurm may not take it any more from a job that ended at once
    assert (asked["ask"], asked["job"]) == ("comment", culprit.number)
    (accounted,) = stage.journal(since, "job.accounted")
    assert (accounted["own"], accounted["isolated"], accounted["outcome"]) == (True, True, "failed")
    assert recovery_log(stage, job) == ""
    log = recovery_log(stage, culprit)
    assert f"by job {culprit.number} step 0 task 0 certain" in log
    assert "isolation: SM partitions; isolated, no neighbour touched" in log
    assert stage.clean([job.number, culprit.number], since) == []


def test_a_memory_fault_crosses_partitions_and_is_recovered(stage: Stage) -> None:
    since = time.monotonic()
    reference = stage.reference()
    job = stage.solver(ASK)
    stage.under_way([job])
    culprit = stage.culprit("illegal-address", ASK)
    assert stage.end(culprit)["JobState"] == "FAILED"
    whole(stage, job, reference)
    culprits = {entry["culprit"] for entry in stage.journal(since, "incident.attributed")}
    assert culprits == {f"job {culprit.number} step 0 task 0"}
    assert len(stage.recovery_ms(since)) == 1
    assert "isolated, no" not in recovery_log(stage, job)
    assert "isolation: SM partitions" in recovery_log(stage, job)
    assert stage.clean([job.number, culprit.number], since) == []


def test_tasks_of_one_partition_recover_from_each_other(stage: Stage) -> None:
    """The unit is the job: a step of it that traps hits its other steps, and nobody else."""
    since = time.monotonic()
    reference = stage.reference()
    text, stem = stage.late_culprit("trap")
    job, other = stage.solver("--gres=shard:2", "-n2", also=text), stage.solver(ASK)
    stage.under_way([job, other])
    stage.go(stem)
    whole(stage, job, reference)
    whole(stage, other, reference)
    assert len(stage.recovery_ms(since)) == 1
    assert stage.of_job(other, since, "verdict") == []
    assert stage.clean([job.number, other.number], since) == []


def kill_server(stage: Stage, color: str) -> None:
    pipe = f"/run/mpsr/{NODE}/d/u64101-sm/g0/{color}"
    daemon = stage.sandbox.read(f"{pipe}/nvidia-cuda-mps-control.pid")
    servers = stage.sandbox.good(["ps", "-o", "pid=", "--ppid", daemon]).split()
    assert servers
    stage.sandbox.good(["kill", "-9", *servers])


def test_a_replaced_server_is_cut_again_before_a_task_comes_back_to_it(stage: Stage) -> None:
    since = time.monotonic()
    reference = stage.reference()
    job = stage.solver(ASK, pace_ms=40)
    stage.under_way([job])

    def times(number: int) -> bool:
        """It has recovered, and its server was started anew, so often."""
        counts = (len(stage.of_job(job, since, "recovered")), len(stage.journal(since, "server.replaced")))
        return counts == (number, number)

    kill_server(stage, "a")
    wait_for(lambda: times(1), 20, lambda: stage.output(job)[-800:])
    kill_server(stage, "b")
    wait_for(lambda: times(2), 20, lambda: stage.output(job)[-800:])
    whole(stage, job, reference)
    assert [entry["server"] for entry in stage.journal(since, "server.replaced")] == [
        "u64101-sm/g0/a",
        "u64101-sm/g0/b",
    ]
    assert stage.clean([job.number], since) == []


def test_an_agent_that_was_killed_knows_the_partitions_again(stage: Stage) -> None:
    since = time.monotonic()
    reference = stage.reference()
    job = stage.solver(ASK)
    stage.under_way([job])
    assert stage.kill(f"resilience.cli.main agent --node {NODE}")
    wait_for(lambda: [entry for entry in stage.of_job(job, since, "task.hello") if entry["resumed"]], 20)
    culprit = stage.culprit("trap", ASK)
    assert stage.end(culprit)["JobState"] == "FAILED"
    whole(stage, job, reference)
    assert [entry["isolated"] for entry in stage.journal(since, "incident.attributed")] == [True]
    assert stage.of_job(job, since, "verdict") == []
    assert stage.clean([job.number, culprit.number], since) == []


def test_who_gets_none_is_told_so_and_can_insist(stage: Stage) -> None:
    since = time.monotonic()
    first = stage.sandbox.sbatch("--mps", ASK, "--mps-threads=60", script="srun sleep 60")
    stage.sandbox.wait(first, {"RUNNING"})
    script = "grep ^isolation= $MPSR_LEASE; until [ -e ~/seen ]; do sleep 0.1; done"
    second = stage.sandbox.sbatch("--mps", ASK, "--mps-threads=60", script=script)
    stage.sandbox.wait(second, {"RUNNING"})
    wait_for(lambda: f"job {second} (alice): open" in status(stage), 10, lambda: status(stage))
    assert "isolation domains, standby yes; SM partition: none of 1 is free: GPU 0" in status(stage)
    stage.sandbox.good(["touch", "/home/alice/seen"])
    assert stage.sandbox.wait(second)["JobState"] == "COMPLETED"
    assert "isolation=domains" in stage.sandbox.output(second)
    third = stage.sandbox.sbatch("--mps", ASK, "--mps-threads=60", "--mps-require=isolation", script="srun true")
    assert stage.sandbox.wait(third)["JobState"] == "FAILED"
    assert "none of 1 is free" in stage.sandbox.output(third)
    fourth = stage.sandbox.sbatch("--mps", ASK, "--mps-require=isolation", script="srun true", user="bob")
    assert stage.sandbox.wait(fourth)["JobState"] == "COMPLETED"  # another user's domain has servers of its own
    stage.sandbox.run(["scancel", str(first)])
    stage.sandbox.wait(first)
    assert stage.clean([first, second, third, fourth], since) == []


def test_gres_mps_decides_the_size(stage: Stage) -> None:
    since = time.monotonic()
    script = "cat $(dirname $CUDA_MPS_PIPE_DIRECTORY)/a.sm; echo $CUDA_MPS_SM_PARTITION ${CUDA_MPS_ACTIVE_THREAD_PERCENTAGE-none}"
    job = stage.sandbox.sbatch("--mps", "--gres=mps:50", script=script)
    assert stage.sandbox.wait(job)["JobState"] == "COMPLETED"
    said = stage.sandbox.output(job).splitlines()
    *partitions, mine = (line for line in said if "mpsr: batch script" not in line)
    assert len(partitions) == 2
    assert mine == f"{partitions[0]} none"
    assert stage.clean([job], since) == []
    (opened,) = [entry for entry in stage.journal(since, "job.opened") if entry["job"] == job]
    assert (opened["isolation"], opened["slots"]) == ("sm", [1]), json.dumps(opened)


def test_a_process_in_another_jobs_partition_is_told_of_and_ended_where_the_job_wants_it(stage: Stage) -> None:
    """The client chooses: only its environment tells, as it began."""
    since = time.monotonic()
    program = f"{stage.sandbox.plan.python} {REPO}/resilience/drill/culprit.py none --after 20"
    other = "CUDA_MPS_SM_PARTITION=$(sed -n 2p $(dirname $CUDA_MPS_PIPE_DIRECTORY)/a.sm)"
    script = f"{program} & env {other} {program}; kill $!"
    job = stage.sandbox.sbatch("--mps", ASK, "--mps-unattached=fail", script=script)
    rows = wait_for(lambda: stage.journal(since, "process.unattached"), 20, lambda: stage.sandbox.output(job))
    stage.sandbox.wait(job)
    (row,) = rows
    assert (row["job"], row["ended"]) == (job, True)
    assert "is not in its job's SM partition GPU-" in row["reason"]
    assert len(stage.journal(since, "process.unattached")) == 1, "the one in the right partition is not told of"
    assert stage.clean([job], since) == []
