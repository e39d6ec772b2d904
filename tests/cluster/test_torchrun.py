"""torchrun itself in one task with two GPUs: each local rank has a session on its own GPU, and its own state comes back."""

import shlex
from collections.abc import Iterator

import pytest

from tests.cluster.sandbox import Sandbox, wait_for
from tests.demo import programs
from tests.demo.stage import Stage

pytest.importorskip("torch", reason="torch is not installed (make torch): torchrun is not tried here")
pytestmark = [pytest.mark.cluster, pytest.mark.sim, pytest.mark.slow, pytest.mark.timeout(400)]

STEPS = 300
PROGRAM = f"""
import os, time
import resilience
rank = int(os.environ["LOCAL_RANK"])
with resilience.session(arrays="device", device=rank, spill_seconds=0) as s:
    u = s.array("u", 300, "float64")
    for step in s.steps({STEPS}):
        u.copy_from(u.numpy() + (rank + 1) * step)
        s.commit(step)
        if step == 20:
            open(f"/home/alice/rank{{rank}}.up", "w").close()
        time.sleep(0.02)
    print("rank", rank, s.restored_from or "anew", float(u.numpy()[0]), flush=True)
"""
SITE = "  recovery:\n    restore_timeout: 300\n"
"""Seconds: torch is imported anew, on a machine that may be busy."""


@pytest.fixture(scope="module")
def node() -> Iterator[Sandbox]:
    with Sandbox(nodes=1, gpus=2, site=SITE) as sandbox:
        yield sandbox


def test_each_local_rank_has_its_gpu_and_its_state(node: Sandbox) -> None:
    """A step of the same job faults on the second GPU, and both ranks are clients of the servers over the two."""
    node.path("/home/alice/ranks.py").write_text(PROGRAM)
    run = f"{node.plan.python} -m torch.distributed.run --nproc-per-node 2 --master-port 29511 /home/alice/ranks.py"
    culprit = f"CUDA_VISIBLE_DEVICES=1 exec {shlex.join(programs.culprit(node.plan, 'illegal-address'))}"
    script = f"""
srun -n1 --overlap --mem=100 {run} &
until [ -e /home/alice/rank0.up ] && [ -e /home/alice/rank1.up ]; do sleep 0.05; done
srun -n1 --overlap --mem=100 bash -c {shlex.quote(culprit)}
wait %1
"""
    job = node.sbatch("--mps", "--gres=gpu:2", "-n2", script=script)
    fields = node.wait(job, timeout=300)
    said = node.output(job)
    assert (fields["JobState"], fields["Restarts"]) == ("COMPLETED", "0"), said
    total = sum(range(STEPS))
    ranks = sorted(line for line in said.splitlines() if line.startswith("rank "))
    assert ranks == [f"rank 0 disk {total:.1f}", f"rank 1 disk {2 * total:.1f}"], said
    assert "local rank 1 of a launcher: its state is kept on disk" in said
    assert [row["action"] for row in Stage(node).journal(0, "recovered")] == ["relaunch"]
    wait_for(lambda: not node.residue(), 20, lambda: str(node.residue()))
