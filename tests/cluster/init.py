"""Process 1 of the private cluster: lays out the sandbox, starts the daemons, keeps the node agents running, reaps.

Started by sandbox.py in fresh pid, mount, uts and ipc namespaces, with the plan as its argument. Prints one line
`ready` when every node is idle, or `failed: …`. When its standard input closes (its starter has gone, however it went)
or it gets SIGTERM it ends, and the kernel ends everything in the namespace with it: nothing can be left behind.
"""

import os
import selectors
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.cluster import accounting, site
from tests.cluster.plan import REPO, USERS, Plan

FRESH = ("/run", "/home", "/tmp", "/dev/shm", "/var/log", "/var/spool", "/etc/slurm")
"""Directories that become empty file systems of the sandbox."""
HERE = Path("/run/mpsr/.here")
"""What a node has of its own and all call the same."""
STICKY = ("/tmp", "/dev/shm")
START_SECONDS = 20.0
LAID_OUT = "laid-out"
"""Argument of the second beginning."""


def main() -> None:
    plan = Plan.loads(sys.argv[1])
    try:
        if LAID_OUT not in sys.argv:
            layout(plan)
            begin_anew(plan)
        os.chdir("/")
        agents = start(plan)
    except Exception as error:  # the only channel to the starter is this line
        print(f"failed: {error!r}", flush=True)
        sys.exit(1)
    print("ready", flush=True)
    watch(agents)


def begin_anew(plan: Plan) -> None:
    """The same process from the clone's place in the sandbox: where it lay before may be hidden now."""
    os.chdir(REPO)
    environment = os.environ | {"PYTHONPATH": REPO}
    os.execve(plan.python, [plan.python, "-m", "tests.cluster.init", sys.argv[1], LAID_OUT], environment)


def run(*command: str, **more: object) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL, **more)  # type: ignore[call-overload]
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.returncode}: {done.stdout}{done.stderr}")
    return str(done.stdout)


def write(path: str, text: str, mode: int = 0o644) -> None:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    file.chmod(mode)


def layout(plan: Plan) -> None:
    """The sandbox's view of the file system. The clone and the Python are bound before what may hold them is hidden."""
    os.umask(0o022)
    run("mount", "--make-rprivate", "/")
    run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/mnt")
    opt = Path("/mnt/opt")
    for name in ("mpsr", "venv", "bin"):
        (opt / name).mkdir(parents=True)
    run("mount", "--bind", plan.repo, str(opt / "mpsr"))
    run("mount", "-o", "remount,bind,ro", str(opt / "mpsr"))
    if plan.venv:
        run("mount", "--bind", plan.venv, str(opt / "venv"))
    run("mount", "--rbind", str(opt), "/opt")
    for directory in FRESH:
        mode = "1777" if directory in STICKY else "755"
        run("mount", "-t", "tmpfs", "-o", f"mode={mode}", "tmpfs", directory)
        run("mount", "--make-shared", directory)  # as on a host: the views of the nodes share it
    Path("/run/shm").symlink_to("/dev/shm")
    people()
    run("hostname", "localhost")
    if plan.journal_kib:
        Path("/var/log/mpsr").mkdir()
        run("mount", "-t", "tmpfs", "-o", f"mode=755,size={plan.journal_kib}k", "tmpfs", "/var/log/mpsr")


def people() -> None:
    """Two ordinary users, in copies of passwd and group that only the sandbox sees."""
    for name, line in (("passwd", "{0}:x:{1}:{1}:sandbox:/home/{0}:/bin/bash"), ("group", "{0}:x:{1}:")):
        extra = "".join(line.format(user, uid) + "\n" for user, uid in USERS.items())
        write(f"/run/sandbox/{name}", Path(f"/etc/{name}").read_text(encoding="utf-8") + extra)
        run("mount", "--bind", f"/run/sandbox/{name}", f"/etc/{name}")
    for user, uid in USERS.items():
        home = Path("/home") / user
        home.mkdir()
        os.chown(home, uid, uid)


def start(plan: Plan) -> dict[str, Callable[[], int]]:
    """Start munged, the simulated hosts, slurmctld, a slurmd for each node; return how to start each agent."""
    site.write_all(plan, write)
    for directory in ("/run/munge", "/var/spool/slurmctld", "/var/spool/slurmd", "/var/log/slurm", "/var/log/munge"):
        Path(directory).mkdir(parents=True, exist_ok=True)
    for node in plan.nodes:
        temporary = Path("/run/sandbox/tmp") / node
        temporary.mkdir(parents=True)
        temporary.chmod(0o1777)
    key = Path("/run/sandbox/munge.key")
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    log, seed, pid = "/var/log/munge/munged.log", "/run/sandbox/munge.seed", "/run/munge/munged.pid"
    run("munged", f"--key-file={key}", f"--log-file={log}", f"--seed-file={seed}", f"--pid-file={pid}")
    site.simulated_hosts(plan)
    if plan.accounting:
        accounting.start(plan.accounting, run, write)
    if plan.plugin:
        HERE.mkdir(parents=True, exist_ok=True)
        run("mount", "--bind", str(HERE), str(HERE))
        run("mount", "--make-private", str(HERE))
        for node in plan.nodes:
            separate(node)
    run("slurmctld", "-c", env=plan.environment(plan.nodes[0]))
    for node in plan.nodes:
        run(*of_node(node), "slurmd", "-N", node, env=plan.environment(node))
    agents = {node: agent(plan, node) for node in plan.nodes} if plan.plugin else {}
    deadline = time.monotonic() + START_SECONDS
    while run("sinfo", "-h", "-N", "-p", "main", "-o", "%T").split() != ["idle"] * len(plan.nodes):
        if time.monotonic() > deadline:
            raise RuntimeError(f"nodes are not idle: {run('sinfo', '-h', '-N', '-o', '%N %T %E')}")
        time.sleep(0.02)
    return agents


def separate(node: str) -> None:
    """A view of the files for one node's daemons: what a host has of its own node alone is not another's.

    A process that sleeps holds it: to bind a mount namespace to a file is refused now and then (EINVAL).
    """
    view = Path("/run/sandbox/view") / node
    view.parent.mkdir(exist_ok=True)
    hold = f"mount -t tmpfs -o mode=755 tmpfs {HERE} && echo there && exec sleep infinity"
    command = ["unshare", "--mount", "--propagation", "unchanged", "sh", "-c", hold]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    if holder.stdout.readline() != "there\n":
        raise RuntimeError(f"no view of its own for {node}")
    view.write_text(f"{holder.pid}\n")


def of_node(node: str) -> tuple[str, ...]:
    """What is put before a command that is to see the files as a node's daemons do."""
    view = Path("/run/sandbox/view") / node
    return ("nsenter", f"--target={view.read_text().strip()}", "--mount") if view.exists() else ()


def agent(plan: Plan, node: str) -> Callable[[], int]:
    """How one node's agent is started: as a service manager would, with a log file, again when it ends."""

    def begin() -> int:
        environment = plan.environment(node) | {"MPSR_CONFIG": f"/etc/slurm/mpsr-{node}.yaml"}
        log = os.open(f"/var/log/slurm/agent.{node}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            command = [*of_node(node), plan.python, "-m", "resilience.cli.main", "agent", "--node", node]
            return subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            ).pid
        finally:
            os.close(log)

    return begin


def watch(agents: dict[str, Callable[[], int]]) -> None:
    """Reap for ever; start a node's agent again 0.3 s after it ended, unless /run/sandbox/no-agent.<node> stands."""
    due = dict.fromkeys(agents, 0.0)
    running: dict[int, str] = {}
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    selector = selectors.DefaultSelector()
    selector.register(reader, selectors.EVENT_READ)
    selector.register(sys.stdin, selectors.EVENT_READ)
    while True:
        now = time.monotonic()
        for node, when in list(due.items()):
            if when <= now and not Path(f"/run/sandbox/no-agent.{node}").exists():
                running[agents[node]()] = node
                del due[node]
        for found, _ in selector.select(0.1 if due else None):
            if found.fileobj is sys.stdin and not os.read(0, 4096):
                return
            if found.fd == reader:
                os.read(reader, 4096)
        while True:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if not pid:
                break
            if pid in running:
                due[running.pop(pid)] = time.monotonic() + 0.3


if __name__ == "__main__":
    assert os.getpid() == 1, "init.py is process 1 of a sandbox; start it with python -m tests.cluster.sandbox up"
    assert shutil.which("slurmctld"), "no Slurm: make setup"
    main()
