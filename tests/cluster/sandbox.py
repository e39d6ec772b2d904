"""One private real Slurm cluster on this machine, for tests, demo and bench; also a command:

    python -m tests.cluster.sandbox up            # stays until Ctrl-C
    python -m tests.cluster.sandbox run [-u alice] -- sinfo
    python -m tests.cluster.sandbox down

slurmctld, munged and one slurmd per node are Debian's, in namespaces of their own (pid, mount, uts, ipc) below init.py;
only the network is the host's, with free loopback ports. Whatever happens to this process, the kernel ends the whole
sandbox when its end of init's standard input closes. Needs root. Its GPUs are simulated, unless it is given a real one
(gpu.py), which one node has.
"""

import contextlib
import fcntl
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tests.cgroups import forget_cgroup, roots
from tests.cluster.gpu import RealGpu
from tests.cluster.plan import BIN, REPO, STATE, USERS, Plan
from tests.cluster.record import parse_record

ROOT: Path = Path(__file__).resolve().parents[2]
T = TypeVar("T")
NAMESPACES = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--mount", "--uts", "--ipc")
FINAL = frozenset("COMPLETED FAILED CANCELLED TIMEOUT NODE_FAIL OUT_OF_MEMORY BOOT_FAIL DEADLINE".split())


class SandboxError(Exception):
    """The cluster could not be started, or did not do in time what it was asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandDone:
    status: int
    out: str
    err: str


def what_is_missing() -> str:
    """Why no sandbox can be started here, in words; empty when one can."""
    if os.geteuid() != 0:
        return "not root"
    for program in ("slurmctld", "slurmd", "munged", "sbatch", "unshare", "nsenter", "setpriv"):
        if not shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin"):
            return f"{program} is not installed (make setup)"
    probe = subprocess.run(
        [*NAMESPACES, "mount", "-t", "tmpfs", "x", "/mnt"],
        check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return f"no namespaces of our own: {probe.stderr.strip()}" if probe.returncode else ""


def wait_for(what: Callable[[], T], seconds: float, complaint: Callable[[], str] = lambda: "") -> T:
    """The first true answer of `what`, asked every 20 ms for at most `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        if answer := what():
            return answer
        if time.monotonic() > deadline:
            raise SandboxError(f"not within {seconds:g} s: {complaint() or what!r}")
        time.sleep(0.02)


def slurm_release() -> tuple[int, int]:
    """Slurm's release on this machine, such as (22, 5)."""
    text = subprocess.run(["slurmctld", "-V"], check=True, capture_output=True, text=True).stdout
    found = re.search(r"(\d+)\.(\d+)", text)
    if not found:
        raise SandboxError(f"no release in the answer of slurmctld -V: {text!r}")
    return int(found[1]), int(found[2])


def free_ports(count: int) -> tuple[int, ...]:
    """Ports that nobody listens on, below the range from which the kernel gives out its own."""
    ports: list[int] = []
    with contextlib.ExitStack() as held:
        while len(ports) < count:
            port = random.randrange(15000, 32000)
            probe = held.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                ports.append(port)
    return tuple(ports)


def plain(path: Path) -> None:
    """Refuse a clone that the sandbox's ordinary users could not read."""
    for file in (path, path / "resilience", path / "resilience" / "__init__.py"):
        if not file.stat().st_mode & 0o004:
            raise SandboxError(f"mpsr: sandbox: ordinary users cannot read the clone: {file}\n  chmod -R go+rX {path}")


def enter(plan: Plan, init: int, argv: Sequence[str], *, user: str, node: str = "") -> list[str]:
    """The command that runs `argv` inside as `user`, with a login's environment; with `node`, that of its daemons."""
    home = "/root" if user == "root" else f"/home/{user}"
    path = f"{BIN}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
    environment = {"HOME": home, "USER": user, "LOGNAME": user, "SHELL": "/bin/bash", "LANG": "C.UTF-8"}
    environment |= plan.environment(node) if node else {"PATH": path, "PYTHONPATH": REPO}
    nsenter = ["nsenter", f"--target={init}", "--root", "--pid", "--mount", "--uts", "--ipc"]
    drop = [] if user == "root" else ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"]
    return [
        *nsenter,
        "--",
        *drop,
        "env",
        "-i",
        f"--chdir={home}",
        *(f"{key}={value}" for key, value in environment.items()),
        *argv,
    ]


def held(file: Path) -> bool:
    """Whether a process holds this memory or context of the simulated GPU: its file is locked for just so long."""
    try:
        fd = os.open(file, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


class Sandbox:
    """A running cluster; a context manager that ends it. All paths are those inside."""

    def __init__(
        self, *, nodes: int = 2, gpus: int = 1, plugin: bool = True, real: RealGpu | None = None, minors: Sequence[int] = (),
        journal_kib: int = 0, site: str = "", options: str = "", simulation: Sequence[str] = (), conf: Sequence[str] = (),
        accounting: bool = False,
    ) -> None:  # fmt: skip
        """`minors` are the numbers of each node's simulated GPUs, 0 to `gpus` - 1 when it is left out."""
        if reason := what_is_missing():
            raise SandboxError(f"mpsr: sandbox: cannot start: {reason}")
        plain(ROOT)
        self.plan = Plan(
            repo=str(ROOT),
            venv="" if sys.prefix == sys.base_prefix else sys.prefix,
            nodes=("n0",) if real else tuple(f"n{index}" for index in range(nodes)),
            minors=(real.minor,) if real else tuple(minors) or tuple(range(gpus)),
            real_gpu=real.model if real else "",
            path=real.path if real else "",
            libraries=real.libraries if real else "",
            plugin=plugin,
            ports=free_ports(1 + (1 if real else nodes)),
            slurm=slurm_release(),
            journal_kib=journal_kib,
            simulated=tuple(simulation),
            site=site,
            options=options,
            conf=tuple(conf),
            accounting=free_ports(1)[0] if accounting else 0,
        )
        self.real = real
        self.nodes = self.plan.nodes
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed by close()
        environment = os.environ | {"PYTHONPATH": str(ROOT), "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"}
        python = [sys.executable, "-m", "tests.cluster.init", self.plan.dumps()]
        self._unshare = subprocess.Popen(
            [*NAMESPACES, *python],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True, env=environment, cwd=ROOT,
            start_new_session=True,
        )  # fmt: skip
        assert self._unshare.stdout is not None
        said = self._unshare.stdout.readline().strip()
        if said != "ready":
            self._errors.seek(0)
            trouble = f"{said} {self._errors.read()}"
            self.close()
            raise SandboxError(f"mpsr: sandbox: did not start: {trouble}")
        children = Path(f"/proc/{self._unshare.pid}/task/{self._unshare.pid}/children").read_text().split()
        self.init = int(children[0])

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End init, and with it everything in the sandbox."""
        assert self._unshare.stdin is not None
        self._unshare.stdin.close()
        try:
            self._unshare.wait(5)
        except subprocess.TimeoutExpired:
            self._unshare.kill()
            self._unshare.wait()
        self._errors.close()
        forget_cgroup(self.plan.cgroup)

    @property
    def gpu(self) -> str:
        """What the jobs compute on: "simulated", or the model."""
        return self.plan.real_gpu or "simulated"

    # ------------------------------------------------------------------ inside
    def path(self, inside: str | Path) -> Path:
        """Where a path of the sandbox is found from out here."""
        return Path(f"/proc/{self.init}/root") / str(inside).lstrip("/")

    def read(self, inside: str | Path) -> str:
        """A file's text, empty while it is not there."""
        try:
            return self.path(inside).read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""

    def command(self, argv: Sequence[str], *, user: str = "root", node: str = "") -> list[str]:
        """The command that runs `argv` inside."""
        return enter(self.plan, self.init, argv, user=user, node=node)

    def popen(self, argv: Sequence[str], *, user: str = "root", node: str = "", **more: Any) -> "subprocess.Popen[str]":
        """Start `argv` inside and do not wait."""
        options: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(self.command(argv, user=user, node=node), text=True, **(options | more))

    def run(
        self, argv: Sequence[str], *, user: str = "root", node: str = "", timeout: float = 30.0, stdin: str = "",
    ) -> CommandDone:  # fmt: skip
        """Run `argv` inside; it is ended after `timeout` seconds (status 124)."""
        bounded = ["timeout", "-k", "1", f"{timeout:g}", *argv]
        done = subprocess.run(
            self.command(bounded, user=user, node=node), check=False, capture_output=True, input=stdin,
            encoding="utf-8", errors="surrogateescape",
        )  # fmt: skip
        return CommandDone(status=done.returncode, out=done.stdout, err=done.stderr)

    def good(self, argv: Sequence[str], *, user: str = "root", node: str = "", timeout: float = 30.0) -> str:
        """Standard output of a command that must succeed."""
        done = self.run(argv, user=user, node=node, timeout=timeout)
        if done.status:
            raise SandboxError(f"{' '.join(argv)}: exit status {done.status}: {done.out}{done.err}")
        return done.out

    # ------------------------------------------------------------------ Slurm
    def sbatch(self, *options: str, script: str, user: str = "alice") -> int:
        """Submit a batch script's text; its output goes to ~/slurm-<job>.out. Returns the job's number."""
        text = script if script.startswith("#!") else f"#!/bin/bash\n{script}\n"
        done = self.run(["sbatch", "--parsable", *options], user=user, stdin=text)
        if done.status:
            raise SandboxError(f"sbatch {' '.join(options)}: exit status {done.status}: {done.out}{done.err}")
        return int(done.out.strip().splitlines()[-1].split(";")[0])

    def srun(self, *argv: str, user: str = "alice", timeout: float = 30.0) -> CommandDone:
        return self.run(["srun", *argv], user=user, timeout=timeout)

    def job(self, job: int) -> dict[str, str]:
        """The fields of `scontrol show job`; of an array those of the task with this number."""
        records = [parse_record(text) for text in self.good(["scontrol", "show", "job", str(job)]).split("\n\n")]
        return next((record for record in records if record.get("JobId") == str(job)), records[0])

    def wait(self, job: int, states: Iterable[str] = FINAL, timeout: float = 30.0) -> dict[str, str]:
        """The job's fields as soon as it is in one of `states`."""
        wanted = frozenset(states)
        last: dict[str, str] = {}

        def there() -> dict[str, str]:
            last.update(self.job(job))
            return last if last["JobState"] in wanted else {}

        return wait_for(there, timeout, lambda: f"job {job} in {sorted(wanted)}; it is {last.get('JobState')}")

    def output(self, job: int, user: str = "alice") -> str:
        """What the batch job has written to its output file so far."""
        return self.read(f"/home/{user}/slurm-{job}.out")

    # ------------------------------------------------------------------ mpsr
    def journal(self, node: str = "n0") -> list[dict[str, Any]]:
        """The journal's events so far; a line that is still being written, or was cut by a full disk, is left out."""
        events = []
        for line in self.read(f"/var/log/mpsr/{node}/journal.jsonl").split("\n")[:-1]:
            with contextlib.suppress(ValueError):
                events.append(json.loads(line))
        return events

    def processes(self) -> dict[int, str]:
        """The command lines of all processes inside, by their number there."""
        rows = (line.split(None, 1) for line in self.good(["ps", "-e", "-o", "pid=,args="]).splitlines())
        return {int(row[0]): row[1] for row in rows}

    def on_gpu(self, node: str) -> list[int]:
        """Processes that have a context on one of the node's GPUs, MPS servers included."""
        if simulated := self.plan.simgpu(node):
            files = self.path(f"{simulated}/procs").glob("*")
            return [int(file.name.rpartition(".")[2]) for file in files if held(file)]
        return [pid for pid in self.processes() if self.computes(pid)]

    def computes(self, pid: int) -> bool:
        """Whether a process has the driver's memory manager open, as each one with a context has. nvidia-smi is no help: it
        knows processes by the host's numbers."""
        with contextlib.suppress(OSError):
            for descriptor in self.path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    if os.readlink(descriptor) == "/dev/nvidia-uvm":
                        return True
        return False

    def residue(self) -> list[str]:
        """What jobs have left behind, in words: processes, directories, leases, cgroups, spilled state, memory of the GPU."""
        found: list[str] = []
        for line in self.good(["ps", "-e", "-o", "user:32=,pid=,args="]).splitlines():
            user, pid, command = line.split(None, 2)
            if user in USERS or "nvidia-cuda-mps" in command:
                found.append(f"process {pid} of {user}: {command}")
        if self.plan.real_gpu:
            found += [f"process {pid} is on the GPU" for pid in self.on_gpu(self.nodes[0])]
        for node in self.nodes:
            for kind in ("jobs", "d"):
                directory = self.path(f"/run/mpsr/{node}/{kind}")
                found += [f"/run/mpsr/{node}/{kind}/{entry.name}" for entry in directory.glob("*")]
            records = self.path(f"{STATE}/{node}/spills")
            found += [f"record of the spilled state of job {entry.name}" for entry in records.glob("*")]
            if simulated := self.plan.simgpu(node):
                there = self.path(simulated)
                files = [*there.glob("mem/*/*"), *there.glob("procs/*")]
                found += [str(Path(simulated) / file.relative_to(there)) for file in files if held(file)]
        for root in roots():
            try:
                found += [str(place) for place in (root / self.plan.cgroup.strip("/")).glob("*/*/*/")]
            except FileNotFoundError as gone:  # one that was found is being removed
                found.append(f"{gone.filename} goes")
        homes = self.path("/home")
        return found + [f"/home/{entry.relative_to(homes)}" for entry in homes.glob("*/.mpsr*")]


if __name__ == "__main__":
    from tests.cluster.command import main

    sys.exit(main(sys.argv[1:]))
