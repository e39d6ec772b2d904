"""`--nodes` and `--job` on a real Slurm: over srun, and over a real sshd; each user sees what the user may see on each node."""

import json
from collections.abc import Iterator

import pytest

from resilience.contract import exit_code
from tests.cluster.plan import BIN
from tests.cluster.sandbox import CommandDone, Sandbox, free_ports, wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.sim]
PLACE = "/run/sandbox/ssh"
USERS = ("root", "alice")
ASKED = ("--mps", "--gres=shard:1", "-w", "n1")


@pytest.fixture(scope="module")
def sshd(cluster: Sandbox) -> Iterator[int]:
    """The port of an sshd in the sandbox, with a key for root and one for alice."""
    (port,) = free_ports(1)
    write(cluster, "/run/sshd/.here", "")
    for user in (*USERS, "host"):
        write(cluster, f"{PLACE}/.here", "")
        cluster.good(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{PLACE}/{user}"])
    cluster.good(["chown", "alice", f"{PLACE}/alice"])
    write(
        cluster,
        f"{PLACE}/sshd_config",
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {PLACE}/host\nAuthorizedKeysFile {PLACE}/%u.pub\n"
        f"PidFile {PLACE}/pid\nUsePAM no\nPasswordAuthentication no\nAcceptEnv SLURMD_NODENAME\nMaxStartups 100\n",
    )
    nodes = "".join(f"Host {node}\nHostName 127.0.0.1\nSetEnv SLURMD_NODENAME={node}\n" for node in cluster.nodes)
    write(
        cluster,
        f"{PLACE}/ssh_config",
        f"{nodes}Host *\nPort {port}\nIdentityFile {PLACE}/%u\nStrictHostKeyChecking no\n"
        "UserKnownHostsFile /dev/null\nLogLevel ERROR\n",
    )
    write(cluster, f"{BIN}/ssh-sandbox", f'#!/bin/sh\nexec ssh -F {PLACE}/ssh_config "$@"\n', 0o755)
    daemon = cluster.popen(["/usr/sbin/sshd", "-D", "-e", "-f", f"{PLACE}/sshd_config"])
    wait_for(lambda: cluster.read(f"{PLACE}/pid"), 30, lambda: str(daemon.poll()))
    yield port
    daemon.terminate()
    daemon.wait(30)


def write(cluster: Sandbox, inside: str, text: str, mode: int = 0o644) -> None:
    file = cluster.path(inside)
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    file.write_text(text)
    file.chmod(mode)


@pytest.fixture(scope="module", params=["srun", "ssh"])
def config(cluster: Sandbox, request: pytest.FixtureRequest, sshd: int) -> str:
    """An mpsr.yaml that reaches nodes one way or the other."""
    text = cluster.read("/etc/slurm/mpsr.yaml")
    for old, new in {
        'shell: "ssh"': f'shell: "{request.param}"',
        'ssh: "ssh"': f'ssh: "{BIN}/ssh-sandbox"',
        'command: "mpsr"': f'command: "{BIN}/mpsr"',
    }.items():
        assert old in text
        text = text.replace(old, new)
    write(cluster, f"/etc/slurm/mpsr-{request.param}.yaml", text)
    return f"/etc/slurm/mpsr-{request.param}.yaml"


def mpsr(cluster: Sandbox, config: str, *words: str, user: str = "root") -> CommandDone:
    return cluster.run(["mpsr", *words, "--config", config], user=user, timeout=100)


def test_each_sees_what_may_be_seen_on_each_node(cluster: Sandbox, config: str) -> None:
    job = cluster.sbatch(*ASKED, script="srun sleep 1000")
    try:
        wait_for(
            lambda: any(
                row["event"] == "task.hello" and row.get("task", "").startswith(f"{job}.")
                for row in cluster.journal("n1")
            ),
            60,
            lambda: str(cluster.job(job)) + cluster.output(job),
        )
        done = mpsr(cluster, config, "status", "--json", "--nodes", "n[0-1]")
        assert done.status == exit_code("ok"), done
        found = json.loads(done.out)["nodes"]
        assert [lease["job"] for name in ("n0", "n1") for lease in found[name]["leases"]] == [job]
        assert found["n1"]["servers"]
        assert found["n0"]["agent"]

        done = mpsr(cluster, config, "status", "--json", "--job", str(job), user="alice")
        assert done.status == exit_code("ok"), done
        found = json.loads(done.out)["nodes"]
        assert list(found) == ["n1"]
        assert ([lease["job"] for lease in found["n1"]["leases"]], found["n1"]["servers"]) == ([job], None)

        done = mpsr(cluster, config, "log", "--json", "--job", str(job))
        assert done.status == exit_code("ok"), done
        rows = [json.loads(line) for line in done.out.splitlines()]
        assert {row["node"] for row in rows} == {"n1"}
        assert "job.opened" in {row["event"] for row in rows}

        done = mpsr(cluster, config, "log", "--nodes", "n[0-1]", user="alice")
        assert (done.status, done.out) == (exit_code("no_answer"), ""), done
        assert "cannot be read: Permission denied" in done.err
    finally:
        cluster.good(["scancel", str(job)])
        cluster.wait(job)
    done = mpsr(cluster, config, "explain", str(job))
    assert done.out.startswith(f"Job {job} on n1, "), done


def test_a_node_that_is_not_there_is_named(cluster: Sandbox, config: str) -> None:
    done = mpsr(cluster, config, "check", "--json", "--nodes", "n0,n99")
    assert done.status == exit_code("no_answer"), done
    found = json.loads(done.out)
    assert list(found["no_answer"]) == ["n99"]
    assert {one["nodes"] for one in found["findings"]} == {"n0"}
    assert done.err.startswith("mpsr: n99: ")
