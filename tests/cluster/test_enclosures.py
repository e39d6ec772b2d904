"""A job's user takes over the MPS daemon that root's prolog has started as him: it goes with the job, and a neighbour of
another user does not notice."""

import os
import platform
import shutil
import subprocess

import pytest

from resilience.adapters.linux.cgroups import of_this_host
from tests.cluster.sandbox import ROOT, Sandbox, wait_for
from tests.unit.test_enter import HIDES

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.sim,
    pytest.mark.skipif(not shutil.which("gcc"), reason="no compiler"),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the attack is written for x86-64"),
]
TAKES_OVER = """
pid=$(pgrep -u alice -f nvidia-cuda-mps-control | head -1)
/home/alice/replace $pid /home/alice/kworker || exit 3
until [ "$(pgrep -u alice -c -f '[k]worker|sleep 600')" -ge 4 ]; do sleep 0.05; done
for pid in $pid $(pgrep -u alice -f '[k]worker|sleep 600'); do
    echo "$pid $(cat /proc/$pid/oom_score_adj) $(grep ^0:: /proc/$pid/cgroup)"
done
"""
WAITS = "srun bash -c 'touch ready; until [ -e go ]; do sleep 0.05; done; echo whole $CUDA_MPS_PIPE_DIRECTORY'"


def of_alice(sandbox: Sandbox) -> str:
    return sandbox.run(["ps", "-u", "alice", "-o", "pid=,args="]).out


def test_what_a_daemon_has_become_goes_with_the_job(cluster: Sandbox) -> None:
    tracer, program = cluster.path("/home/alice/replace"), cluster.path("/home/alice/kworker")
    subprocess.run(["gcc", "-O1", "-o", tracer, ROOT / "tests/programs/replace.c"], check=True)
    program.write_text(f"#!/usr/bin/python3 -IS\nimport sys; sys.argv.append('')\n{HIDES}")
    program.chmod(0o755)
    neighbour = cluster.sbatch("-wn0", "--mps", "--gres=shard:1", script=WAITS, user="bob")
    wait_for(lambda: cluster.path("/home/bob/ready").exists(), 30)
    job = cluster.sbatch("-wn0", "--mps", "--gres=shard:1", script=TAKES_OVER)
    state = cluster.wait(job)
    said = [line for line in cluster.output(job).splitlines() if "mpsr: batch script" not in line]
    rows = [line.split(maxsplit=2) for line in said]
    if state["ExitCode"] == "3:0" and "not permitted" in cluster.output(job):
        pytest.skip("this kernel lets no user trace a daemon (Yama)")
    assert (state["JobState"], len(rows) >= 4) == ("COMPLETED", True), cluster.output(job)
    assert {adjusted for _, adjusted, _ in rows} == {"0"}
    hierarchies = of_this_host()
    if hierarchies is not None and hierarchies.unified and os.access(hierarchies.tracking, os.W_OK):
        assert {place.rpartition(".")[0] for *_, place in rows} == {f"0::{cluster.plan.cgroup}/n0/u64101/g0"}
    wait_for(lambda: not of_alice(cluster), 30, lambda: of_alice(cluster))
    (closed,) = (one for one in cluster.journal() if one["event"] == "job.closed" and one["job"] == job)
    assert closed["residue"] == []
    cluster.path("/home/bob/go").touch()
    assert cluster.wait(neighbour)["JobState"] == "COMPLETED"
    assert cluster.output(neighbour, "bob") == "whole /run/mpsr/n0/d/u3000064102/g0/a\n"
    assert cluster.residue() == []
