"""An agent in a thread over real sockets and files; only the MPS daemons, Slurm, leases and GPUs are stand-ins.

The stand-ins keep to the ports' contracts and record what they were asked. A Supervisor here speaks the real protocol
over the real socket.
"""

import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from resilience.adapters.gpu.nvml import NoGpuEvents
from resilience.adapters.linux.agent_socket import AgentSocket
from resilience.adapters.linux.clock import SystemClock
from resilience.adapters.linux.journal import JournalFile
from resilience.adapters.linux.kmsg import KernelLogReader
from resilience.adapters.linux.worker import WorkerThreads
from resilience.adapters.mps.daemon_watch import DaemonWatch
from resilience.adapters.mps.server_logs import ServerLogFollower
from resilience.agent import Agent
from resilience.model.errors import MpsControlError, SlurmAway
from resilience.model.ids import Color, DomainKey, GpuUuid, JobId, NodeName, ProcessId, ServerId
from resilience.model.lease import Lease
from resilience.model.settings import Options, Recovery, Settings
from resilience.model.world import ServerState
from resilience.parse import options
from resilience.parse.packet import pack, unpack
from resilience.ports import Alive, ClientEnd, Done, Feed, Gpu, Gpus, Guard, JobInfo, Ports, Refused, ServerOwner
from tests.unit.machine_kit import UUID

BOUND = 10.0
"""Seconds that a test waits for anything."""


def until(condition: Callable[[], Any], what: str) -> Any:
    """Wait until the condition gives something true."""
    end = time.monotonic() + BOUND
    while not (value := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"never happened: {what}")
        threading.Event().wait(0.002)
    return value


@dataclass
class FakeMps:
    """Servers by name; the test sets their states. Called from the agent's worker."""

    root: Path
    states: dict[ServerId, ServerState] = field(default_factory=dict)
    calls: list[tuple[object, ...]] = field(default_factory=list)
    broken: bool = False
    joined: dict[ServerId, tuple[int, ...]] = field(default_factory=dict)
    """Each server's clients."""
    daemons: dict[ServerId, ProcessId | None] = field(default_factory=dict)
    """None: it has ended. One that is not here cannot be told from others."""
    stopped: dict[DomainKey, threading.Event] = field(default_factory=dict)
    """Domains whose daemons answer nobody until the event is set."""

    def state(self, server: ServerId) -> ServerState:
        self._wait(server)
        if self.broken:
            raise MpsControlError("mps", "no answer", server.color)
        return self.states.get(server, ServerState.ACTIVE)

    def _wait(self, server: ServerId) -> None:
        if server.domain in self.stopped:
            self.calls.append(("unanswered", server))
            self.stopped[server.domain].wait(BOUND)

    def clients(self, server: ServerId) -> tuple[int, ...]:
        return ()

    def end_clients(self, server: ServerId, meant: Callable[[int], bool]) -> tuple[int, ...]:
        self._wait(server)
        pids = tuple(filter(meant, self.joined.get(server, ())))
        self.calls.append(("end", server, pids))
        if self.broken:
            raise MpsControlError("mps", "no answer", server.color)
        return pids

    def open(self, server: ServerId, uuids: tuple[GpuUuid, ...], owner: ServerOwner) -> None:
        self.calls.append(("open", server, uuids, owner))
        if self.broken:
            raise MpsControlError("mps", "server does not start", server.color)
        self.states[server] = ServerState.ACTIVE

    def close(self, server: ServerId) -> tuple[str, ...]:
        self.calls.append(("close", server))
        return ()

    def daemon(self, server: ServerId) -> ProcessId | None:
        self._wait(server)
        if server not in self.daemons:
            raise MpsControlError("mps", "daemon cannot be told from others", server.color)
        return self.daemons[server]

    def pipe(self, server: ServerId) -> str:
        return f"/p/{server.domain}/g{server.gpu}/{server.color}"

    def partition(self, server: ServerId, slot: int) -> str:
        return f"{UUID}/{slot}" if slot else ""

    def logs(self, server: ServerId) -> str:
        return str(self.root / server.domain / f"g{server.gpu}" / server.color)


@dataclass
class FakeSlurm:
    workdir: str
    calls: list[tuple[object, ...]] = field(default_factory=list)
    refuse: str = ""
    busy: threading.Event | None = None
    """Until it is set nobody answers about a comment."""
    away: int = 0
    """Comments that nobody answers."""
    waits: float = 30.0
    """Seconds from SIGTERM to SIGKILL."""
    ended: float | Exception | None = None
    """When it began to end any job."""

    def job(self, job: JobId) -> JobInfo:
        return JobInfo(
            job=job,
            state="RUNNING",
            batch=True,
            requeue=True,
            restarts=0,
            stdout=f"{self.workdir}/out-{job}.txt",
            workdir="/elsewhere",
        )

    def requeue(self, job: JobId, *, comment: str, exclude: NodeName | None = None) -> Done | Refused:
        self.calls.append(("requeue", job, comment, exclude))
        return Refused(reason=self.refuse) if self.refuse else Done()

    def comment(self, job: JobId, text: str) -> Done | Refused:
        self.calls.append(("comment", job, text))
        if self.away:
            self.away -= 1
            raise SlurmAway("slurmctld", "cannot be asked")
        if self.busy is not None:
            self.busy.wait(BOUND)
        return Done()

    def drain(self, node: NodeName, reason: str) -> Done | Refused:
        self.calls.append(("drain", node, reason))
        return Done()

    def kill_wait(self) -> float:
        self.calls.append(("kill_wait",))
        return self.waits

    def ended_at(self, job: JobId) -> float | None:
        self.calls.append(("ended_at", job))
        if isinstance(self.ended, Exception):
            raise self.ended
        return self.ended


@dataclass
class FakeLeases:
    leases: dict[JobId, Lease] = field(default_factory=dict)
    actives: list[ServerId] = field(default_factory=list)
    there: list[ServerId] = field(default_factory=list)
    """Servers whose pipe directory exists."""

    def read(self, job: JobId) -> Lease | None:
        return self.leases.get(job)

    def all(self) -> tuple[Lease, ...]:
        return tuple(self.leases.values())

    def active(self, server: ServerId) -> Color | None:
        return Color("a")

    def servers(self, key: DomainKey) -> tuple[ServerId, ...]:
        return tuple(self.there)

    def set_active(self, server: ServerId) -> None:
        self.actives.append(server)


class OneGpu:
    def all(self) -> tuple[Gpu, ...]:
        return (Gpu(minor=0, uuid=UUID, name="T", driver="580", bus_id="00000000:06:00.0"),)

    def mps_processes(self, uuid: GpuUuid) -> Iterable[int]:
        return ()

    def plain_processes(self, uuid: GpuUuid) -> Iterable[int]:
        return ()


@dataclass
class FakeProcfs:
    """Processes that the test made up: parent of each, and the job of some."""

    parents: dict[int, int] = field(default_factory=dict)
    jobs: dict[int, JobId] = field(default_factory=dict)
    uids: dict[int, int] = field(default_factory=dict)
    began: dict[int, int] = field(default_factory=dict)
    still: set[int] = field(default_factory=set)
    environs: dict[int, dict[str, str]] = field(default_factory=dict)

    def starttime(self, pid: int) -> int | None:
        return self.began.get(pid, 1) if pid in self.parents else None

    def ancestors(self, pid: int) -> tuple[int, ...]:
        found: list[int] = []
        while pid in self.parents:
            pid = self.parents[pid]
            found.append(pid)
        return tuple(found)

    def uid(self, pid: int) -> int | None:
        return self.uids.get(pid, 1001)

    def job(self, pid: int) -> JobId | None:
        return self.jobs.get(pid)

    def stopped(self, pid: int) -> bool:
        return pid in self.still

    def environ(self, pid: int) -> Mapping[str, str] | None:
        return self.environs.get(pid)

    def name(self, pid: int) -> str:
        return "solver"

    def has_cuda(self, pid: int) -> bool:
        return True


class Supervisor:
    """The supervisor of one task, as far as its talk with the agent goes."""

    def __init__(self, path: str, job: int, task: int = 0, **words: object) -> None:
        self.job, self.task = job, task
        self.pid = 1000 * job + 10 * task
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(BOUND)
        until(lambda: self._connects(path), "a connection")
        hello: dict[str, object] = {
            "v": 1,
            "job": job,
            "step": 0,
            "task": task,
            "local": 0,
            "gpu": 0,
            "pid": 1,
            "starttime": 1,
            "options": "mps=on",
            "mpi": 0,
            "resumed": 0,
            "retries_used": 0,
            "active_pid": 0,
            "color": "",
            "session": 0,
        }
        self.say("hello", **(hello | words))

    def _connects(self, path: str) -> bool:
        """False when too many others are before it: it tries again, as the real one does."""
        try:
            self.socket.connect(path)
        except BlockingIOError:
            return False
        return True

    def say(self, verb: str, /, **words: object) -> None:
        self.socket.send(pack(verb, **words))

    def hear(self, verb: str) -> dict[str, str]:
        """The next message of this verb; those of which none is the answer to anything are passed over."""
        while True:
            data = self.socket.recv(1 << 16)
            assert data, f"the agent hung up instead of {verb}"
            said, words = unpack(data)
            if said == verb:
                return words
            assert said in ("log", "standby", "hold", "release", "kill_wait"), (
                f"heard {said} instead of {verb}: {words}"
            )

    def log_line(self, part: str) -> str:
        """The next line for the recovery log that has this part."""
        while True:
            said, words = unpack(self.socket.recv(8192))
            if said == "log" and part in words["line"]:
                return words["line"]

    def verbs(self, last: str) -> list[str]:
        """What is said up to the next message with the verb `last`; lines of the log are left out."""
        heard: list[str] = []
        while last not in heard:
            data = self.socket.recv(1 << 16)
            assert data, f"the agent hung up after {heard}"
            heard += [verb for verb in [unpack(data)[0]] if verb != "log"]
        return heard

    def run(self, color: str = "a", standby: str = "b") -> "Supervisor":
        """Start the task, open a session, have a standby ready."""
        self.hear("place")
        self.say("started", role="active", pid=self.pid, starttime=1, color=color)
        self.say("session", role="active", pid=self.pid)
        if standby:
            self.say("started", role="standby", pid=self.pid + 1, starttime=1, color=standby)
            self.say("ready", role="standby", pid=self.pid + 1)
        return self

    def close(self) -> None:
        self.socket.close()


class Site:
    """One node: an agent in a thread, its files below a directory."""

    def __init__(
        self,
        root: Path,
        recovery: Recovery | None = None,
        leases: tuple[Lease, ...] = (),
        guard: Guard | None = None,
        end_client: ClientEnd | None = None,
        gpus: Gpus | None = None,
        options: Options | None = None,
        alive: Alive | None = None,
    ) -> None:
        root.mkdir(exist_ok=True)
        self.root = root
        self.kmsg = root / "kmsg"
        self.kmsg.write_text("")
        self.socket = str(root / "agent.sock")
        self.journal_path = root / "journal.jsonl"
        self.clock = SystemClock()
        self.mps = FakeMps(root=root / "log")
        self.slurm = FakeSlurm(workdir=str(root))
        self.leases = FakeLeases()
        self.leases.leases.update({one.job: one for one in leases})
        self.procfs = FakeProcfs()
        self.settings = Settings(recovery=recovery or Recovery(), options=options or Options())
        self.supervisors: list[Supervisor] = []
        for color in ("a", "b"):
            (root / "log" / "u1001" / "g0" / color).mkdir(parents=True)
        self._stop_read, self._stop_write = os.pipe()
        self._journal = JournalFile(str(self.journal_path), self.clock)
        self._adapters = (
            AgentSocket(self.socket),
            KernelLogReader(str(self.kmsg)),
            ServerLogFollower(),
            DaemonWatch(),
        )
        self.kernel_log = self._adapters[1]
        self.worker = WorkerThreads()
        ports = Ports(
            clock=self.clock,
            journal=self._journal,
            leases=self.leases,
            mps=self.mps,
            slurm=self.slurm,
            gpus=gpus or OneGpu(),
            procfs=self.procfs,
            supervisors=self._adapters[0],
            kernel_log=self._adapters[1],
            gpu_events=NoGpuEvents(),
            server_logs=self._adapters[2],
            daemons=self._adapters[3],
            worker=self.worker,
            guard=guard,
            end_client=end_client,
            alive=alive,
        )
        self.agent = Agent(self.settings, NodeName("n0"), ports)
        self._thread = threading.Thread(target=self.agent.run, args=(self._stop_read,), daemon=True)

    def __enter__(self) -> "Site":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for supervisor in self.supervisors:
            supervisor.close()
        os.write(self._stop_write, b"x")
        self._thread.join(BOUND)
        assert not self._thread.is_alive()
        for adapter in self._adapters:
            adapter.close()
        self._journal.close()

    def task(self, lease: Lease, task: int = 0, **words: object) -> Supervisor:
        self.leases.leases[lease.job] = lease
        supervisor = Supervisor(self.socket, lease.job, task, **({"options": options.serialize(lease.options)} | words))
        self.supervisors.append(supervisor)
        return supervisor

    def log(self, color: str, text: str, *, control: bool = False, wall: float | None = None) -> None:
        """A line as the daemons write it, at `wall` if that matters."""
        directory = self.root / "log" / "u1001" / "g0" / color
        directory.mkdir(parents=True, exist_ok=True)
        with (directory / ("control.log" if control else "server.log")).open("a") as file:
            stamp = "2026-03-02 08:12:00.001"
            if wall is not None:
                stamp = datetime.fromtimestamp(wall).isoformat(" ", "milliseconds")
            file.write(f"[{stamp} {'Control' if control else 'Other'}  4428] {text}\n")

    def kernel(self, text: str) -> None:
        with self.kmsg.open("a") as file:
            file.write(text + "\n")

    def journal(self, event: str) -> list[dict[str, Any]]:
        import json

        rows = [json.loads(line) for line in self.journal_path.read_text().splitlines()]
        return [row for row in rows if row["event"] == event]


def readable(feed: Feed) -> None:
    assert select.select([feed], [], [], BOUND)[0], "nothing to read"
