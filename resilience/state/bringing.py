"""A program that opens a session in a batch script, without srun, brings itself under a supervisor: it becomes mpsr-launch,
which starts the same command again, supervised.

Once, before the session has opened anything, and only where the same command does start again: a child that was forked, a
notebook, a program read from standard input or an MPI rank goes on as it is, and one line says why. What the program wrote
before goes out again: unwritten output is dropped, so that it is not there twice. Relies on the plugin's
variables; a job that did not ask for MPS has none of them.
"""

import multiprocessing
import os
import sys
import threading
from collections.abc import Mapping

from resilience.contract import env

_OPTIONS, _LEASE, _LAUNCHER = env("options"), env("lease"), env("launcher")
_FD, _BROUGHT, _ARGV0 = env("fd"), env("brought"), env("argv0")
_RANKS = ("PMI_RANK", "PMI_FD", "PMIX_RANK", "OMPI_COMM_WORLD_RANK")


def bring(environ: Mapping[str, str]) -> None:
    """Does not return where the program starts again under a supervisor."""
    asked = "mps=on" in environ.get(_OPTIONS, "").split(";") and environ.get(_LEASE)
    launcher = environ.get(_LAUNCHER, "")
    if not asked or not launcher or environ.get(_FD) or environ.get(_BROUGHT):
        return
    why = _cannot(environ)
    if not why:
        command = [sys.executable, *sys.orig_argv[1:]]
        ours = {key: value for key, value in environ.items() if key != _ARGV0} | {_BROUGHT: "1"}
        try:
            os.execve(launcher, [launcher, *command], ours)
        except OSError as error:
            why = f"{launcher}: {error.strerror or error}"
    print(f"mpsr: session: no supervisor, so it is not recovered: {why}", file=sys.stderr)
    print("  start the program with srun or mpsr run", file=sys.stderr, flush=True)


def _cannot(environ: Mapping[str, str]) -> str:
    """Why the same command would not start again, or not as it did; empty when it would."""
    if multiprocessing.parent_process() is not None or _command(os.getpid()) == _command(os.getppid()):
        return "it is a child of the program"
    if threading.current_thread() is not threading.main_thread():
        return "it is opened in a thread"
    if rank := next((name for name in _RANKS if name in environ), ""):
        return f"it is an MPI rank ({rank})"
    if hasattr(sys, "ps1") or sys.flags.interactive or "ipykernel" in sys.modules:
        return "the program is interactive"
    main = sys.modules["__main__"]
    file = getattr(main, "__file__", None)
    if getattr(main, "__spec__", None) is not None or "-c" in sys.orig_argv[1:]:
        return ""
    if file is None or not any(_same(word, file) for word in sys.orig_argv[1:]):
        return "the command cannot be told from here"
    return ""


def _same(word: str, file: str) -> bool:
    try:
        return os.path.samefile(word, file)
    except OSError:
        return False


def _command(pid: int) -> bytes:
    """What a process was started with; a forked child has its parent's."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read()
    except OSError:
        return b"" if pid == os.getpid() else b"?"
