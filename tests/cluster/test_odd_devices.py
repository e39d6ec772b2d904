"""A node whose GPUs are not /dev/nvidia0, 1, … in the order of the bus: Slurm counts them from 0, and a job must get its own."""

from collections.abc import Iterator

import pytest

from tests.cluster.sandbox import Sandbox

pytestmark = [pytest.mark.cluster, pytest.mark.sim]
MINORS = (5, 3)


@pytest.fixture(scope="module")
def odd() -> Iterator[Sandbox]:
    with Sandbox(nodes=1, minors=MINORS) as sandbox:
        yield sandbox


def test_a_job_gets_the_server_of_the_gpu_that_slurm_gave_it(odd: Sandbox) -> None:
    uuids = {}
    for line in odd.read(f"{odd.plan.simgpu('n0')}/host.conf").splitlines():
        words = dict(word.split("=", 1) for word in line.split())
        if "uuid" in words:
            uuids[int(words["gpu"])] = words["uuid"]
    assert list(uuids) == list(MINORS)
    assert odd.srun("--mps", "--gres=gpu:2", "true").status == 0
    for gres in ("gpu:1", "shard:1", "mps:1"):
        done = odd.srun("--mps", f"--gres={gres}", "printenv", "CUDA_VISIBLE_DEVICES")
        assert done.out.strip() == uuids[MINORS[0]], done.err
    opened = [event["gpus"] for event in odd.journal() if event["event"] == "job.opened"]
    assert opened == [[5, 3], [5], [5], [5]]
