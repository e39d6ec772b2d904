"""A job whose prolog slurmd skipped (spank_plugin/plugin/late.c): the plugin has it run before the first task.

slurmd skips it at random; here it is told to run another prolog, which for the plugin is the same.
"""

from collections.abc import Iterator

import pytest

from tests.cluster.sandbox import Sandbox, wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.sim]


@pytest.fixture(scope="module")
def skipping() -> Iterator[Sandbox]:
    # servers that take their time: what comes while a prolog runs comes in the middle of it
    with Sandbox(nodes=2, gpus=2, simulation=["server_init_ms=500"]) as sandbox:
        change = "s,^Prolog=.*,Prolog=/bin/true,"
        sandbox.good(["sed", "-i", change, "/etc/slurm/slurm.conf", "/etc/slurm/slurm-mpsr.conf"])
        sandbox.good(["scontrol", "reconfigure"])
        wait_for(lambda: "= /bin/true" in sandbox.good(["scontrol", "show", "config"]), 10)
        yield sandbox


@pytest.mark.parametrize("gres", ["shard:2", "mps:20", "gpu:1", "gpu:2"])
def test_the_job_has_its_lease_and_its_own_gpus(skipping: Sandbox, gres: str) -> None:
    blocker = skipping.sbatch("-wn0", "--gres=gpu:1", script="sleep 30") if gres == "gpu:1" else 0
    if blocker:
        skipping.wait(blocker, {"RUNNING"})
    script = "echo $CUDA_VISIBLE_DEVICES $CUDA_MPS_PIPE_DIRECTORY; cat $MPSR_LEASE | grep ^gpus="
    job = skipping.sbatch("--mps", "-wn0", f"--gres={gres}", script=script)
    fields = skipping.wait(job)
    out = skipping.output(job)
    assert fields["JobState"] == "COMPLETED", out
    (opened,) = (entry for entry in skipping.journal() if entry["event"] == "job.opened" and entry["job"] == job)
    assert opened["late"] is True
    held = opened["gpus"]
    assert len(held) == (2 if gres == "gpu:2" else 1)
    if blocker:
        assert held == [1]
        skipping.good(["scancel", str(blocker)])
        skipping.wait(blocker)
    assert "/run/mpsr/n0/d/" in out


def closed(sandbox: Sandbox, job: int, node: str) -> list[str]:
    """Wait for the epilog's word on one node; what it found left behind."""

    def events() -> list[list[str]]:
        closings = (entry for entry in sandbox.journal(node) if entry["event"] == "job.closed")
        return [entry["residue"] for entry in closings if entry["job"] == job]

    return wait_for(events, 20, lambda: f"job.closed of {job} on {node}")[0]


@pytest.mark.parametrize("steps", [1, 3])
def test_so_does_the_second_node_of_a_job_whatever_its_steps_ask_for(skipping: Sandbox, steps: int) -> None:
    """The first thing that happens on that node is a step, or several at once."""
    line = "srun -N2 -n2 --overlap --mps-threads=7 bash -c 'echo $SLURMD_NODENAME $MPSR_LEASE $CUDA_MPS_PIPE_DIRECTORY'"
    job = skipping.sbatch("-N2", "--mps", "--mps-domain=job", "--gres=shard:2", script=f"{line} &\n" * steps + "wait")
    assert skipping.wait(job)["JobState"] == "COMPLETED"
    expected = [f"{node} /run/mpsr/{node}/jobs/{job}.lease /run/mpsr/{node}/d/j{job}/g0/a" for node in skipping.nodes]
    assert sorted(skipping.output(job).splitlines()) == sorted(expected * steps)
    for node in skipping.nodes:
        opened = [event for event in skipping.journal(node) if event["event"] == "job.opened" and event["job"] == job]
        assert [event["late"] for event in opened] == [True]
        assert closed(skipping, job, node) == []
    wait_for(lambda: not skipping.residue(), 10, lambda: str(skipping.residue()))


def test_whoever_forges_the_jobs_options_leaves_nothing_either(skipping: Sandbox) -> None:
    """The epilog of a job that did not ask is not told of MPS by Slurm: the lease alone says that there is something."""
    wire = "mps=on;domain=job;threads=;memory=;state=;standby=on;recover=relaunch;retries=3;"
    wire += "on-culprit=fail;ranks=auto;servers=auto;require=mps"
    script = f"export SLURM_SPANK_MPSR='{wire}'; srun --mps bash -c 'echo $CUDA_MPS_PIPE_DIRECTORY'"
    job = skipping.sbatch("-wn1", "--gres=shard:1", script=script)
    skipping.wait(job)
    assert f"/d/j{job}/g0/a" in skipping.output(job)
    assert closed(skipping, job, "n1") == []
    wait_for(lambda: not skipping.residue(), 10, lambda: str(skipping.residue()))


def test_a_job_without_a_gpu_is_refused_as_by_the_prolog(skipping: Sandbox) -> None:
    job = skipping.sbatch("--mps", script="true")
    assert skipping.wait(job)["JobState"] == "FAILED"
    assert "no GPU in this allocation" in skipping.output(job)


def test_a_step_gets_no_more_than_its_job_asked_for(skipping: Sandbox) -> None:
    job = skipping.sbatch("--gres=shard:1", script="srun --mps true")
    assert skipping.wait(job)["JobState"] == "FAILED"
    assert "no lease" in skipping.output(job)
    assert not [entry for entry in skipping.journal() if entry.get("job") == job]


def test_a_job_that_did_not_ask_has_no_prolog_run(skipping: Sandbox) -> None:
    job = skipping.sbatch("--gres=shard:1", script="true")
    assert skipping.wait(job)["JobState"] == "COMPLETED"
    assert not [entry for entry in skipping.journal() if entry.get("job") == job]
