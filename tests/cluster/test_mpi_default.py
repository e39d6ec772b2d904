"""MpiDefault=pmi2 or pmix: Slurm wires every step for MPI, and a program that is none recovers in place all the same.

One fault for each default: beside it a job for each rung, all of one task, and the ranks of a real MPI step, which come
back together.
"""

from collections.abc import Iterator

import pytest

from tests.cluster.plan import REPO
from tests.cluster.sandbox import Sandbox, wait_for
from tests.demo import programs
from tests.demo.stage import Stage

pytestmark = [pytest.mark.cluster, pytest.mark.sim, pytest.mark.slow]
RUNGS = {"promote": "standby", "restore": "restore", "relaunch": "relaunch", "requeue": "requeue"}
KINDS = ("pmi2", "pmix")
STEPS = 2 * programs.STEPS
"""Enough for all to be at work when the fault comes, on a busy machine too."""


@pytest.fixture(scope="module")
def site() -> Iterator[Sandbox]:
    with Sandbox(nodes=1) as sandbox:
        yield sandbox


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, site: Sandbox) -> Iterator[str]:
    said = site.srun("--mpi=list")
    if request.param not in said.out + said.err:
        pytest.skip(f"this Slurm has no {request.param}")
    default(site, str(request.param))
    yield str(request.param)
    Stage(site).clear()


def default(site: Sandbox, kind: str) -> None:
    site.good(["sed", "-i", f"s,^MpiDefault=.*,MpiDefault={kind},", "/etc/slurm/slurm.conf"])
    site.good(["scontrol", "reconfigure"])
    shown = f"MpiDefault              = {kind}"
    wait_for(lambda: shown in site.good(["scontrol", "show", "config"]), 10)


def ranks(site: Sandbox, kind: str, stem: str) -> int:
    """A job of two ranks that meet, and compute then."""
    python, *heat = programs.heat2d(site.plan, stem=f"{stem}.$SLURM_PROCID", steps=STEPS)
    line = " ".join([python, f"{REPO}/tests/programs/pmi.py", kind, *heat])
    return site.sbatch("--mps", "-n2", "--gres=shard:1", script=f"exec srun -n2 bash -c 'exec {line}'")


def test_every_rung_is_open_to_a_program_that_is_not_mpi(site: Sandbox, kind: str) -> None:
    stage = Stage(site)
    wired = site.srun("-n1", "env").out
    assert "PMI" in wired
    jobs = {
        action: stage.solver("--gres=shard:1", f"--mps-recover={rung}", plain=action == "relaunch", steps=STEPS)
        for action, rung in RUNGS.items()
    }
    stem = f"/home/alice/{kind}"
    together = ranks(site, kind, stem)
    stage.under_way(list(jobs.values()))
    wait_for(lambda: all(programs.last_step(site.read(f"{stem}.{rank}.log")) > 300 for rank in (0, 1)), 60)
    numbers = {job.number: action for action, job in jobs.items()}
    stage.end(stage.culprit("illegal-address", "--gres=shard:1"))
    for action, job in jobs.items():
        fields = stage.end(job)
        restarts = "1" if action == "requeue" else "0"
        assert (fields["JobState"], fields["Restarts"]) == ("COMPLETED", restarts), (action, fields.get("AdminComment"))
    fields = site.wait(together, timeout=60)
    assert (fields["JobState"], fields["Restarts"]) == ("COMPLETED", "1"), fields.get("AdminComment")
    assert "an MPI task cannot come back alone" in fields["AdminComment"]
    verdicts = [(int(one["task"].split(".")[0]), one["action"]) for one in site.journal() if one["event"] == "verdict"]
    assert sorted(one for one in verdicts if one[0] in numbers) == sorted(numbers.items())
