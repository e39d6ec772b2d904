"""One private Slurm cluster with one node, `n0`, for the tests of the SPANK plugin.

Relies on root and Debian's slurmctld, slurmd and munged. Everything lies below one temporary directory and runs
in a pid namespace of its own: when its first process goes, the kernel ends the rest, so nothing is left whatever a
test does. Commands (srun, sbatch, …) run outside of it, with SLURM_CONF in their environment. A daemon that does not
come up raises with the tail of its log.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

NEEDS = ("slurmctld", "slurmd", "munged", "srun", "unshare")
NODE = "n0"
_START_SECONDS = 20.0

_SLURM_CONF = """\
ClusterName=spank
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld_port}
SlurmUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={dir}/run/munge.sock,cred_expire=5
StateSaveLocation={dir}/state
SlurmdSpoolDir={dir}/spool/%n
SlurmctldPidFile={dir}/run/slurmctld.pid
SlurmdPidFile={dir}/run/slurmd.%n.pid
SlurmctldLogFile={dir}/log/slurmctld.log
SlurmdLogFile={dir}/log/slurmd.%n.log
SlurmctldDebug=info
SlurmdDebug=info
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=10
MpiDefault=none
ReturnToService=2
KillWait=2
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
SlurmdParameters=config_overrides
PrologFlags=Alloc
Prolog={dir}/prolog
Epilog={dir}/epilog
PlugStackConfig={dir}/plugstack.conf
NodeName=n0 NodeHostname={host} NodeAddr=127.0.0.1 Port={slurmd_port} CPUs=8 RealMemory=4000
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""

_INIT = """\
set -eu
munged --socket="$D/run/munge.sock" --key-file="$D/munge/key" --pid-file="$D/run/munged.pid" \
  --log-file="$D/log/munged.log" --seed-file="$D/munge/seed"
slurmctld -c -f "$SLURM_CONF"
slurmd -f "$SLURM_CONF" -N n0
read -r _ || true
"""


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 15.0) -> None:
    """Return once `condition` holds; fail naming `what` when it does not within the bound."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} within {seconds} s")
        time.sleep(0.02)  # the pause between two looks, not a guess at how long something takes


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()


@dataclass(slots=True, kw_only=True)
class Cluster:
    """A running cluster. `environment` is what every command of it starts with: nothing of ours."""

    dir: Path
    environment: dict[str, str] = field(default_factory=dict)

    def run(
        self,
        *command: str,
        env: Mapping[str, str] | None = None,
        stdin: str = "",
        timeout: float = 30.0,
        user: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """A Slurm command from the submit side, output captured."""
        return subprocess.run(
            command,
            env=self.environment | dict(env or {}),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            user=user,
            cwd=self.dir / "work",
            check=False,
        )

    def plugstack(self, line: str) -> None:
        """Set plugstack.conf: read anew by every command and every slurmstepd."""
        (self.dir / "plugstack.conf").write_text(line + "\n", encoding="utf-8")

    def batch(self, script: str, *options: str, env: Mapping[str, str] | None = None) -> tuple[int, str]:
        """Run a batch script to its end: job id and its output."""
        output = self.dir / "work" / f"batch-{time.monotonic_ns()}.out"
        done = self.run(
            "sbatch", "--wait", "--parsable", "--no-requeue", f"--output={output}", *options, env=env,
            stdin=f"#!/bin/bash\n{script}\n",
        )  # fmt: skip
        if not done.stdout.strip():
            raise AssertionError(f"sbatch said {done.stderr}")
        return int(done.stdout.split(";")[0]), output.read_text(encoding="utf-8")

    def node_state(self) -> str:
        return self.run("sinfo", "-h", "-N", "-p", "main", "-o", "%T").stdout.strip()

    def job(self, job: int) -> str:
        """`scontrol show job` of one job."""
        return self.run("scontrol", "-o", "show", "job", str(job)).stdout


def _write(directory: Path, more: str) -> Path:
    for name in ("run", "log", "state", "spool/n0", "munge", "work"):
        (directory / name).mkdir(parents=True)
    directory.chmod(0o755)
    (directory / "work").chmod(0o1777)
    (directory / "munge").chmod(0o700)
    (directory / "munge/key").write_bytes(os.urandom(128))
    (directory / "munge/key").chmod(0o600)
    for name in ("prolog", "epilog"):
        # what the scripts of the root side would see, and a hook that a test may drop in
        (directory / name).write_text(
            f'#!/bin/bash\nenv | sort > {directory}/{name}.env.$SLURM_JOB_ID\n'
            f'[ -x {directory}/{name}.hook ] && {directory}/{name}.hook\nexit 0\n'
        )  # fmt: skip
        (directory / name).chmod(0o755)
    (directory / "plugstack.conf").write_text("\n")
    (directory / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
    ctld_port, slurmd_port = _free_ports(2)
    host = os.uname().nodename.split(".", maxsplit=1)[0]
    conf = directory / "slurm.conf"
    conf.write_text(_SLURM_CONF.format(dir=directory, host=host, ctld_port=ctld_port, slurmd_port=slurmd_port) + more)
    return conf


@contextmanager
def cluster(directory: Path, conf: str = "") -> Iterator[Cluster]:
    """A cluster for the time of the block; `conf`: more lines of its slurm.conf."""
    file = _write(directory, conf)
    environment = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C",
        "HOME": "/root",
        "SLURM_CONF": str(file),
    }
    with (directory / "log/init.log").open("wb") as log:
        init = subprocess.Popen(
            ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--mount", "bash", "-c", _INIT],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env=environment | {"D": str(directory)},
            start_new_session=True,
        )
    running = Cluster(dir=directory, environment=environment)
    try:
        try:
            wait_for(lambda: running.node_state() == "idle", "an idle node", _START_SECONDS)
        except TimeoutError as error:
            tails = "\n".join(f"== {log}\n{log.read_text()[-2000:]}" for log in (directory / "log").iterdir())
            raise RuntimeError(f"{error}\n{tails}") from error
        yield running
    finally:
        init.send_signal(signal.SIGKILL)  # --kill-child: the namespace's first process goes too, and all below it
        init.wait(10)


def missing() -> list[str]:
    """What this machine lacks for a cluster."""
    lacking = [name for name in NEEDS if shutil.which(name) is None]
    return lacking + ([] if os.geteuid() == 0 else ["root"])
