"""MPI steps: ranks on two nodes meet through PMI-2 and PMIx as without the supervisor, and share one fate at a fault.

A rank cannot come back alone: the others would wait for it for ever. So a job whose ranks are bystanders is requeued
as a whole, and one whose own rank made the fault ends as its user chose. The ranks are tests/programs/pmi.py, and a real
MPI program on Open MPI's library, tests/programs/ring.py.
"""

import shlex
import shutil
from collections.abc import Iterator

import pytest

from tests.cluster.plan import REPO
from tests.cluster.sandbox import CommandDone, Sandbox, wait_for
from tests.demo import programs
from tests.demo.stage import Stage

pytestmark = [pytest.mark.cluster, pytest.mark.sim]
KINDS = ("pmi2", "pmix")
SHAPE = ("-N2", "-n4", "--ntasks-per-node=2", "--gres=shard:2")
CARDS = "0@n0 1@n0 2@n1 3@n1"


@pytest.fixture(autouse=True)
def _nothing_stays(cluster: Sandbox) -> Iterator[None]:
    yield
    Stage(cluster).clear()
    wait_for(lambda: not cluster.residue(), 20, lambda: str(cluster.residue()))
    wait_for(lambda: cluster.good(["sinfo", "-h", "-N", "-o", "%T"]).split() == ["idle"] * 2, 10)


@pytest.fixture(scope="module")
def kinds(cluster: Sandbox) -> tuple[str, ...]:
    """What this Slurm has: Debian's 26.05 comes without PMIx."""
    said = cluster.srun("--mpi=list")
    return tuple(kind for kind in KINDS if kind in said.out + said.err)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, kinds: tuple[str, ...]) -> str:
    if request.param not in kinds:
        pytest.skip(f"this Slurm has no {request.param}")
    return str(request.param)


def rank(cluster: Sandbox, kind: str, *program: str) -> list[str]:
    return [cluster.plan.python, f"{REPO}/tests/programs/pmi.py", kind, *program]


def step(cluster: Sandbox, kind: str, *options: str, program: tuple[str, ...] = ()) -> CommandDone:
    return cluster.srun("-Q", *SHAPE, f"--mpi={kind}", *options, *rank(cluster, kind, *program), timeout=30)


def test_ranks_meet_as_without_us(cluster: Sandbox, kind: str) -> None:
    plain, ours = (step(cluster, kind, "-l", *ask) for ask in ((), ("--mps",)))
    assert sorted(ours.out.splitlines()) == [f"{number}: rank {number} of 4: {CARDS}" for number in range(4)]
    assert sorted(ours.out.splitlines()) == sorted(plain.out.splitlines())
    assert (ours.status, ours.err) == (plain.status, plain.err) == (0, "")


def test_open_mpi_works_as_without_us(cluster: Sandbox, kinds: tuple[str, ...]) -> None:
    if "pmix" not in kinds:
        pytest.skip("this Slurm has no pmix")
    if not shutil.which("mpirun.openmpi"):
        pytest.skip("no Open MPI on this machine (Debian: openmpi-bin)")
    # both nodes are this host: Open MPI would take their ranks for neighbours and mix up their shared memory
    transport = ["env", "OMPI_MCA_btl=self,tcp", "OMPI_MCA_btl_tcp_if_include=lo"]
    ring = [cluster.plan.python, f"{REPO}/tests/programs/ring.py", "openmpi"]
    plain, ours = (
        cluster.run([*transport, "srun", "-Q", *SHAPE, "--mpi=pmix", *ask, *ring], user="alice")
        for ask in ((), ("--mps",))
    )
    assert (ours.status, ours.out) == (plain.status, plain.out) == (0, "4 ranks, sum 6\n"), ours.err


def test_a_rank_that_fails_takes_the_step_with_it_as_without_us(cluster: Sandbox, kind: str) -> None:
    cluster.path("/home/alice/dies.py").write_text(
        "import os, sys, time\nif os.environ['SLURM_PROCID'] == '1': sys.exit(3)\ntime.sleep(60)\n"
    )
    plain, ours = (
        step(cluster, kind, "-K", *ask, program=("/home/alice/dies.py",)) for ask in ((), ("--mps",))
    )  # fmt: skip
    assert plain.status != 0
    assert ours.status == plain.status


def solver(cluster: Sandbox, kind: str, stem: str) -> str:
    """The batch script of an MPI job whose ranks each solve the heat equation."""
    python, *heat = programs.heat2d(cluster.plan, stem=stem + ".$SLURM_PROCID")
    assert python == cluster.plan.python
    line = " ".join(rank(cluster, kind, *heat))
    return f"exec srun -Q {' '.join(SHAPE)} --mpi={kind} bash -c {shlex.quote(f'exec {line}')}"


@pytest.mark.slow
def test_a_neighbours_fault_requeues_the_whole_job(cluster: Sandbox, kinds: tuple[str, ...]) -> None:
    stage = Stage(cluster)
    reference = stage.reference()
    stem = "/home/alice/mpi"
    options = ("--mps", *SHAPE, "--open-mode=append")
    job = cluster.sbatch(*options, script=solver(cluster, kinds[-1], stem))
    stems = [f"{stem}.{number}" for number in range(4)]
    wait_for(lambda: all(programs.last_step(cluster.read(f"{one}.log")) > 300 for one in stems), 60)
    culprit = stage.culprit("illegal-address", "--gres=shard:2")
    assert cluster.wait(culprit.number)["JobState"] == "FAILED"
    fields = cluster.wait(job, timeout=60)
    assert (fields["JobState"], fields["Restarts"]) == ("COMPLETED", "1")
    assert "an MPI task cannot come back alone" in fields["AdminComment"]
    assert [cluster.read(f"{one}.out") for one in stems] == [reference] * 4
    met = sorted(line for line in cluster.output(job).splitlines() if line.startswith("rank "))
    assert met == [f"rank {number} of 4: {CARDS}" for number in range(4) for _ in "12"]  # in both runs


@pytest.mark.slow
def test_a_job_whose_own_rank_made_the_fault_fails_and_stays_away(cluster: Sandbox) -> None:
    program = f"{REPO}/resilience/drill/culprit.py"
    kinds = "$([ $SLURM_PROCID = 0 ] && echo illegal-address --after 1 || echo none --after 30)"
    line = " ".join([*rank(cluster, "pmi2", program), kinds])
    script = f"exec srun -Q -K {' '.join(SHAPE)} --mpi=pmi2 bash -c {shlex.quote(f'exec {line}')}"
    job = cluster.sbatch("--mps", *SHAPE, script=script)
    fields = cluster.wait(job, timeout=40)
    assert (fields["JobState"], fields["Restarts"]) == ("FAILED", "0")
    assert "this task caused the GPU fault" in cluster.output(job)
    assert not [event for event in cluster.journal() if event["event"] == "slurm.intent" and event["job"] == job
                and event["ask"] == "requeue"]  # fmt: skip


@pytest.mark.slow
def test_a_step_that_cannot_be_requeued_fails_and_says_why(cluster: Sandbox, kinds: tuple[str, ...]) -> None:
    program = f"{REPO}/resilience/drill/culprit.py"
    argv = [
        "srun",
        "-Q",
        "-K",
        "--mps",
        *SHAPE,
        f"--mpi={kinds[-1]}",
        *rank(cluster, kinds[-1], program, "none", "--after", "60"),
    ]
    with cluster.popen(argv, user="alice") as running:
        wait_for(lambda: len(cluster.on_gpu("n0")) >= 2, 30)  # both ranks
        culprit = Stage(cluster).culprit("illegal-address", "--gres=shard:2")
        cluster.wait(culprit.number)
        _, errors = running.communicate(timeout=30)
    assert running.returncode not in (0, None)
    assert "requeue: not a batch job" in errors
