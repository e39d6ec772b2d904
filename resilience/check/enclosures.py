"""What `mpsr check` looks at where root starts programs as users: whether they can be traced, and what holds them then
(docs/explanation/enclosures.md). Reads the kernel's settings and mounts; changes nothing and raises nothing.
"""

import os
from pathlib import Path

from resilience.adapters.linux import cgroups
from resilience.adapters.linux.enclosures import program
from resilience.check.finding import Finding, fine, warning, wrong
from resilience.model.settings import Settings

_YAMA = "kernel.yama.ptrace_scope"
_DUMPABLE = "fs.suid_dumpable"
_PAGE = "docs/explanation/enclosures.md says more"


def check(settings: Settings, root: Path = Path("/")) -> list[Finding]:
    """The findings on one node, whose /proc and /dev are below `root`."""
    found = [_program(settings), _yama(root), _cgroups(settings.paths.cgroup, root)]
    if _sysctl(root, _DUMPABLE) == "1":
        hint = f"{_DUMPABLE} = 0 or 2: root's helpers read and remove a user's files as that user, who could trace them"
        found.append(wrong(_DUMPABLE, "lets users trace what has given up root's rights: 1", hint))
    if (root / "dev/nvidiactl").exists() and not (root / "dev/nvidia-uvm").exists():
        hint = "nvidia-modprobe -u -c=0 at boot, or nvidia-persistenced: a server cannot do it, it gains no rights"
        found.append(warning("/dev/nvidia-uvm", "is not there: MPS servers cannot start", hint))
    return found


def _program(settings: Settings) -> Finding:
    where = program(settings.paths.launcher)
    if os.access(where, os.X_OK):
        return fine("mpsr-enter", where)
    return wrong("mpsr-enter", f"cannot be executed: {where}", "it lies beside mpsr-launch: install both")


def _yama(root: Path) -> Finding:
    scope = _sysctl(root, _YAMA)
    if scope and scope != "0":
        return fine(_YAMA, scope)
    observed = scope or "this kernel has no Yama"
    text = f"a user can take over the MPS daemons of his own domain: {observed}"
    return warning(
        _YAMA, text, f"{_YAMA} = 1 in /etc/sysctl.d, where users debug no processes but their own children; {_PAGE}"
    )


def _cgroups(base: str, root: Path) -> Finding:
    subject = "paths.cgroup"
    if not base:
        return warning(subject, "is empty: daemons are found by their descent alone", _PAGE)
    try:
        found = cgroups.mounted((root / "proc/self/mountinfo").read_text(encoding="utf-8", errors="replace"))
    except OSError as error:
        return warning(subject, f"cannot be looked at: {error.strerror}: {error.filename}", _PAGE)
    if found is None:
        return warning(
            subject, "neither cgroup v2 nor v1's freezer is mounted: daemons are found by their descent", _PAGE
        )
    if os.geteuid() == 0 and not os.access(found.tracking, os.W_OK):
        text = f"cgroups cannot be made at {found.tracking}: daemons are found by their descent"
        return warning(subject, text, f"mount it writable for root; {_PAGE}")
    return fine(subject, f"{base}, {found}")


def _sysctl(root: Path, name: str) -> str:
    """A setting of the kernel; empty when it has no such setting."""
    try:
        return (root / "proc/sys" / name.replace(".", "/")).read_text(encoding="ascii").strip()
    except OSError:
        return ""
