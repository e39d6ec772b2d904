"""mpiexec hands the environment of a batch script to all its ranks: those of another node are clients of their own node.

With MPICH's hydra where it is installed (Debian's mpich), and with a stand-in that does to the environment what all of
them do.
"""

import shutil
from functools import partial

import pytest

from tests.cluster.plan import REPO
from tests.cluster.sandbox import Sandbox, wait_for
from tests.demo.stage import Stage

pytestmark = [pytest.mark.cluster, pytest.mark.sim]
HARDWARE = "export SIMGPU_DIR=/run/simgpu/n${PMI_RANK-$SLURM_NODEID}"
"""A real node's GPU does not come by the environment."""
SHOW = 'echo "node $SLURM_NODEID: $CUDA_MPS_PIPE_DIRECTORY $(readlink $CUDA_MPS_PIPE_DIRECTORY) $CUDA_VISIBLE_DEVICES"'
ALL = (
    "export -p > $HOME/env.$SLURM_JOB_ID; srun -n2 -N2 bash -c "
    "'id=$SLURM_NODEID; . $HOME/env.$SLURM_JOB_ID; SLURM_NODEID=$id; {0}'"
)
HYDRA = "mpiexec.hydra -bootstrap slurm -n 2 -ppn 1 bash -c '{0}'"
LAUNCHERS = [
    "standin",
    pytest.param(
        "hydra", marks=pytest.mark.skipif(not shutil.which("mpiexec.hydra"), reason="no MPICH (Debian: mpich)")
    ),
]


def script(launcher: str, command: str) -> str:
    return (HYDRA if launcher == "hydra" else ALL).format(command)


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_each_rank_is_a_client_of_its_own_node(cluster: Sandbox, launcher: str) -> None:
    program = f"exec {cluster.plan.python} {REPO}/resilience/drill/culprit.py none --after 60"
    job = cluster.sbatch(
        "--mps", "-N2", "-n2", "--gres=gpu:1", script=script(launcher, f"{HARDWARE}; {SHOW}; {program}")
    )
    for node in cluster.nodes:
        wait_for(partial(cluster.on_gpu, node), 30, partial(cluster.output, job))
    lines = sorted(line.split()[2:] for line in cluster.output(job).splitlines() if line.startswith("node "))
    pipe = f"/run/mpsr/.here/jobs/{job}.pipe"
    assert [line[0] for line in lines] == [pipe, pipe]
    assert [line[1].split("/")[3] for line in lines] == ["n0", "n1"]
    assert [line[2] for line in lines] == ["0", "0"]
    cluster.good(["scancel", str(job)])
    cluster.wait(job)
    Stage(cluster).clear()
    wait_for(lambda: not cluster.residue(), 20, lambda: str(cluster.residue()))


def test_a_supervisor_that_a_rank_starts_finds_the_lease_of_its_own_node(cluster: Sandbox) -> None:
    command = '/opt/mpsr/build/mpsr-launch bash -c "echo lease \\$MPSR_LEASE pipe \\$CUDA_MPS_PIPE_DIRECTORY"'
    job = cluster.sbatch("--mps", "-N2", "-n2", "--gres=gpu:1", script=script("standin", command))
    assert cluster.wait(job)["JobState"] == "COMPLETED", cluster.output(job)
    pipes = {line.split()[-1].split("/")[3] for line in cluster.output(job).splitlines() if line.startswith("lease")}
    assert pipes == {"n0", "n1"}, cluster.output(job)
    wait_for(lambda: not cluster.residue(), 20, lambda: str(cluster.residue()))
