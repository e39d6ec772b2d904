"""The tutorial's MPI program on a cluster, beside a culprit: requeued, it resumes and ends as its plain form does."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from tests.cluster.plan import REPO
from tests.cluster.sandbox import ROOT, Sandbox, wait_for
from tests.demo.stage import Stage

pytest.importorskip("mpi4py", reason="mpi4py is not installed (make mpi)", exc_type=ImportError)
pytestmark = [pytest.mark.cluster, pytest.mark.sim, pytest.mark.slow, pytest.mark.timeout(500)]
TUTORIAL = "docs/tutorial/mpi"
STEPS = "5000"
RANKS = "2"


def steps(said: str) -> list[int]:
    return [int(line.split()[1]) for line in said.splitlines() if line.startswith("step ")]


def plain() -> str:
    """The last line of the program without a session, here."""
    launcher = ["mpirun.openmpi", "--allow-run-as-root", "--oversubscribe", "-n", RANKS]
    command = [*launcher, sys.executable, str(ROOT / TUTORIAL / "diffusion_plain.py"), STEPS]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=True, timeout=300)
    return done.stdout.splitlines()[-1]


def test_ranks_resume_from_one_step_after_a_requeue() -> None:
    if not shutil.which("mpirun.openmpi"):
        pytest.skip("no Open MPI on this machine (Debian: openmpi-bin)")
    with Sandbox(nodes=1) as cluster:
        if "pmix" not in (listed := cluster.srun("--mpi=list")).out + listed.err:
            pytest.skip("this Slurm has no pmix")
        stage = Stage(cluster)
        run = f"srun --mpi=pmix {cluster.plan.python} {REPO}/{TUTORIAL}/diffusion.py {STEPS}"
        options = ("--mps", "-wn0", f"-n{RANKS}", "--gres=shard:1", "--open-mode=append")
        job = cluster.sbatch(*options, script=run)
        wait_for(lambda: 2000 in steps(cluster.output(job)), 200, lambda: cluster.output(job))
        culprit = stage.culprit("illegal-address", "--gres=shard:1")
        fields = cluster.wait(job, timeout=200)
        said = cluster.output(job)
        assert (fields["JobState"], fields["Restarts"]) == ("COMPLETED", "1"), said
        assert re.search("an MPI task cannot come back alone", fields["AdminComment"]), fields["AdminComment"]
        assert steps(said).count(0) == 1, said  # it did not start afresh
        assert [line for line in said.splitlines() if not line.startswith("mpsr")][-1] == plain()
        stage.end(culprit)
        stage.clear()
        wait_for(lambda: not cluster.residue(), 20, lambda: str(cluster.residue()))
