"""The Slurm port on a real cluster, through scontrol and pyslurm: what the agent may ask for, and what Slurm answers.

The adapter runs out here; the program it is given enters the sandbox, as root or as a user. pyslurm is asked where it is
installed, which takes a Slurm that it fits: `make releases RELEASES=sid` builds it there (tests/setup/pyslurm.sh).
"""

import importlib.util
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from resilience.adapters.slurm.pyslurm_process import Processes
from resilience.adapters.slurm.pyslurm_slurm import Pyslurm
from resilience.adapters.slurm.scontrol import Scontrol
from resilience.model.errors import SlurmAway, SlurmError
from resilience.model.ids import JobId, NodeName
from resilience.ports import Done, Refused
from tests.cluster.sandbox import Sandbox, wait_for

pytestmark = pytest.mark.cluster
BUSY = "trap 'exit 143' TERM; while :; do sleep 0.1; done"
N0, N1 = NodeName("n0"), NodeName("n1")
Port = Scontrol | Pyslurm


@pytest.fixture(scope="module")
def cluster() -> Iterator[Sandbox]:
    with Sandbox(nodes=2, gpus=1, plugin=False) as sandbox:
        yield sandbox


@pytest.fixture(params=["scontrol", "pyslurm"])
def slurm_of(
    request: pytest.FixtureRequest, cluster: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], Port]]:
    if request.param == "pyslurm" and importlib.util.find_spec("pyslurm") is None:
        pytest.skip("no pyslurm: make releases RELEASES=sid builds one that fits its Slurm")
    processes: list[Processes] = []

    def program(path: str, user: str) -> str:
        """Enters the sandbox."""
        there = tmp_path / f"{Path(path).name}-{user}"
        there.write_text(f'#!/bin/sh\nexec {" ".join(cluster.command([path], user=user))} "$@"\n')
        there.chmod(0o755)
        return str(there)

    def adapter(user: str) -> Port:
        program("squeue", user)
        commands = Scontrol(program=program("scontrol", user), timeout=10, requeue_timeout=30)
        if request.param == "scontrol":
            return commands
        monkeypatch.setattr(sys, "executable", program(cluster.plan.python, user))
        processes.append(Processes(timeout=10))
        processes[-1].releases()  # starts it, as this user
        return Pyslurm(processes[-1], scontrol=commands, timeout=10, requeue_timeout=30)

    yield adapter
    for its in processes:
        its.close()


@pytest.fixture
def slurm(slurm_of: Callable[[str], Port]) -> Port:
    return slurm_of("root")


@pytest.fixture(autouse=True)
def _nothing_runs_on(cluster: Sandbox) -> Iterator[None]:
    yield
    cluster.good(["scancel", "-u", "alice"])
    wait_for(lambda: not cluster.good(["squeue", "-h"]).strip(), 30)


def running(cluster: Sandbox, *options: str) -> JobId:
    job = cluster.sbatch("-w", "n0", *options, script=BUSY)
    cluster.wait(job, {"RUNNING"})
    return JobId(job)


def said(job: JobId, reason: str) -> list[str]:
    """Slurm's words as scontrol and as pyslurm have them."""
    return [f"{reason} for job {job}", reason]


def test_a_job_is_seen_as_it_is(cluster: Sandbox, slurm: Port) -> None:
    job = running(cluster, "-J", "a b=c JobState=FAILED", "--exclude=n1", "-o", "/home/alice/out of %j")
    info = slurm.job(job)
    assert (info.job, info.state, info.batch, info.requeue, info.restarts) == (job, "RUNNING", True, True, 0)
    assert (info.stdout, info.workdir, slurm.excluded(job)) == (f"/home/alice/out of {job}", "/home/alice", "n1")


def test_a_requeued_job_runs_again_elsewhere_within_seconds(cluster: Sandbox, slurm: Port) -> None:
    job = JobId(cluster.sbatch(script=BUSY))
    node = NodeName(cluster.wait(int(job), {"RUNNING"})["NodeList"])
    began = time.monotonic()
    assert isinstance(slurm.requeue(job, comment="mpsr: device lost\non n0", exclude=node), Done)
    fields = cluster.wait(int(job), {"RUNNING"}, timeout=20)
    assert time.monotonic() - began < 20  # Slurm's own delay is 121 s here
    other = N1 if node == N0 else N0
    assert (fields["Restarts"], fields["NodeList"], fields["ExcNodeList"]) == ("1", other, node)
    assert fields["AdminComment"].strip() == "mpsr: device lost on n0"


def test_exclusions_of_the_user_are_kept(cluster: Sandbox, slurm: Port) -> None:
    job = JobId(cluster.sbatch("--exclude=n1", script=BUSY))
    cluster.wait(int(job), {"RUNNING"})
    answer = slurm.requeue(job, comment="x", exclude=N1)
    assert isinstance(answer, Done)
    assert cluster.wait(int(job), {"RUNNING"}, timeout=20)["ExcNodeList"] == "n1"


def test_excluding_the_last_node_is_told_and_the_job_still_starts(cluster: Sandbox, slurm: Port) -> None:
    job = running(cluster, "--exclude=n1")
    answer = slurm.requeue(job, comment="why", exclude=N0)
    assert isinstance(answer, Done)
    assert "node not excluded" in answer.detail
    fields = cluster.wait(job, {"RUNNING"}, timeout=20)
    assert (fields["Restarts"], fields["ExcNodeList"], fields["AdminComment"].strip()) == ("1", "n1", "why")


def test_only_the_asked_task_of_an_array_is_requeued(cluster: Sandbox, slurm: Port) -> None:
    array = cluster.sbatch("--array=0-2", script=BUSY)
    wait_for(lambda: cluster.good(["squeue", "-h", "-r", "-t", "R", "-o", "%A"]).count("\n") == 3, 20)
    jobs = sorted(map(int, cluster.good(["squeue", "-h", "-r", "-o", "%A"]).split()))
    assert array in jobs
    assert isinstance(slurm.requeue(JobId(array), comment="one task"), Done)
    cluster_now = {job: slurm.job(JobId(job)) for job in jobs}
    assert {job: info.restarts for job, info in cluster_now.items()} == {job: int(job == array) for job in jobs}
    assert all(info.state == "RUNNING" for job, info in cluster_now.items() if job != array)
    comments = {job: slurm.admin_comment(JobId(job)) for job in jobs}
    assert comments == {job: "one task" if job == array else "" for job in jobs}


@pytest.mark.parametrize("component", [0, 1])
def test_a_component_brings_its_heterogeneous_job_back(cluster: Sandbox, slurm: Port, component: int) -> None:
    """Slurm requeues it as a whole, and by its leader only."""
    leader = cluster.sbatch("-n1", script=f"#!/bin/bash\n#SBATCH -n1\n#SBATCH hetjob\n#SBATCH -n1\n{BUSY}\n")
    jobs = [JobId(leader), JobId(leader + 1)]
    wait_for(lambda: all(slurm.snapshot(job).state == "RUNNING" for job in jobs), 20)
    assert isinstance(slurm.requeue(jobs[component], comment=f"of {component}"), Done)
    wait_for(lambda: all(slurm.snapshot(job).state == "RUNNING" for job in jobs), 20)
    assert [slurm.job(job).restarts for job in jobs] == [1, 1]
    assert [slurm.admin_comment(job) for job in jobs] == [
        f"of {component}" if index == component else "" for index in (0, 1)
    ]


def test_what_a_site_wrote_stays(cluster: Sandbox, slurm: Port) -> None:
    job = running(cluster)
    cluster.good(["scontrol", "update", f"JobId={job}", "AdminComment=billed to\nX"])
    assert slurm.comment(job, "mpsr: first (incident a-1)") == Done()
    assert slurm.requeue(job, comment="mpsr: second (incident a-2)") == Done(detail="requeued")
    assert slurm.admin_comment(job) == "billed to\nX | mpsr: second (incident a-2)"


def test_what_slurm_will_not_do_is_refused_in_its_words(
    cluster: Sandbox, slurm: Port, slurm_of: Callable[[str], Port]
) -> None:
    job = running(cluster, "--no-requeue")
    refused = slurm.requeue(job, comment="x")
    assert isinstance(refused, Refused)
    assert refused.reason in said(job, "Requested operation is presently disabled")
    other = slurm_of("bob").requeue(job, comment="x")
    assert isinstance(other, Refused)
    assert "ermission denied" in other.reason
    assert isinstance(slurm_of("bob").comment(job, "x"), Refused)
    assert isinstance(slurm_of("alice").drain(N0, "x"), Refused)
    assert slurm.job(job).state == "RUNNING"


def test_a_job_of_srun_is_not_asked_for(cluster: Sandbox, slurm: Port) -> None:
    with cluster.popen(["srun", "-w", "n0", "sleep", "60"], user="alice") as step:
        found = wait_for(lambda: cluster.good(["squeue", "-h", "-t", "R", "-o", "%A"]).split(), 20)
        assert slurm.requeue(JobId(int(found[0])), comment="x") == Refused(reason="only batch jobs can be requeued")
        cluster.good(["scancel", found[0]])
        step.communicate(timeout=30)


def test_ended_and_held_jobs_stay_so(cluster: Sandbox, slurm: Port) -> None:
    done = cluster.sbatch(script="true")
    cluster.wait(done)
    assert slurm.requeue(JobId(done), comment="x") == Refused(reason="the job is COMPLETED")
    held = cluster.sbatch("--hold", script=BUSY)
    answer = slurm.requeue(JobId(held), comment="x")
    assert answer == Refused(reason="the job is held: JobHeldUser")
    assert cluster.job(held)["JobState"] == "PENDING"


def test_a_job_that_somebody_else_requeued_is_helped_to_start(cluster: Sandbox, slurm: Port) -> None:
    job = running(cluster)
    cluster.good(["scontrol", "requeue", str(job)])
    cluster.wait(job, {"PENDING"})
    assert isinstance(slurm.requeue(job, comment="second"), Done)
    fields = cluster.wait(job, {"RUNNING"}, timeout=20)
    assert (fields["Restarts"], fields["AdminComment"].strip()) == ("1", "second")


def test_a_drained_node_keeps_its_first_reason(cluster: Sandbox, slurm: Port) -> None:
    try:
        assert slurm.drain(N1, "mpsr:device-lost: GPU 0") == Done()
        assert "mpsr:device-lost: GPU 0" in cluster.good(["scontrol", "show", "node", "n1"])
        again = slurm.drain(N1, "another")
        assert isinstance(again, Done)
        assert "already drained: mpsr:device-lost: GPU 0" in again.detail
        assert isinstance(slurm.drain(NodeName("nowhere"), "x"), Refused)
        assert isinstance(slurm.drain(NodeName("n0 State=DOWN"), "x"), Refused)
    finally:
        cluster.good(["scontrol", "update", "NodeName=n1", "State=RESUME"])


def test_a_comment_is_taken_while_the_job_runs_and_not_when_it_ends(cluster: Sandbox, slurm: Port) -> None:
    """Why the agent has a job's tasks stay until Slurm has the job's account."""
    job = JobId(cluster.sbatch("-w", "n0", script="trap 'sleep 1; exit 1' TERM; echo up; sleep 60 & wait"))
    wait_for(lambda: cluster.output(job), 20)  # its trap is set
    assert slurm.comment(job, "while it runs") == Done()
    cluster.good(["scancel", str(job)])
    cluster.wait(job, {"COMPLETING"})
    late = [Refused(reason=reason) for reason in said(job, "Job has already finished")]
    assert slurm.comment(job, "while it ends") in late
    cluster.wait(job)
    assert slurm.comment(job, "when it has ended") in late
    assert cluster.job(job)["AdminComment"].strip() == "while it runs"


def test_an_unknown_job_is_an_error(slurm: Port) -> None:
    with pytest.raises(SlurmError, match="job 999999: is unknown to Slurm"):
        slurm.job(JobId(999999))


def test_a_controller_that_stands_still_is_away_within_the_deadline(cluster: Sandbox, slurm: Port) -> None:
    job = running(cluster)
    pids = [pid for pid, line in cluster.processes().items() if "slurmctld" in line.split(" ", 1)[0]]
    cluster.good(["kill", "-STOP", *map(str, pids)])
    try:
        with pytest.raises(SlurmAway):
            slurm.job(job)
    finally:
        cluster.good(["kill", "-CONT", *map(str, pids)])
    assert slurm.job(job).state == "RUNNING"
