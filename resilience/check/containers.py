"""What `mpsr check` looks at where a node runs containers: whether they show the runtime directory and the supervisor's.

Without the first a task in a container is refused (pyxis), or its program runs outside MPS (Apptainer); without the second
`--mps-endings=safe` preloads nothing there. Reads the configuration of enroot, Apptainer and Singularity where there is one;
changes nothing and raises nothing.
"""

from collections.abc import Iterator
from os.path import dirname
from pathlib import Path

from resilience.check.finding import Finding, fine, warning
from resilience.model.settings import Settings

_APPTAINER = ("apptainer/apptainer.conf", "singularity/singularity.conf")
_PAGE = "docs/how-to/containers.md says more"


def check(settings: Settings, etc: Path = Path("/etc")) -> list[Finding]:
    """The findings on one node; none where it has none of these."""
    run, library = settings.paths.run, dirname(settings.paths.launcher)
    added = settings.options.apptainer == "on"
    found = []
    if (etc / "enroot").is_dir():
        mounts = etc / "enroot/mounts.d"
        found.append(_enroot(mounts, run, rooms=settings.prolog.room_mib > 0))
        if not any(words[:2] == [library, library] for _, words in _mounts(mounts)):
            wanted = f"a line for {mounts}/50-mpsr.fstab: {library} {library} none x-create=dir,bind,ro,nosuid,nodev"
            found.append(_plain_there(mounts, library, wanted))
    for name in _APPTAINER:
        if (etc / name).is_file():
            found.append(_apptainer(etc / name, run, added=added))
            if not _shows(etc / name, library) and not _takes_ours(etc / name, added=added):
                found.append(_plain_there(etc / name, library, f"add the line: bind path = {library}"))
    return found


def _plain_there(file: Path, library: str, hint: str) -> Finding:
    text = f"does not show {library} in containers: --mps-endings=safe is as plain there"
    return warning(str(file), text, f"{hint}; {_PAGE}")


def _mounts(mounts: Path) -> Iterator[tuple[Path, list[str]]]:
    for file in sorted(mounts.glob("*.fstab")):
        for line in _lines(file):
            yield file, line.split()


def _enroot(mounts: Path, run: str, *, rooms: bool) -> Finding:
    wanted = f"{run} {run} none x-create=dir,rbind,rw,nosuid,nodev"
    for file, words in _mounts(mounts):
        if words[:2] == [run, run]:
            if rooms and "bind" in words[-1].split(","):
                text = f"bind shows {run} without what is mounted in it: tasks under --mps are refused there"
                return warning(str(file), text, f"rbind in the place of bind: {wanted}; {_PAGE}")
            return fine(str(file), f"shows {run} in containers")
    hint = f"a line for {mounts}/50-mpsr.fstab: {wanted}; {_PAGE}"
    return warning(str(mounts), f"no file shows {run} in containers: tasks under --mps are refused there", hint)


def _apptainer(file: Path, run: str, *, added: bool) -> Finding:
    if _shows(file, run):
        return fine(str(file), f"shows {run} in containers")
    if _takes_ours(file, added=added):
        return fine(str(file), f"lets jobs bind {run}, and the plugin asks for it")
    reason = "takes no binds from users" if added else "has no bind path for it, and options.apptainer is off"
    hint = f"add the line: bind path = {run}; {_PAGE}"
    return warning(str(file), f"{reason}: programs in containers run outside MPS", hint)


def _pairs(file: Path) -> list[tuple[str, str]]:
    parts = (line.partition("=") for line in _lines(file))
    return [(key.strip(), value.strip()) for key, equals, value in parts if equals]


def _shows(file: Path, directory: str) -> bool:
    return any(key == "bind path" and value.split(":")[0] == directory for key, value in _pairs(file))


def _takes_ours(file: Path, *, added: bool) -> bool:
    """Whether the binds that the plugin asks for are made."""
    return added and ("user bind control", "no") not in _pairs(file)


def _lines(file: Path) -> Iterator[str]:
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    yield from (line for line in map(str.strip, text.splitlines()) if line and not line.startswith("#"))
