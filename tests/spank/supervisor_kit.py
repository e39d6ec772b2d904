"""A node for tests of mpsr-launch: a lease, an agent that a test scripts, a keeper without the package, tasks."""

import sys
from pathlib import Path

from tests.spank.node import ROOT, Connection, ScriptedAgent, Supervised, launch, lease, write_lease
from tests.spank.slurm import wait_for

PROGRAM = (sys.executable, str(ROOT / "tests/spank/program.py"))
B = {"color": "b", "pipe": "/pipes/b"}
WITH_STANDBY = {"standby": "b", "standby_pipe": "/pipes/b"}

# A keeper without the package: says a line, binds its socket, waits to be ended. The real one has tests of its own.
KEEPER = """#!{python}
import os, select, socket, sys
if sys.argv[3] == "resilience.state.wipe":
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as keeper:
        keeper.connect(os.environ["MPSR_KEEPER"])
    print("wiped at", os.environ["CUDA_MPS_PIPE_DIRECTORY"], file=sys.stderr)
    sys.exit(0)
if sys.argv[3] == "resilience.state.spill":
    print("seq=41" if os.environ["CUDA_MPS_PIPE_DIRECTORY"] == "/pipes/b" else "seq=?", flush=True)
    sys.exit(0)
print("keeper starts with", *sys.argv[1:4], *sys.argv[6:], len(os.environ["MPSR_TOKEN"]), file=sys.stderr, flush=True)
listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
listener.bind(sys.argv[5])
listener.listen()
parent = os.pidfd_open(os.getppid())
poll = select.poll()
poll.register(listener)
poll.register(parent)
connections = []
while all(fd != parent for fd, _ in poll.poll()):
    connections.append(listener.accept())
"""


class Node:
    """One lease, one agent, and the supervisors of a test."""

    def __init__(self, run: Path, **changes: object) -> None:
        keeper = run / "python"
        keeper.write_text(KEEPER.format(python=sys.executable))
        keeper.chmod(0o755)
        self.lease = lease(run, python=str(keeper), **changes)  # type: ignore[arg-type]
        write_lease(self.lease)
        self.jobs = run / "n0/jobs"
        self.agent = ScriptedAgent.at(run / "n0/agent.sock")

    def start(self, *command: str, env: dict[str, str] | None = None, fds: tuple[int, ...] = ()) -> Supervised:
        return launch(self.lease, *command, env={"PYTHONPATH": str(ROOT)} | (env or {}), cwd=self.jobs.parent, fds=fds)

    def both(self, *command: str, **place: object) -> tuple[Supervised, Connection]:
        """A supervisor whose task runs."""
        supervised = self.start(*command)
        agent = self.agent.accept()
        agent.place(**place)
        return supervised, agent


def shell(script: str) -> tuple[str, ...]:
    return ("sh", "-c", script)


def ready(agent: Connection) -> None:
    agent.expect("session", role="active")
    agent.expect("ready", role="standby")


def wait_for_keeper(supervisor: int) -> int:
    """The pid of the supervisor's keeper, once its socket is there."""
    found: list[int] = []

    def look() -> bool:
        found.clear()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                    if parent == supervisor and b"resilience.state.keeper" in (entry / "cmdline").read_bytes():
                        found.append(int(entry.name))
                except OSError:
                    continue
        return bool(found)

    wait_for(look, "a keeper")
    return found[0]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
