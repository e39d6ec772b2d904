"""A real sshd on each node of the sandbox, for alice: what an mpiexec with ssh, or a user, goes through to another node.

It says nothing of the job, as one without pam_slurm_adopt. Ordinary users find it through `~/ssh HOST COMMAND`.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from tests.cluster.plan import USERS
from tests.cluster.sandbox import Sandbox, free_ports, wait_for

PROGRAM = "/usr/sbin/sshd"
_HOME = "/home/alice"


def missing() -> bool:
    return not (shutil.which(PROGRAM) and shutil.which("ssh"))


def _configuration(cluster: Sandbox, node: str, port: int) -> str:
    environment = " ".join(f"{key}={value}" for key, value in cluster.plan.environment(node).items())
    return f"""\
Port {port}
ListenAddress 127.0.0.1
HostKey /run/ssh/host
AuthorizedKeysFile /run/ssh/key.pub
PidFile /run/ssh/{node}.pid
UsePAM no
StrictModes no
SetEnv {environment} SLURMD_NODENAME={node}
"""


@contextmanager
def daemons(cluster: Sandbox) -> Iterator[None]:
    """One on each node for the time of the block."""
    ports = dict(zip(cluster.nodes, free_ports(len(cluster.nodes)), strict=True))
    cluster.good(["mkdir", "-p", "/run/ssh", "/run/sshd"])
    for name in ("host", "key"):
        cluster.good(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"/run/ssh/{name}"])
    cluster.good(["chown", f"{USERS['alice']}", "/run/ssh/key"])
    case = "".join(f"{node}) port={port} ;;\n" for node, port in ports.items())
    options = "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -i /run/ssh/key"
    script = cluster.path(f"{_HOME}/ssh")
    script.write_text(
        f'#!/bin/bash\nwhile [[ $1 == -* ]]; do shift; done\ncase $1 in\n{case}esac\nexec ssh {options} -p $port localhost "${{@:2}}"\n'
    )
    script.chmod(0o755)
    running = []
    try:
        for node, port in ports.items():
            cluster.path(f"/run/ssh/{node}").write_text(_configuration(cluster, node, port))
            view = cluster.read(f"/run/sandbox/view/{node}").strip()
            daemon = [PROGRAM, "-D", "-e", "-f", f"/run/ssh/{node}"]
            running.append(cluster.popen(["nsenter", f"--target={view}", "--mount", *daemon]))
        for node in ports:
            wait_for(lambda node=node: not cluster.run([f"{_HOME}/ssh", node, "true"], user="alice").status, 20)  # type: ignore[misc]
        yield
    finally:
        for node, one in zip(ports, running, strict=False):
            cluster.run(["kill", cluster.read(f"/run/ssh/{node}.pid").strip()])
            one.wait(20)
