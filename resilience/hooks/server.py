"""The hook server, which the node agent keeps beside itself. See adapters/linux/hook_server.py.

What a prolog or epilog sees is the agent's environment, as the MPS daemons do that the agent starts, and of the caller's
the variables that are the job's. A server whose program has been replaced on the disk, as by an upgrade, serves nobody:
prologs then start by themselves, with the new program, until the agent is started anew.
"""

import gc
import math
import os
import sys
from collections.abc import Mapping
from contextlib import suppress

from resilience.adapters.linux.discards import Discards
from resilience.adapters.linux.hook_server import HookServer
from resilience.contract import path
from resilience.hooks import epilog, prolog, run_one  # noqa: F401  # loaded here, once for all
from resilience.model.ids import NodeName
from resilience.model.settings import Paths
from resilience.parse.job_environment import OF_A_JOB


def serve(node: NodeName, paths: Paths) -> None:
    """Serves the hooks of a node until standard input ends, and removes what they discard. Raises ResilienceError."""
    load()
    own = {key: value for key, value in os.environ.items() if not key.startswith(OF_A_JOB)}
    program = Program()

    def work(name: str, environ: Mapping[str, str]) -> int:
        os.environ.clear()
        os.environ.update(own | {key: value for key, value in environ.items() if key.startswith(OF_A_JOB)})
        return run_one.run(name)

    discards = Discards(node, run=paths.run, log=paths.log)
    server = HookServer(
        path("hook_socket", run=paths.run, node=node),
        work,
        current=program.is_current,
        after=lambda: _clear(discards),
    )
    gc.collect()
    gc.freeze()  # what is there by now stays: the forked need not look at it, and so not copy it
    try:
        server.run(sys.stdin.fileno())
    finally:
        server.close()


def _clear(discards: Discards) -> None:
    discards.clear(until=math.inf)


def load() -> None:
    """Import now what a hook imports when it comes to that."""
    from resilience.adapters.gpu import nvml  # noqa: F401
    from resilience.adapters.slurm import scontrol  # noqa: F401

    with suppress(ImportError):
        import pynvml  # noqa: F401


class Program:
    """The files of this process's own modules, as they were when it loaded them."""

    def __init__(self) -> None:
        files = (module.__file__ for name, module in sys.modules.items() if name.split(".")[0] == "resilience")
        self._files = {file: self._mark(file) for file in files if file}
        self._said = False

    @staticmethod
    def _mark(file: str) -> tuple[int, int] | None:
        try:
            info = os.stat(file)
        except OSError:
            return None
        return info.st_ino, info.st_mtime_ns

    def is_current(self) -> bool:
        changed = next((file for file, mark in self._files.items() if self._mark(file) != mark), None)
        if changed and not self._said:
            print(
                f"mpsr: hook server: the program has changed, restart the agent: {changed}", file=sys.stderr, flush=True
            )
            self._said = True
        return changed is None
