"""The hook server on a cluster: jobs are opened and closed by it, and it may be killed at any time."""

import pytest

from tests.cluster.plan import REPO
from tests.cluster.sandbox import Sandbox, wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.sim]

SOCKET = "/run/mpsr/n0/hooks.sock"
HOOK = """
env -i PATH=/usr/bin:/bin MPSR_CONFIG=/etc/slurm/mpsr.yaml MPSR_BIN=/bin/false MPSR_HOOK={repo}/build/mpsr-hook \
MPSR_HOOK_SOCKET={socket} SLURMD_NODENAME=n0 SLURM_JOB_ID={job} SLURM_JOB_UID=64101 SLURM_JOB_GID=64101 SLURM_JOB_GPUS=0 \
SPANK_MPSR='{wire}' {repo}/prolog_epilog/{name}
"""
WIRE = "mps=on;domain=job;threads=;memory=;state=;standby=on;recover=relaunch;retries=3;on-culprit=fail;ranks=auto;servers=auto;require=mps"


def servers(sandbox: Sandbox) -> list[int]:
    return [pid for pid, command in sandbox.processes().items() if "resilience.cli.main hooks --node n0" in command]


def served(sandbox: Sandbox, name: str, job: int) -> str:
    """A hook that has no program to fall back on."""
    text = HOOK.format(repo=REPO, socket=SOCKET, job=job, wire=WIRE, name=name)
    done = sandbox.run(["bash", "-c", text])
    assert done.status == 0
    return done.err


def up(sandbox: Sandbox) -> int:
    """The server's pid, once it serves, and the child that looks for left-overs at its start has gone."""

    def serves() -> int:
        found = servers(sandbox) if not sandbox.run(["test", "-S", SOCKET]).status else []
        return found[0] if len(found) == 1 else 0

    return wait_for(serves, 15)


def test_a_job_is_opened_and_closed_without_a_python_of_its_own(cluster: Sandbox) -> None:
    up(cluster)
    wait_for(lambda: served(cluster, "prolog", 770_001) == "", 15)  # it binds before it serves
    events = [entry["event"] for entry in cluster.journal() if entry.get("job") == 770_001]
    assert events == ["job.opened"]
    assert served(cluster, "epilog", 770_001) == ""
    (closed,) = (one for one in cluster.journal() if one["event"] == "job.closed" and one["job"] == 770_001)
    assert closed["residue"] == []
    assert cluster.residue() == []


def test_it_may_be_killed_and_comes_back(cluster: Sandbox) -> None:
    pid = up(cluster)
    cluster.good(["kill", "-KILL", str(pid)])
    job = cluster.sbatch("-wn0", "--mps", "--gres=shard:1", script="srun bash -c 'echo $CUDA_MPS_PIPE_DIRECTORY'")
    assert cluster.wait(job)["JobState"] == "COMPLETED"
    assert "/run/mpsr/n0/d/" in cluster.output(job)
    (again,) = wait_for(lambda: [one for one in servers(cluster) if one != pid], 15)
    assert again != pid
    assert "hook server: ended with status -9" in cluster.read("/var/log/slurm/agent.n0.log")
    wait_for(lambda: not cluster.residue(), 15, lambda: str(cluster.residue()))


def test_it_ends_with_its_agent(cluster: Sandbox) -> None:
    pid = up(cluster)
    (agent,) = (pid for pid, command in cluster.processes().items() if "resilience.cli.main agent --node n0" in command)
    cluster.good(["kill", "-KILL", str(agent)])
    wait_for(lambda: pid not in servers(cluster), 15)
    assert up(cluster) != pid
