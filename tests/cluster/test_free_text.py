"""Texts of a user's job that look like Slurm's own lines: what root does reaches that job and no other.

`victim` is bob's, a plain job beside; alice tries every field that Slurm takes a text in.
"""

import os
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from resilience.adapters.slurm.scontrol import Scontrol
from resilience.model.ids import JobId
from resilience.ports import Done
from tests.cluster.sandbox import Sandbox, wait_for
from tests.demo.stage import Stage

pytestmark = [pytest.mark.cluster, pytest.mark.sim]
BUSY = "trap 'exit 143' TERM; while :; do sleep 0.1; done"
SMALL = ("-n1", "--mem=10")
OPTIONS = {
    "JobName": "--job-name={}",
    "Comment": "--comment={}",
    "StdOut": "--output=/home/alice/o{}",
    "StdErr": "--error=/home/alice/e{}",
    "WorkDir": "--chdir=/home/alice/{}",
    "Account": "--account={}",
    "WCKey": "--wckey={}",
    "MailUser": "--mail-user={}",
    "Network": "--network={}",
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Sandbox]:
    with Sandbox(nodes=1, gpus=2) as sandbox:
        yield sandbox


@pytest.fixture
def victim(cluster: Sandbox) -> Iterator[int]:
    job = cluster.sbatch(*SMALL, script=BUSY, user="bob")
    cluster.wait(job, {"RUNNING"})
    yield job
    for user in ("alice", "bob"):
        cluster.good(["scancel", f"--user={user}"])
    wait_for(lambda: not cluster.good(["squeue", "-h"]).strip(), 30)


@pytest.fixture
def slurm(cluster: Sandbox, tmp_path: Path) -> Scontrol:
    for name in ("scontrol", "squeue"):
        program = tmp_path / name
        program.write_text(f'#!/bin/sh\nexec {shlex.join(cluster.command([name]))} "$@"\n')
        program.chmod(0o755)
    return Scontrol(program=str(tmp_path / "scontrol"), timeout=10, requeue_timeout=30)


def forged(victim: int) -> str:
    """Lines as scontrol and squeue print them, of another job."""
    return (
        f"x\nJobId={victim} ArrayJobId={victim},1 ArrayTaskId=0 JobName=y\n   JobState=PENDING Requeue=1 Restarts=7\n"
        f"     Nodes=n0 CPU_IDs=0 Mem=0 GRES=gpu:2(IDX:0-1)\n\nJobId={victim} \n{victim:<24}{victim:<24}0\n"
    )  # a file's name has at most 255 bytes


def raw(victim: int) -> str:
    """Bytes that are no text, orders to a terminal, and every end of a line that there is."""
    return f"\udcff\x1b[2J\x1b]0;x\x07\x7f\x85\u2028\r\nJobId={victim} JobState=PENDING Requeue=1\x0b\x0c\n{victim:<24}{victim:<24}0"


def untouched(cluster: Sandbox, victim: int) -> bool:
    shown = cluster.job(victim)
    return (shown["JobState"], shown["Restarts"], shown.get("AdminComment", "")) == ("RUNNING", "0", "")


def submit(cluster: Sandbox, text: str, *fields: str) -> int:
    """A job of alice's with the text in these fields; its script's file has it in its name."""
    quoted = shlex.quote(f"/home/alice/{text}")
    cluster.good(
        ["bash", "-c", f"mkdir -p {quoted}; printf '#!/bin/bash\\n%s\\n' {shlex.quote(BUSY)} > {quoted}.sh"],
        user="alice",
    )
    options = [OPTIONS[field].format(text) for field in fields]
    done = cluster.good(["sbatch", "--parsable", *SMALL, *options, f"/home/alice/{text}.sh"], user="alice")
    return int(done.split()[0])


@pytest.mark.parametrize("made", [forged, pytest.param(raw, marks=pytest.mark.slow)])
def test_every_text_leaves_what_root_asks_as_it_is(
    cluster: Sandbox, victim: int, slurm: Scontrol, made: Callable[[int], str]
) -> None:
    text = made(victim)
    jobs = {field: submit(cluster, text, field) for field in OPTIONS} | {"all": submit(cluster, text, *OPTIONS)}
    for job in jobs.values():
        wait_for(lambda job=job: slurm.snapshot(JobId(job)).state == "RUNNING", 20)  # type: ignore[misc]
    for field, job in jobs.items():
        seen, info = slurm.snapshot(JobId(job)), slurm.job(JobId(job))
        assert (seen.restarts, seen.batch, info.job, info.requeue) == (0, True, job, True), field
        assert slurm.comment(JobId(job), f"mpsr: of {field} (incident a-1)") == Done(), field
        assert slurm.admin_comment(JobId(job)) == f"mpsr: of {field} (incident a-1)", field
        assert not slurm.over(JobId(job), 0), field
    shown = os.fsencode(text).decode(errors="replace")
    assert slurm.job(JobId(jobs["WorkDir"])).workdir == f"/home/alice/{shown}"
    assert slurm.job(JobId(jobs["StdOut"])).stdout == f"/home/alice/o{shown}"
    assert isinstance(slurm.requeue(JobId(jobs["all"]), comment="mpsr: again (incident a-2)"), Done)
    wait_for(lambda: slurm.snapshot(JobId(jobs["all"])).restarts == 1, 20)
    assert {field for field, job in jobs.items() if slurm.snapshot(JobId(job)).restarts} == {"all"}
    assert untouched(cluster, victim)


@pytest.mark.parametrize("field", ["JobName", "Comment", "WorkDir"])
def test_a_fault_never_has_a_job_of_another_user_requeued(cluster: Sandbox, victim: int, field: str) -> None:
    stage = Stage(cluster)
    text = forged(victim)
    cluster.good(["mkdir", "-p", f"/home/alice/{text}"], user="alice")
    option = OPTIONS[field].format(text)
    output = "--output=/home/alice/slurm-%j.out"
    culprit = stage.culprit("illegal-address", "--gres=shard:1", "--mps-on-culprit=requeue", *SMALL, output, option)

    def asked() -> list[dict[str, object]]:
        events = (entry for entry in cluster.journal() if entry["event"] == "slurm.outcome")
        return [entry for entry in events if entry["job"] == culprit.number and entry["ask"] == "requeue"]

    (outcome,) = wait_for(asked, 40, lambda: cluster.good(["squeue"]))[:1]
    assert outcome["ok"], outcome
    assert untouched(cluster, victim)


def test_a_late_prolog_opens_no_gpu_that_the_job_does_not_hold(cluster: Sandbox, victim: int) -> None:
    holder = cluster.sbatch("--gres=gpu:2", *SMALL, script=BUSY, user="bob")
    cluster.wait(holder, {"RUNNING"})
    script = "export SLURM_SPANK_MPSR='mps=on'; srun -n1 --mps bash -c 'env; cat $MPSR_LEASE'"
    job = cluster.sbatch(f"--job-name={forged(victim)}", f"--comment={forged(victim)}", *SMALL, script=script)
    wait_for(
        lambda: "CANCELLED" in cluster.output(job) or not cluster.good(["squeue", "-h", "-j", str(job)]).strip(), 40
    )
    assert "no GPU in this allocation" in cluster.output(job)
    assert "CUDA_MPS_PIPE_DIRECTORY" not in cluster.output(job)
    events = [entry["event"] for entry in cluster.journal() if entry.get("job") == job]
    assert "job.opened" not in events
    assert "job.refused" in events
