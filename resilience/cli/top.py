"""`mpsr top`: a node's GPUs, MPS servers, clients and latest faults in a terminal, looked at again every few seconds.

Shows what `mpsr status` does, and asks NVML for memory and the journal for faults. What the caller may not see is named at the
top; nothing is started or changed. With --once, or when standard output is no terminal, one look is printed.
"""

import argparse
import os
import signal
import sys
import time
from threading import Event
from types import FrameType

from rich.console import Console
from rich.live import Live

from resilience.adapters.gpu.nvml import NvmlGpus
from resilience.adapters.linux.clock import SystemClock
from resilience.adapters.linux.journal import JournalFile
from resilience.adapters.linux.procfs import ProcfsTree
from resilience.cli import status
from resilience.config import settings
from resilience.config.node_name import node_name
from resilience.contract import exit_code, path
from resilience.model import records as rec
from resilience.model.errors import ConfigError, GpuError
from resilience.model.guard import Level
from resilience.model.ids import GpuUuid, JobId, NodeName
from resilience.model.lease import Lease, LeaseState, in_force
from resilience.model.records.journal import Entry
from resilience.model.settings import Settings
from resilience.report import node_status, overview, screen
from resilience.report.screen import ClientRow, GpuRow, ServerOnScreen, View

_FAULTS = 5
"""Latest faults that are shown."""
_LEAST = 0.5
"""Seconds between two looks at least: each asks every control daemon, which starts a program."""


def add(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Show the GPUs, MPS servers, clients and latest faults of this node, again and again until Ctrl-C. Root sees all of it, a "
        "user the leases of their own jobs."
    )
    parser.add_argument("--once", action="store_true", help="print one look and end")
    parser.add_argument(
        "--interval", type=float, default=2.0, metavar="SECONDS", help="time between two looks (default: 2)"
    )
    parser.add_argument("--node", help="Slurm's name of the node (default: this one)")
    parser.add_argument("--config", metavar="FILE", help="another mpsr.yaml")


def run(arguments: argparse.Namespace) -> int:
    if not arguments.interval >= _LEAST:
        raise ConfigError("--interval", f"is less than {_LEAST} s", arguments.interval)
    chosen = settings.find(arguments.config).settings
    node = node_name(arguments.node, chosen.paths.run)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 80)
    if arguments.once or not sys.stdout.isatty():
        console.print(screen.draw(look(chosen, node)), no_wrap=True, crop=True)
        return exit_code("ok")
    stop = _asked_to_stop()
    with Live(screen.draw(look(chosen, node)), console=console, screen=True, auto_refresh=False) as live:
        while not stop.wait(arguments.interval):
            live.update(screen.draw(look(chosen, node)), refresh=True)
    return exit_code("ok")


def _asked_to_stop() -> Event:
    """Set by Ctrl-C or SIGTERM. A second Ctrl-C interrupts a look that takes long."""
    stop = Event()

    def asked(number: int, _: FrameType | None) -> None:
        stop.set()
        signal.signal(number, signal.default_int_handler)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, asked)
    return stop


def look(chosen: Settings, node: NodeName) -> View:
    """What there is to be seen now, with the caller's rights."""
    seen = status.look(chosen, node)
    gpus, used, wrong = _gpus()
    notes = [f"GPUs: {wrong}"] if wrong else []
    if seen.servers is None:
        notes.append("servers, other users' jobs and faults: only root sees them")
    faults, still = _faults(path("journal", log=chosen.paths.log, node=seen.node))
    return View(
        node=seen.node,
        now=time.time(),
        agent=seen.agent,
        isolation="guard" if seen.guard is Level.ON else "domains",
        gpus=gpus,
        servers=tuple(_server(row) for row in seen.servers or ()),
        clients=_clients(seen, used),
        faults=faults,
        open=still,
        notes=(*notes, *(f"lease that cannot be read: {broken}" for broken in seen.broken)),
    )


def _gpus() -> tuple[tuple[GpuRow, ...], dict[int, int], str]:
    """The GPUs, the bytes of each MPS client, and why that could not be asked."""
    nvml, rows, used = NvmlGpus(), list[GpuRow](), dict[int, int]()
    try:
        for gpu in nvml.all():
            taken, total = nvml.memory(gpu.uuid)
            rows.append(GpuRow(minor=gpu.minor, uuid=gpu.uuid, name=gpu.name, used=taken, total=total))
            for pid, count in nvml.mps_memory(GpuUuid(gpu.uuid)).items():
                used[pid] = used.get(pid, 0) + count
    except GpuError as error:
        return tuple(rows), used, str(error)
    return tuple(rows), used, ""


def _server(row: node_status.ServerRow) -> ServerOnScreen:
    state, _, wrong = row.state.partition(" ")
    notes = [wrong.strip("()")] if wrong else []
    notes += [f"over GPUs {','.join(map(str, row.gpus))}"] * (len(row.gpus) > 1)
    notes += [f"{row.partitions} SM partitions"] * (row.partitions > 0)
    notes += ["new tasks join it"] * row.active + ["no lease names it"] * (not row.needed)
    return ServerOnScreen(
        name=f"{row.domain}/g{row.gpu}/{row.color}",
        gpu=row.gpu,
        state=state,
        good=state == "ACTIVE",
        clients=row.clients,
        note=", ".join(notes),
    )


def _clients(seen: status.Status, used: dict[int, int]) -> tuple[ClientRow, ...]:
    """Each client of each server with its job's lease; for a user, who may ask no server, each lease alone."""
    leases = {lease.job: lease for lease in seen.leases if lease.state is LeaseState.OPEN}
    if seen.servers is None:
        held = [(lease, minor) for lease in leases.values() for (minor, _), *_ in lease.spans]
        return tuple(_client(None, f"{lease.domain}/g{minor}", lease.job, lease, seen, None) for lease, minor in held)
    processes, rows = ProcfsTree(), list[ClientRow]()
    for row in seen.servers:
        for pid in row.pids:
            job = processes.job(pid)
            lease = leases.get(job) if job is not None else None
            rows.append(_client(pid, f"{row.domain}/g{row.gpu}/{row.color}", job, lease, seen, used.get(pid)))
    return tuple(rows)


def _client(
    pid: int | None, server: str, job: JobId | None, lease: Lease | None, seen: status.Status, used: int | None
) -> ClientRow:
    return ClientRow(
        pid=pid,
        server=server,
        job=job,
        user=lease.user if lease else "",
        threads=lease.options.threads if lease else None,
        limit=lease.options.memory if lease else None,
        used=used,
        isolation=in_force(lease.isolation, seen.guard is Level.ON, bool(lease.slots)).value if lease else "?",
    )


def _faults(journal: str) -> tuple[tuple[overview.FaultLine, ...], int]:
    """The latest faults, newest first, and how many are being dealt with. Nothing where the journal may not be read."""
    if not os.access(journal, os.R_OK):
        return (), 0
    file = JournalFile(journal, SystemClock())
    recent = file.recent()
    file.close()
    return tuple(overview.build(recent).faults[: -_FAULTS - 1 : -1]), len(_open(recent))


def _open(recent: tuple[Entry, ...]) -> set[str]:
    found: set[str] = set()
    for entry in recent:
        match entry.record:
            case rec.AgentStarted():
                found.clear()
            case rec.IncidentOpened() as one:
                found.add(one.incident)
            case rec.IncidentClosed() as one:
                found.discard(one.incident)
            case _:
                pass
    return found
