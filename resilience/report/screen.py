"""A node on one screen of a terminal, 80 columns and up: GPUs, MPS servers, their clients, the latest faults. Pure; rich draws.

ASCII only, so that every locale can print it. What does not fit a line is cut at its end, where the least important column is.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from resilience.report.journal_lines import when
from resilience.report.overview import FaultLine

_BAD = "bold red"
_GOOD = "green"
_MIB = 1 << 20
_WIDEST = 1000
"""Columns of a line before it is cut."""
_CLIENTS = ("PID", "JOB", "USER", "SERVER", "THREADS", "LIMIT", "MEMORY", "ISOLATION")


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuRow:
    minor: int
    uuid: str
    name: str
    used: int | None
    """Bytes, None when NVML does not say."""
    total: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOnScreen:
    name: str
    gpu: int
    state: str
    good: bool
    clients: int
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientRow:
    pid: int | None
    """None where the caller may not ask the servers: then it is a lease."""
    server: str
    job: int | None
    user: str
    threads: int | None
    """Percent of the GPU's threads that it may use, None without a limit."""
    limit: int | None
    """MiB that it may use."""
    used: int | None
    """Bytes that NVML counts."""
    isolation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    node: str
    now: float
    agent: bool
    isolation: str
    gpus: tuple[GpuRow, ...]
    servers: tuple[ServerOnScreen, ...]
    clients: tuple[ClientRow, ...]
    faults: tuple[FaultLine, ...]
    """The latest, newest first."""
    open: int
    """Incidents without an end."""
    notes: tuple[str, ...]
    """What could not be looked at, and why."""


@dataclass(frozen=True, slots=True)
class WholeScreen:
    """A table at its own width, whatever the terminal's: rich would narrow each column, and the console cuts lines anyway."""

    table: Table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from console.render(self.table, options.update(width=_WIDEST))


def draw(view: View) -> RenderableType:
    head = Text.assemble(
        (f"{view.node}  {when(view.now)[:19].replace('T', ' ')} UTC  "),
        ("agent answers", _GOOD) if view.agent else ("agent does not answer", _BAD),
        f"  isolation of new jobs: {view.isolation}",
    )
    parts: list[RenderableType] = [head, *(Text(note, style="yellow") for note in view.notes)]
    if view.gpus:
        parts += ["", _table(("GPU", "UUID", "NAME", "MEMORY"), map(_gpu, view.gpus), right=(3,))]
    if view.servers:
        parts += ["", _table(("SERVER", "GPU", "STATE", "CLIENTS", ""), map(_server, view.servers), right=(1, 3))]
    if view.clients:
        parts += ["", _table(_CLIENTS, map(_client, view.clients), right=(0, 1, 4, 5, 6))]
    faults = f"{view.open} fault{'' if view.open == 1 else 's'} being dealt with"
    parts += ["", Text(faults, style=_BAD if view.open else "")]
    if view.faults:
        parts.append(_table(("LAST FAULTS", "WHAT", "BY", "ENDED"), map(_fault, view.faults)))
    return Group(*parts)


def _table(names: Iterable[str], rows: Iterable[tuple[str | Text, ...]], right: tuple[int, ...] = ()) -> WholeScreen:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for number, name in enumerate(names):
        table.add_column(name, justify="right" if number in right else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
    return WholeScreen(table)


def _gpu(row: GpuRow) -> tuple[str, ...]:
    memory = "?" if row.used is None or row.total is None else f"{row.used // _MIB} / {row.total // _MIB} MiB"
    return str(row.minor), row.uuid[:12], row.name, memory


def _server(row: ServerOnScreen) -> tuple[str | Text, ...]:
    return row.name, str(row.gpu), Text(row.state, style=_GOOD if row.good else _BAD), str(row.clients), row.note


def _client(row: ClientRow) -> tuple[str, ...]:
    return (
        "-" if row.pid is None else str(row.pid),
        "-" if row.job is None else str(row.job),
        row.user or "-",
        row.server,
        "-" if row.threads is None else f"{row.threads} %",
        "-" if row.limit is None else f"{row.limit} MiB",
        "?" if row.used is None else f"{row.used // _MIB} MiB",
        row.isolation,
    )


def _fault(fault: FaultLine) -> tuple[str, ...]:
    return when(fault.wall)[5:16].replace("T", " "), fault.words or fault.kind, fault.by, fault.ended
