"""`mpsr check`: does the guard module cover this node's driver and GPUs? From what the module found when it was loaded.

Reads the kernel log; changes nothing and raises nothing.
"""

import os
import re
from collections.abc import Iterator

from resilience.check.finding import Finding, fine, note, warning
from resilience.model.guard import GuardStanding, Level
from resilience.ports import Gpu

_ABOUT = "docs/how-to/guard-module.md"
_SAID = re.compile(r"\bmps_guard: (armed|(?P<why>(driver|kernel): .+))")


def check(level: Level, found: GuardStanding, gpus: tuple[Gpu, ...], kmsg: str) -> list[Finding]:
    """Findings about the module, then about each GPU. `kmsg` is the kernel log, where a module that refused says why."""
    if level is Level.ABSENT:
        if why := refusal(kmsg):
            return [
                warning("guard module", f"refused to be loaded: {why}", f"faults are not isolated here; see {_ABOUT}")
            ]
        return [
            note("guard module", "is not loaded: a memory fault reaches all clients of its server", f"see {_ABOUT}")
        ]
    return findings(level, found, gpus)


def findings(level: Level, found: GuardStanding, gpus: tuple[Gpu, ...]) -> list[Finding]:
    about = f"driver {found.driver or 'of unknown version'}"
    if not found.cancels:
        said = [warning("guard module", f"does not say what it hooks in {about}", "build it from this release")]
    else:
        said = [fine("guard module", f"{level.value}; covers {about}: hooks the cancels of {', '.join(found.cancels)}")]
    if found.strays:
        text = f"{found.strays} cancels came without a record before them, and passed"
        said.append(warning("guard module", text, f"{about} takes another path: mpsr guard test, and report it"))
    return said + [finding for gpu in gpus if not gpu.mig and (finding := _gpu(found, gpu))]


def _gpu(found: GuardStanding, gpu: Gpu) -> Finding | None:
    """A GPU in MIG mode is told of by check/gpus.py."""
    if not found.cancels:
        return None
    if gpu.capability is None:
        text = f"may not cover a {gpu.name}, whose compute capability NVML does not tell: {gpu.uuid}"
        return warning("guard module", text, "its faults may reach all clients of their server")
    if gpu.capability and not found.covers(gpu.capability):
        text = f"does not cover a {gpu.name} (compute capability {gpu.capability}): {gpu.uuid}"
        return warning("guard module", text, "its faults reach all clients of their server")
    return None


def refusal(kmsg: str) -> str:
    """What the module said last, if that was why it refused; empty otherwise, or when the log cannot be read."""
    last = ""
    for line in _lines(kmsg):
        if match := _SAID.search(line):
            last = match["why"] or ""
    return last if last.isprintable() else ""


def _lines(kmsg: str) -> Iterator[str]:
    """A log file's lines, or all records that the kernel still has."""
    try:
        log = os.open(kmsg, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return
    with open(log, "rb", buffering=0) as file:
        while True:
            try:
                record = file.read(1 << 16)
            except BrokenPipeError:  # some were overwritten before they were read
                continue
            except OSError:
                return
            if not record:  # the end of a file, or of what the kernel has
                return
            yield from record.decode("utf-8", "replace").splitlines()
