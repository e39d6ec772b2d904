"""Where the MPS programs are: in a folder brought along, on PATH, where NVIDIA's container toolkit puts them, else by a bounded search.

A program counts when it can be run: one of another architecture, a wrapper without its interpreter or a stub that hangs is passed over, and
noted.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

CONTROL, SERVER = "nvidia-cuda-mps-control", "nvidia-cuda-mps-server"
KNOWN = ("/usr/local/nvidia/bin", "/usr/local/nvidia/sbin")
ROOTS = ("/usr", "/opt", "/run/nvidia", "/var/lib")
"""Where else a driver may have been unpacked."""
SEARCH_SECONDS, RUN_SECONDS = 5.0, 10.0


def folders(
    environ: Mapping[str, str], brought: Path | None, known: tuple[str, ...], roots: tuple[str, ...]
) -> Iterator[Path]:
    if brought:
        yield brought.resolve()
    yield from map(Path, filter(None, environ.get("PATH", "").split(":")))
    yield from map(Path, known)
    end = time.monotonic() + SEARCH_SECONDS
    for root in roots:
        for folder, _, files in os.walk(root):
            if CONTROL in files or SERVER in files:
                yield Path(folder)
            if time.monotonic() > end:
                return


def machine(program: Path | str) -> bytes:
    """What an ELF file is for; its first two bytes where it is a script; empty where it is neither."""
    head = Path(program).read_bytes()[:20]
    return head[18:20] if head[:4] == b"\x7fELF" else head[:2] if head[:2] == b"#!" else b""


def no_program(program: Path) -> str:
    """Why its content cannot be run here."""
    try:
        return "" if machine(program) in (b"#!", machine(sys.executable)) else "is no program of this machine"
    except OSError as error:
        return str(error)


def trouble(program: Path) -> str:
    """Why it cannot be run; empty where it can, whatever it answers."""
    if why := no_program(program):
        return why
    try:
        subprocess.run([program, "-h"], capture_output=True, stdin=subprocess.DEVNULL, timeout=RUN_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return ""


def find(
    environ: Mapping[str, str],
    brought: Path | None = None,
    known: tuple[str, ...] = KNOWN,
    roots: tuple[str, ...] = ROOTS,
) -> tuple[str, dict[str, str]]:
    """A PATH on which both programs come first, and what was tried, with why not; the PATH as it was where they are not to be had."""
    tried, control, server = dict[str, str](), "", ""
    for folder in folders(environ, brought, known, roots):
        if not control and os.access(path := folder / CONTROL, os.X_OK) and path.is_file() and str(path) not in tried:
            tried[str(path)] = trouble(path) or "taken"
            control = str(folder) if tried[str(path)] == "taken" else ""
        if not server and os.access(folder / SERVER, os.X_OK) and str(folder / SERVER) not in tried:
            tried[str(folder / SERVER)] = no_program(folder / SERVER) or "taken"  # alone it waits for a daemon: not run
            server = str(folder) if tried[str(folder / SERVER)] == "taken" else ""
        if control and server:
            break
    first = dict.fromkeys(filter(None, (control, server, *environ.get("PATH", "").split(":"))))
    return ":".join(first), tried
