"""`mpsr agent`: the node agent with its adapters, until SIGTERM or SIGINT.

Relies on root (leases, kernel log, other users' processes). A node without NVML runs too: then only logs and supervisors tell of faults,
and one line on stderr says so. On failure at the start: one clear line and the contract's `failed`.
"""

import argparse
import os
import signal
import sys

from resilience import contract
from resilience.adapters.agent_socket import AgentSocket
from resilience.adapters.clock import SystemClock
from resilience.adapters.domain_locks import DomainLocks
from resilience.adapters.journal import JournalFile
from resilience.adapters.kmsg import KernelLogReader
from resilience.adapters.leases import LeaseFiles
from resilience.adapters.mps_control import ControlDaemons
from resilience.adapters.nvml import NoGpuEvents, NvmlEvents, NvmlGpus
from resilience.adapters.procfs import ProcfsTree
from resilience.adapters.server_logs import ServerLogFollower
from resilience.adapters.slurm_commands import pick
from resilience.adapters.worker import WorkerThreads
from resilience.agent.loop import Agent
from resilience.cli import settings as chosen
from resilience.cli.place import node_name
from resilience.contract import exit_code
from resilience.model.errors import GpuError
from resilience.ports import GpuEvents


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--node", help="Slurm's name of this node (default: SLURMD_NODENAME, else the host's name)")
    parser.add_argument("--config", help="mpsr.yaml (default: MPSR_CONFIG, else /etc/slurm/mpsr.yaml)")


def run(arguments: argparse.Namespace) -> int:
    settings = chosen.find(arguments.config).settings
    run_dir = settings.paths.run
    node = node_name(arguments.node, run_dir)
    os.makedirs(contract.path("node", run=run_dir, node=node), mode=0o755, exist_ok=True)
    clock = SystemClock()
    journal = JournalFile(contract.path("journal", log=settings.paths.log, node=node), clock)
    agent = Agent(
        settings,
        node,
        clock=clock,
        journal=journal,
        leases=LeaseFiles(run_dir, node, journal),
        mps=ControlDaemons(settings, node, DomainLocks(run_dir, node), os.environ),
        slurm=pick(settings).slurm,
        gpus=NvmlGpus(),
        procfs=ProcfsTree(),
        supervisors=AgentSocket(contract.path("agent_socket", run=run_dir, node=node)),
        kernel_log=KernelLogReader(settings.paths.kmsg),
        gpu_events=_gpu_events(),
        server_logs=ServerLogFollower(),
        worker=WorkerThreads(),
    )
    agent.run(_stop_pipe())
    return exit_code("ok")


def _gpu_events() -> GpuEvents:
    try:
        return NvmlEvents()
    except GpuError as error:
        print(error.lines(), file=sys.stderr, flush=True)
        return NoGpuEvents()


def _stop_pipe() -> int:
    """A descriptor that becomes readable with the first SIGTERM or SIGINT."""
    stop, told = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os.write(told, b"\0"))
    return stop
