"""A simulated host with the node of tests/unit/domain_world.py on it, and what the tests of domains do there."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from resilience.adapters.mps.domain_locks import DomainLocks
from resilience.adapters.mps.mps_control import ControlDaemons
from resilience.model.ids import Color, DomainKey, GpuMinor, ServerId
from resilience.model.lease import Lease
from resilience.model.settings import MpsSettings, Options, Paths, Prolog, Settings
from resilience.parse import lease as text
from tests.gpusim.host import SimHost
from tests.gpusim.mps_harness import Client, wait_for
from tests.unit.domain_world import NODE, ON, World, world

_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
USER, OTHER = 12345 + 2 * _WORKER, 12346 + 2 * _WORKER
"""Of tests that run at once each has its own: what a user takes over or leaves is looked for on the whole machine."""
"""Users that no database knows; their group has the same number."""
ROOT = Path(__file__).resolve().parents[2]
SLOW = 60000
"""Milliseconds: longer than any test waits."""


@dataclass
class Site:
    sim: SimHost
    node: World
    said: list[str] = field(default_factory=list)
    clients: list[Client] = field(default_factory=list)

    @property
    def base(self) -> Path:
        return self.node.base

    def environ(
        self, job: int, asked: str = ON, more: Mapping[str, str] | None = None, *, uid: int = USER
    ) -> dict[str, str]:
        """A prolog's environment on this host."""
        mine = self.node.environ(job, asked, {"SLURM_JOB_GID": str(uid)} | dict(more or {}), uid=uid)
        mine.pop("LD_PRELOAD", None)
        return mine | self.sim.env()

    def prolog(self, job: int, asked: str = ON, more: Mapping[str, str] | None = None, *, uid: int = USER) -> Lease:
        """Run a prolog; the lease that it left."""
        assert self.node.prolog(self.environ(job, asked, more, uid=uid)) == 0
        return self.lease(job)

    def epilog(self, job: int, asked: str = ON, *, uid: int = USER) -> list[object]:
        """Run an epilog; the residue it told."""
        assert self.node.epilog(self.environ(job, asked, uid=uid)) == 0
        residue = self.node.journal.of("job.closed")[-1]["residue"]
        assert isinstance(residue, list)
        return residue

    def lease(self, job: int) -> Lease:
        return text.parse(self.node.lease(job))

    def mps(self, **changes: float) -> ControlDaemons:
        """The adapter as the agent has it: not the one that a prolog used."""
        settings = replace(self.node.settings, mps=replace(self.node.settings.mps, **changes))  # type: ignore[arg-type]
        locks = DomainLocks(settings.paths.run, NODE)
        return ControlDaemons(settings, NODE, locks, self.sim.env(), say=self.said.append)

    def pipe(self, color: str = "a", gpu: int = 0, key: str = f"u{USER}") -> Path:
        return self.base / f"run/n0/d/{key}/g{gpu}/{color}"

    def client(
        self, color: str = "a", *, key: str = f"u{USER}", uid: int = USER, job: int = 0, partition: str = ""
    ) -> Client:
        """A process of a job that uses a server."""
        env = self.sim.env(CUDA_MPS_PIPE_DIRECTORY=str(self.pipe(color, 0, key)), SLURM_JOB_ID=str(job))
        env |= {"CUDA_MPS_SM_PARTITION": partition} if partition else {}
        process = subprocess.Popen(
            [str(self.sim.build / "bin/gpusim-mps-client")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=env,
            user=uid,
            group=uid,
            extra_groups=[],
            start_new_session=True,
        )
        made = Client(process)
        self.clients.append(made)
        return made

    def allow_shared(self) -> None:
        self.change(replace(self.node.settings, options=Options(forbidden=())))

    def other_ui(self) -> subprocess.Popen[bytes]:
        """Somebody else's conversation with the control daemon, which holds it until its standard input ends."""
        env = self.sim.env(CUDA_MPS_PIPE_DIRECTORY=str(self.pipe()))
        ui = [str(self.sim.build / "bin/nvidia-cuda-mps-control")]
        other = subprocess.Popen(ui, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, bufsize=0)
        assert other.stdin is not None
        assert other.stdout is not None
        other.stdin.write(b"get_default_active_thread_percentage\n")
        assert other.stdout.read(5) == b"100.0"
        return other

    def change(self, settings: Settings) -> None:
        self.node.settings = settings

    def processes(self) -> list[int]:
        """Daemons and servers of this node, by their environment."""
        mark = f"CUDA_MPS_PIPE_DIRECTORY={self.base}/".encode()
        clients = {client.pid for client in self.clients}
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) not in clients:
                try:
                    if any(word.startswith(mark) for word in (entry / "environ").read_bytes().split(b"\0")):
                        found.append(int(entry.name))
                except OSError:
                    continue
        return found

    def kill_daemons(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Signal every daemon and server; for a deadly signal, wait until they have gone."""
        for pid in self.processes():
            with suppress(ProcessLookupError):  # a server goes with its daemon
                os.kill(pid, number)
        if number is signal.SIGKILL:
            wait_for("the daemons to be gone", lambda: not self.processes())

    def nothing_left(self) -> None:
        assert self.processes() == []
        assert self.node.domains() == []
        assert os.listdir(self.base / "run/n0/jobs") == []

    def start_prolog(self, job: int, *, output: int | None = None) -> subprocess.Popen[bytes]:
        """A prolog in a process of its own."""
        code = (
            "import os, sys; sys.path.insert(0, sys.argv[1]); "
            "from tests.conformance.domain_site import child; sys.exit(child(*sys.argv[2:]))"
        )
        chosen = self.node.settings
        argv = [sys.executable, "-c", code, str(ROOT), chosen.paths.run, chosen.paths.log]
        argv += [",".join(self.node.gpus.uuids), self.node.gpus.driver, chosen.mps.sm_partitions]
        return subprocess.Popen(argv, env=self.environ(job), cwd="/", stdout=output, stderr=output)


def child(run: str, log: str, uuids: str, driver: str, sm_partitions: str) -> int:
    """What start_prolog's process does."""
    base = Path(run).parent
    launcher = f"{ROOT}/build/mpsr-launch"
    paths = Paths(run=run, log=log, mps_control="nvidia-cuda-mps-control", launcher=launcher, cgroup=f"/{base.name}")
    here = World(
        base=base,
        settings=Settings(paths=paths, prolog=Prolog(room_mib=0), mps=MpsSettings(sm_partitions=sm_partitions)),
    )
    here.gpus.uuids, here.gpus.driver = tuple(uuids.split(",")), driver
    return here.prolog(dict(os.environ))


def color(name: str, gpu: int = 0, key: str = f"u{USER}") -> ServerId:
    return ServerId(domain=DomainKey(key), gpu=GpuMinor(gpu), color=Color(name))


@contextmanager
def site(build: Path, *, gpus: int = 1, **values: str) -> Iterator[Site]:
    """A host with `gpus` simulated GPUs; values of its profile."""
    with SimHost(gpus=gpus, memory=64, build=build, values={"ui_busy": "1"} | values) as sim, world() as node:
        paths = replace(node.settings.paths, mps_control=str(build / "bin/nvidia-cuda-mps-control"))
        node.settings = replace(node.settings, paths=paths)
        node.gpus.uuids = tuple(gpu.uuid for gpu in sim.gpus)
        here = Site(sim, node)
        try:
            yield here
        finally:
            for one in here.clients:
                if one.process.poll() is None:
                    one.kill()
            here.kill_daemons(signal.SIGCONT)
            here.kill_daemons()
