"""A process that computes outside its job's MPS servers, or with more than its share, is told of within a second, whatever
way it went; and ended where the job wants that."""

from collections.abc import Iterator

import pytest

from tests.cluster.plan import REPO
from tests.cluster.sandbox import Sandbox, wait_for
from tests.demo.stage import Stage

pytestmark = [pytest.mark.cluster, pytest.mark.sim]
GPU = ("-wn0", "--gres=shard:1")
OWN = "export CUDA_MPS_PIPE_DIRECTORY=/tmp/own.$SLURM_JOB_ID CUDA_MPS_LOG_DIRECTORY=/tmp/own.$SLURM_JOB_ID"
DAEMON = f"mkdir -p /tmp/own.$SLURM_JOB_ID; {OWN}; nvidia-cuda-mps-control -d"
QUIT = "echo quit | nvidia-cuda-mps-control"
DEAD = (
    "export CUDA_MPS_PIPE_DIRECTORY=/tmp/dead.$SLURM_JOB_ID; mkdir -p $CUDA_MPS_PIPE_DIRECTORY; {python} -c "
    '\'import socket, os; socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).bind(os.environ["CUDA_MPS_PIPE_DIRECTORY"] + "/control")\''
)
KEPT = "PATH=$PATH LD_LIBRARY_PATH=$LD_LIBRARY_PATH SIMGPU_DIR=$SIMGPU_DIR PYTHONPATH=$PYTHONPATH"
"""How a program finds the simulated GPU."""
WAYS = {
    "env -i": ("", f"env -i {KEPT} SLURM_JOB_ID=$SLURM_JOB_ID", "computes outside MPS: it has no CUDA_MPS_PIPE_DIRECTORY"),
    "detached": ("", f"env -i {KEPT} setsid -f", "computes outside MPS: it has no CUDA_MPS_PIPE_DIRECTORY"),
    "own pipe directory": ("", "env CUDA_MPS_PIPE_DIRECTORY=/tmp", "computes outside MPS: CUDA_MPS_PIPE_DIRECTORY is /tmp"),
    "dead socket": (DEAD, "", "computes outside MPS: CUDA_MPS_PIPE_DIRECTORY is /tmp/dead."),
    "own daemon": (DAEMON, "", "is a client of an MPS server that is not its job's: CUDA_MPS_PIPE_DIRECTORY is /tmp/own."),
    "share": ("", "env -u CUDA_MPS_ACTIVE_THREAD_PERCENTAGE",
              "may use more than its 30 percent of the GPU's threads: it has no CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"),
    "memory": ("", "env CUDA_MPS_PINNED_DEVICE_MEM_LIMIT=0=2G",
               "may use more than its 512 MiB of device memory: CUDA_MPS_PINNED_DEVICE_MEM_LIMIT is 0=2G"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _nothing_stays(cluster: Sandbox) -> Iterator[None]:
    yield
    Stage(cluster).clear()
    wait_for(lambda: not cluster.residue(), 20, lambda: str(cluster.residue()))


def program(cluster: Sandbox, seconds: float) -> str:
    return f"{cluster.plan.python} {REPO}/resilience/drill/culprit.py none --after {seconds:g}"


def told(cluster: Sandbox, job: int) -> list[dict[str, object]]:
    return [row for row in cluster.journal() if row["event"] == "process.unattached" and row["job"] == job]


@pytest.mark.parametrize(
    "way", [pytest.param(way, marks=pytest.mark.slow if number else ()) for number, way in enumerate(WAYS)]
)
def test_one_line_in_output_and_log(cluster: Sandbox, way: str) -> None:
    before, prefix, why = WAYS[way]
    before = before.format(python=cluster.plan.python)
    script = f"({before}\n{prefix} {program(cluster, 3)}\n{QUIT if 'daemon' in way else 'sleep 4' if way == 'detached' else 'true'})"
    job = cluster.sbatch("--mps", "--mps-threads=30", "--mps-memory=512M", *GPU, script=script)
    wait_for(lambda: told(cluster, job), 20, lambda: cluster.output(job))
    assert cluster.wait(job)["JobState"] == "COMPLETED", cluster.output(job)
    (row,) = told(cluster, job)
    assert why in str(row["reason"])
    line = f"process {row['pid']} (python) of the job {row['reason']}"
    wait_for(lambda: cluster.output(job).count(line) == 1, 10, lambda: cluster.output(job))
    wait_for(lambda: line in cluster.run(["/opt/bin/mpsr", "log", "-j", str(job)], user="alice").out, 10)


def test_a_task_of_srun_hears_it_on_its_standard_error(cluster: Sandbox) -> None:
    line = f"env -u CUDA_MPS_PIPE_DIRECTORY {program(cluster, 2)}"
    done = cluster.srun("-Q", "--mps", *GPU, "bash", "-c", f"{line}; true")
    assert done.status == 0
    said = [text for text in done.err.splitlines() if "computes outside MPS" in text]
    assert len(said) == 1, done.err
    assert said[0].startswith("mpsr: process "), said
    assert "of step 0 task 0 computes outside MPS: it has no CUDA_MPS_PIPE_DIRECTORY" in said[0]


@pytest.mark.slow
@pytest.mark.parametrize("way", ["env -i", "own daemon", "share"])
def test_where_the_job_wants_it_the_process_is_ended(cluster: Sandbox, way: str) -> None:
    before, prefix, why = WAYS[way]
    script = f"({before}\n{prefix} {program(cluster, 60)}\necho ended $?; {QUIT if 'daemon' in way else 'true'})"
    asked = ("--mps", "--mps-unattached=fail", "--mps-threads=30", *GPU)
    job = cluster.sbatch(*asked, script=script)
    assert cluster.wait(job, timeout=40)["JobState"] == "COMPLETED"
    output = cluster.output(job)
    # a client of a server of ours is ended by that first, and may get as far as to fail with CUDA error 810
    assert "ended 137\n" in output or (way == "share" and "ended 1\n" in output)
    wait_for(lambda: f"{why.split(':', maxsplit=1)[0]}" in cluster.output(job), 10, lambda: cluster.output(job))
    assert "; it is ended (--mps-unattached=fail)" in cluster.output(job)


@pytest.mark.slow
def test_nobody_who_is_where_it_should_be_hears_of_it(cluster: Sandbox) -> None:
    """A plain command, a task with its standby, two that start at once, one that uses less than its share, one without
    GPU work and without our environment."""
    line = program(cluster, 2)
    less = f"env CUDA_MPS_ACTIVE_THREAD_PERCENTAGE=10 CUDA_MPS_PINNED_DEVICE_MEM_LIMIT=0=100M {line}"
    script = f"{line} & srun -n1 {line} & {less} & {line} & env -i sleep 2 & wait"
    job = cluster.sbatch("--mps", "--mps-threads=30", "--mps-memory=512M", *GPU, script=script)
    assert cluster.wait(job)["JobState"] == "COMPLETED", cluster.output(job)
    assert not told(cluster, job)


def test_status_names_what_has_no_supervisor(cluster: Sandbox) -> None:
    line = program(cluster, 30)
    job = cluster.sbatch("--mps", *GPU, script=f"{line} & srun -n1 {line} & wait")
    wait_for(lambda: len(cluster.on_gpu("n0")) >= 2, 20)
    status = ["mpsr", "status", "--node", "n0", "--config", "/etc/slurm/mpsr-n0.yaml"]
    said = wait_for(
        lambda: [row for row in cluster.run(status, node="n0").out.splitlines() if "without a supervisor" in row], 20
    )
    assert len(said) == 1, said
    assert f" of job {job} (python): without a supervisor" in said[0]
    cluster.good(["scancel", str(job)])
    cluster.wait(job)
