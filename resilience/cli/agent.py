"""`mpsr agent`: the node agent's adapters put together, its signals, and that there is one agent per node.

SIGTERM and SIGINT end it; MPS servers and tasks stay, and supervisors connect again to the next agent. SIGHUP reads
mpsr.yaml: when it is good the agent begins anew with it, in the same process; when it is not, the error is said and the
old settings stay. A node where NVML or the kernel log cannot be used still has an agent, with fewer sources; what is
missing is said once.
"""

import argparse
import contextlib
import fcntl
import os
import signal
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

from resilience.adapters.gpu.computing import ComputingWatch
from resilience.adapters.gpu.guard_follower import GuardFollower
from resilience.adapters.gpu.nvml import NoGpuEvents, NvmlEvents, NvmlGpus
from resilience.adapters.linux.agent_socket import AgentSocket
from resilience.adapters.linux.clock import SystemClock
from resilience.adapters.linux.guarded_files import make_dirs
from resilience.adapters.linux.job_notes import JobNotes
from resilience.adapters.linux.journal import JournalFile
from resilience.adapters.linux.kept_process import KeptProcess
from resilience.adapters.linux.kmsg import KernelLogReader
from resilience.adapters.linux.lease_watch import LeaseWatch
from resilience.adapters.linux.leases import LeaseFiles
from resilience.adapters.linux.procfs import ProcfsTree
from resilience.adapters.linux.service_manager import ServiceManager
from resilience.adapters.linux.strike_file import StrikeFile
from resilience.adapters.linux.worker import WorkerThreads
from resilience.adapters.mps.client_end import ClientEnder
from resilience.adapters.mps.daemon_watch import DaemonWatch
from resilience.adapters.mps.domain_locks import DomainLocks
from resilience.adapters.mps.mps_control import ControlDaemons
from resilience.adapters.mps.server_logs import ServerLogFollower
from resilience.adapters.slurm import slurm_commands
from resilience.agent import Agent
from resilience.config import settings
from resilience.config.node_name import node_name
from resilience.contract import exit_code, path
from resilience.hooks.missed_epilog import MissedEpilogs
from resilience.hooks.node import build
from resilience.hooks.tidy_slurm import TidySlurm
from resilience.model.errors import ConfigError, GpuError, ResilienceError
from resilience.model.ids import NodeName
from resilience.model.observation import Source
from resilience.model.records import Sighting
from resilience.model.settings import Settings
from resilience.ports import GpuEvents, Journal, KernelLog, Ports


def add(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Run the node agent until SIGTERM. SIGHUP makes it read mpsr.yaml again. The systemd unit starts it as root; see "
        "mpsr-agent(8)."
    )
    parser.add_argument("--node", help="Slurm's name of this node (default: $SLURMD_NODENAME, else the host's name)")
    parser.add_argument("--config", metavar="FILE", help="another mpsr.yaml")


def run(arguments: argparse.Namespace) -> int:
    found = settings.find(arguments.config)
    node = node_name(arguments.node)
    signals = Signals(arguments.config)
    manager = ServiceManager(os.environ, SystemClock())
    with one_per_node(found.settings, node):
        serve(found.settings, node, signals, arguments.config, manager)
    if signals.again:
        manager.give_back(os.environ)
        os.execv(sys.executable, [sys.executable, "-m", "resilience.cli.main", *sys.argv[1:]])
    return exit_code("ok")


class Signals:
    """What the agent is told from outside; `stop` is readable when it is to leave its loop."""

    def __init__(self, config: str | None) -> None:
        self.again = False
        self._config = config
        self.stop, self._say = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._leave())
        signal.signal(signal.SIGHUP, lambda *_: self._reload())

    def _leave(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._say, b".")

    def _reload(self) -> None:
        try:
            settings.find(self._config)
        except ConfigError as error:
            print(f"{error.lines()}\n  the old settings stay in force", file=sys.stderr, flush=True)
            return
        self.again = True
        self._leave()


@contextlib.contextmanager
def one_per_node(chosen: Settings, node: NodeName) -> Iterator[None]:
    """Holds the node's lock. Raises ResilienceError when another agent has it, or its directories cannot be had."""
    run_dir = path("node", run=chosen.paths.run, node=node)
    lock = f"{run_dir}/agent.lock"
    try:
        make_dirs(run_dir)
        make_dirs(os.path.dirname(path("journal", log=chosen.paths.log, node=node)))
        make_dirs(os.path.dirname(path("strikes", state=chosen.paths.state, node=node)))
        fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        hint = "the agent runs as root; see paths.run, paths.log and paths.state in mpsr.yaml"
        raise ResilienceError(error.filename or lock, "cannot be used", error.strerror or error, hint=hint) from error
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ResilienceError("agent", "already runs on this node", node, hint="see: mpsr status") from None
        yield
    finally:
        os.close(fd)


def serve(chosen: Settings, node: NodeName, signals: Signals, config: str | None, manager: ServiceManager) -> None:
    """Build everything, run until told to stop, close what was built."""
    with contextlib.ExitStack() as stack:

        def closing(built: Any) -> Any:
            stack.callback(built.close)
            return built

        clock = SystemClock()
        journal = closing(JournalFile(path("journal", log=chosen.paths.log, node=node), clock))
        if chosen.paths.metrics:
            stack.enter_context(metrics_file(chosen, node))
        picked = slurm_commands.pick(chosen)
        stack.callback(picked.close)
        mps = ControlDaemons(chosen, node, DomainLocks(chosen.paths.run, node), os.environ)
        say(f"node {node}, mode {chosen.recovery.mode}, Slurm through {picked.name} ({picked.why})")
        hooks = [sys.executable, "-P", "-m", "resilience.cli.main", "hooks", "--node", node]
        closing(KeptProcess("hook server", hooks + (["--config", config] if config else []), say))
        made = partial(build, node, os.environ, chosen, gpus=NvmlGpus, clock=clock, journal=journal)
        doors = path("agent_door", run=chosen.paths.run, node=node, uid="{uid}")
        sockets = AgentSocket(path("agent_socket", run=chosen.paths.run, node=node), doors)
        ports = Ports(
            clock=clock,
            journal=journal,
            leases=LeaseFiles(chosen.paths.run, node, journal),
            mps=mps,
            slurm=TidySlurm(picked.slurm, made),
            gpus=NvmlGpus(),
            procfs=ProcfsTree(),
            supervisors=closing(sockets),
            kernel_log=closing(kernel_log(chosen.paths.kmsg)),
            gpu_events=closing(gpu_events()),
            server_logs=closing(ServerLogFollower()),
            daemons=closing(DaemonWatch()),
            worker=WorkerThreads(),
            guard=closing(GuardFollower(lambda text: of_the_guard(journal, text))),
            end_client=ClientEnder(mps),
            openings=closing(LeaseWatch(chosen.paths.run, node)),
            notes=JobNotes(),
            computing=closing(ComputingWatch(NvmlGpus())),
            strikes=StrikeFile(path("strikes", state=chosen.paths.state, node=node)),
            epilogs=MissedEpilogs(picked.slurm, config),
            alive=manager,
        )
        agent = Agent(chosen, node, ports)
        agent.run(signals.stop)


def say(text: str) -> None:
    print(f"mpsr: agent: {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def metrics_file(chosen: Settings, node: NodeName) -> Iterator[None]:
    """The node's metrics, or why there are none: the agent's work does not hang on them."""
    from resilience.adapters.linux.metrics_file import MetricsFile  # 8 MiB, for the nodes that want metrics

    try:
        file = path("metrics", metrics=chosen.paths.metrics, node=node)
        writer = MetricsFile(path("journal", log=chosen.paths.log, node=node), file, say)
    except ResilienceError as error:
        print(error.lines(), file=sys.stderr, flush=True)
        yield
        return
    try:
        yield
    finally:
        writer.close()


def kernel_log(file: str) -> KernelLog:
    """The kernel log, or a silence where it cannot be read."""
    try:
        log = KernelLogReader(file)
        if not log.names_our_processes:
            say(f"{file} counts processes as the host does, not this container: it names no culprit")
        return log
    except ResilienceError as error:
        print(error.lines(), file=sys.stderr, flush=True)
        return Silence()


def gpu_events() -> GpuEvents:
    """NVML's events, or none where NVML cannot be used."""
    try:
        return NvmlEvents()
    except GpuError as error:
        print(error.lines(), file=sys.stderr, flush=True)
        return NoGpuEvents()


def of_the_guard(journal: Journal, text: str) -> None:
    """The guard module came, went or was switched: the admin who did it, and who reads the journal, see when it took."""
    say(text)
    journal.append(Sighting(source=Source.GUARD, what="level", text=text))


class Silence:
    """KernelLog port of a node whose kernel log cannot be read: nothing ever comes."""

    names_our_processes = True

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def fileno(self) -> int:
        return self._fd

    def read(self) -> tuple[str, ...]:
        return ()

    def close(self) -> None:
        os.close(self._fd)
