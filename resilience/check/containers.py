"""What `mpsr check` looks at where a node runs containers: whether they show the runtime directory.

Without it a task in a container is refused (pyxis), or its program runs outside MPS (Apptainer). Reads the
configuration of enroot, Apptainer and Singularity where there is one; changes nothing and raises nothing.
"""

from collections.abc import Iterator
from pathlib import Path

from resilience.check.finding import Finding, fine, warning
from resilience.model.settings import Settings

_APPTAINER = ("apptainer/apptainer.conf", "singularity/singularity.conf")
_PAGE = "docs/how-to/containers.md says more"


def check(settings: Settings, etc: Path = Path("/etc")) -> list[Finding]:
    """The findings on one node; none where it has none of these."""
    run = settings.paths.run
    found = []
    if (etc / "enroot").is_dir():
        found.append(_enroot(etc / "enroot/mounts.d", run, rooms=settings.prolog.room_mib > 0))
    for name in _APPTAINER:
        if (etc / name).is_file():
            found.append(_apptainer(etc / name, run, added=settings.options.apptainer == "on"))
    return found


def _enroot(mounts: Path, run: str, *, rooms: bool) -> Finding:
    wanted = f"{run} {run} none x-create=dir,rbind,rw,nosuid,nodev"
    for file in sorted(mounts.glob("*.fstab")):
        for line in _lines(file):
            words = line.split()
            if len(words) >= 2 and words[0] == words[1] == run:
                if rooms and "bind" in words[-1].split(","):
                    text = f"bind shows {run} without what is mounted in it: tasks under --mps are refused there"
                    return warning(str(file), text, f"rbind in the place of bind: {wanted}; {_PAGE}")
                return fine(str(file), f"shows {run} in containers")
    hint = f"a line for {mounts}/50-mpsr.fstab: {wanted}; {_PAGE}"
    return warning(str(mounts), f"no file shows {run} in containers: tasks under --mps are refused there", hint)


def _apptainer(file: Path, run: str, *, added: bool) -> Finding:
    pairs = [
        (key.strip(), value.strip()) for key, equals, value in (line.partition("=") for line in _lines(file)) if equals
    ]
    if any(key == "bind path" and value.split(":")[0] == run for key, value in pairs):
        return fine(str(file), f"shows {run} in containers")
    if added and ("user bind control", "no") not in pairs:
        return fine(str(file), f"lets jobs bind {run}, and the plugin asks for it")
    reason = "takes no binds from users" if added else "has no bind path for it, and options.apptainer is off"
    hint = f"add the line: bind path = {run}; {_PAGE}"
    return warning(str(file), f"{reason}: programs in containers run outside MPS", hint)


def _lines(file: Path) -> Iterator[str]:
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    yield from (line for line in map(str.strip, text.splitlines()) if line and not line.startswith("#"))
