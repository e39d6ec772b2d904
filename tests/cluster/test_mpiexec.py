"""mpiexec hands the environment of a batch script to all its ranks: those of another node are clients of their own node.

With MPICH's hydra and Open MPI's mpirun where they are installed (Debian's mpich, openmpi-bin), and with a stand-in that
does to the environment what all of them do.
"""

import shutil
from collections.abc import Iterator
from functools import partial

import pytest

from tests.cluster import ssh
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


# ---------------------------------------------------------------- real MPI programs on nodes with several GPUs
# Both nodes are this host: its only network is lo, and Open MPI would take ranks of both for neighbours.
OPENMPI = (
    "mpirun.openmpi --mca oob_tcp_if_include lo --mca btl self,tcp --mca btl_tcp_if_include lo --map-by ppr:2:node -n 4"
)
MPICH = "mpiexec.hydra -bootstrap slurm -iface lo -n 4 -ppn 2"
WHERE = (
    "echo rank ${OMPI_COMM_WORLD_RANK-$PMI_RANK} $(readlink -f $CUDA_MPS_PIPE_DIRECTORY | cut -d/ -f4,7) "
    "$(grep -c ^gpus= $MPSR_LEASE)"
)
SHAPE = ("--mps", "-N2", "-n4", "--ntasks-per-node=2", "--gres=gpu:2", "--mps-servers=gpu")


@pytest.fixture(scope="module")
def two() -> Iterator[Sandbox]:
    with Sandbox(nodes=2, gpus=2) as it:
        yield it


@pytest.mark.slow
@pytest.mark.parametrize(("launcher", "library"), [(OPENMPI, "openmpi"), (MPICH, "mpich")], ids=["Open MPI", "MPICH"])
def test_ranks_of_a_real_mpi_program_spread_over_the_gpus_of_each_node(
    two: Sandbox, launcher: str, library: str
) -> None:
    if not shutil.which(launcher.split(maxsplit=1)[0]):
        pytest.skip(f"no {launcher.split(maxsplit=1)[0]} on this machine")
    ring = f"{two.plan.python} {REPO}/tests/programs/ring.py {library}"
    two.path("/home/alice/where").write_text(f"#!/bin/bash\n{WHERE}\nexec {ring}\n")
    two.path("/home/alice/where").chmod(0o755)
    job = two.sbatch(*SHAPE, script=f"{launcher} mpsr run /home/alice/where")
    assert two.wait(job, timeout=90)["JobState"] == "COMPLETED", two.output(job)
    lines = two.output(job).splitlines()
    assert sorted(line for line in lines if line.startswith("rank ")) == [
        "rank 0 n0/g0 1", "rank 1 n0/g1 1", "rank 2 n1/g0 1", "rank 3 n1/g1 1",
    ]  # fmt: skip
    assert "4 ranks, sum 6" in lines
    wait_for(lambda: not two.residue(), 20, lambda: str(two.residue()))


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [OPENMPI, MPICH], ids=["Open MPI", "MPICH"])
def test_ranks_without_supervisors_see_the_gpus_of_their_node_as_without_us(two: Sandbox, launcher: str) -> None:
    """A program picks the GPU of its local rank itself, or by a wrapper that sets CUDA_VISIBLE_DEVICES."""
    if not shutil.which(launcher.split(maxsplit=1)[0]):
        pytest.skip(f"no {launcher.split(maxsplit=1)[0]} on this machine")
    gpus = f"{two.plan.python} {REPO}/tests/programs/gpus.py"
    local = "${OMPI_COMM_WORLD_LOCAL_RANK-$MPI_LOCALRANKID}"
    hardware = "export SIMGPU_DIR=/run/simgpu/$(readlink -f $MPSR_LEASE | cut -d/ -f4)"
    two.path("/home/alice/pick").write_text(
        f"#!/bin/bash\n{hardware}\necho all $({gpus})\nCUDA_VISIBLE_DEVICES={local} exec {gpus}\n"
    )
    two.path("/home/alice/pick").chmod(0o755)
    job = two.sbatch(*SHAPE[:-1], script=f"{launcher} /home/alice/pick")
    assert two.wait(job, timeout=90)["JobState"] == "COMPLETED", two.output(job)
    lines = [line for line in two.output(job).splitlines() if "GPU-" in line]
    assert all(line.endswith(" mps") for line in lines), lines
    assert sorted(line.count("GPU-") for line in lines) == [1] * 4 + [2] * 4, two.output(job)
    assert len({line.split()[-2] for line in lines if line.count("GPU-") == 1}) == 4, "each rank has its own"
    wait_for(lambda: not two.residue(), 20, lambda: str(two.residue()))


@pytest.mark.slow
def test_ranks_that_come_by_ssh_are_clients_of_their_own_node(two: Sandbox) -> None:
    if ssh.missing() or not shutil.which("mpiexec.hydra"):
        pytest.skip("no sshd, or no MPICH, on this machine (Debian: openssh-server, mpich)")
    launcher = "mpiexec.hydra -bootstrap ssh -bootstrap-exec $HOME/ssh -hosts n0,n1 -iface lo -n 4 -ppn 2"
    two.path("/home/alice/where").write_text(f"#!/bin/bash\n{WHERE}\n")
    two.path("/home/alice/where").chmod(0o755)
    with ssh.daemons(two):
        job = two.sbatch(*SHAPE, script=f"{launcher} mpsr run $HOME/where")
        state = two.wait(job, timeout=60)["JobState"]
        assert (state, sorted(line for line in two.output(job).splitlines() if line.startswith("rank "))) == (
            "COMPLETED",
            ["rank 0 n0/g0 1", "rank 1 n0/g1 1", "rank 2 n1/g0 1", "rank 3 n1/g1 1"],
        ), two.output(job)
    wait_for(lambda: not two.residue(), 20, lambda: str(two.residue()))
