"""What an experiment started, found by its environment and ended: puppets, programs, MPS daemons and servers in sessions of their own."""

import contextlib
import os
import signal
from pathlib import Path


def leftovers(folder: Path) -> dict[int, str]:
    """Processes whose environment names this folder or what is in it, by id; our own children and their daemons alone have its name."""
    mark, found = f"CUDA_MPS_PIPE_DIRECTORY={folder}".encode(), dict[int, str]()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                words = (entry / "environ").read_bytes().split(b"\0")
                if any(word == mark or word.startswith(mark + b"/") for word in words):
                    found[int(entry.name)] = (entry / "comm").read_text().strip()
    return found


def end_leftovers(folder: Path, group: int = 0) -> list[str]:
    """SIGKILL them; what they were, but for those of a process group that was killed already and may still be dying. A daemon of an
    experiment that was killed lives in a session of its own and is found only here."""
    ended = []
    for pid, name in leftovers(folder).items():
        with contextlib.suppress(ProcessLookupError):
            if os.getpgid(pid) != group:
                ended.append(name)
            os.kill(pid, signal.SIGKILL)
    return sorted(ended)
