"""What a batch script of several nodes may hand on to all of them: no value of ours or of MPS's is one node's own."""

from collections.abc import Iterator

import pytest

from tests.cluster.sandbox import Sandbox
from tests.cluster.test_mpiexec import ALL
from tests.cluster.test_sm_partitions import DRIVER, SITE

pytestmark = [pytest.mark.cluster, pytest.mark.sim, pytest.mark.slow]
NODES = ("--mps", "-N2", "-n2")
SLURMS_OR_THE_SANDBOXS = ("SLURM", "SIMGPU", "HOSTNAME", "TMPDIR", "PWD", "PMI", "_")
OURS = {"CUDA_MPS_PIPE_DIRECTORY", "CUDA_VISIBLE_DEVICES", "MPSR_LEASE", "MPSR_OPTIONS", "MPSR_LAUNCHER"}


@pytest.fixture(scope="module")
def two() -> Iterator[Sandbox]:
    with Sandbox(nodes=2, gpus=2, site=SITE, simulation=DRIVER) as it:
        yield it


@pytest.mark.parametrize(
    ("asked", "isolation"),
    [
        (("--gres=shard:2",), "sm"),
        (("--gres=gpu:2", "--mps-servers=gpu", "--mps-memory=1G"), "sm"),
        (("--gres=gpu:2", "--mps-servers=job", "--mps-threads=50", "--mps-memory=1G"), "domains"),
    ],
    ids=["SM partitions", "servers for each GPU", "one pair of servers"],
)
def test_no_value_is_one_nodes_own(two: Sandbox, asked: tuple[str, ...], isolation: str) -> None:
    job = two.sbatch(*NODES, *asked, script="env; cat $MPSR_LEASE")
    assert two.wait(job)["JobState"] == "COMPLETED", two.output(job)
    said = dict(line.partition("=")[::2] for line in two.output(job).splitlines() if "=" in line)
    assert said["isolation"] == isolation, "the lease's own lines come after the environment's"
    own = {f"/{said['node']}/", *(gpu.partition(":")[2] for gpu in said["gpus"].split(","))}
    handed_on = {
        name: value for name, value in said.items() if name.isupper() and not name.startswith(SLURMS_OR_THE_SANDBOXS)
    }
    assert handed_on.keys() >= OURS
    told = "job with SM partitions on several nodes" in two.output(job)
    assert told == (isolation == "sm")
    assert [name for name, value in handed_on.items() if any(word in value for word in own)] == []


def test_each_rank_joins_the_partition_of_its_own_node(two: Sandbox) -> None:
    show = '/opt/mpsr/build/mpsr-launch bash -c "grep -h ^gpus= \\$MPSR_LEASE; echo joins \\$CUDA_MPS_SM_PARTITION"'
    job = two.sbatch(*NODES, "--gres=shard:2", script=ALL.format(show))
    assert two.wait(job)["JobState"] == "COMPLETED", two.output(job)
    lines = two.output(job).splitlines()
    given = {line.partition(":")[2] for line in lines if line.startswith("gpus=")}
    joined = {line.removeprefix("joins ").partition("/")[0] for line in lines if line.startswith("joins ")}
    assert (len(given), joined) == (2, given), two.output(job)
