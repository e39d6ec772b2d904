"""`mpsr hooks`: the hook server, which the node agent keeps beside itself. See adapters/hook_server.py.

What a prolog or epilog sees is the agent's environment, as the MPS daemons do that the agent starts, and of the caller's
the variables that are the job's. A server whose program has been replaced on the disk, as by an upgrade, serves nobody:
prologs then start by themselves, with the new program, until the agent is started anew.
"""

import argparse
import gc
import os
import sys
from collections.abc import Mapping
from contextlib import suppress

from resilience.adapters.hook_server import HookServer
from resilience.cli import epilog, prolog, settings  # noqa: F401  # loaded here, once for all
from resilience.cli.place import node_name
from resilience.contract import exit_code, path
from resilience.parse.job_environment import OF_A_JOB


def add(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "serve this node's prologs and epilogs; the agent starts it, and it ends with its standard input"
    )
    parser.add_argument("--node", help="Slurm's name of this node (default: $SLURMD_NODENAME, else the host's name)")
    parser.add_argument("--config", metavar="FILE", help="another mpsr.yaml")


def run(arguments: argparse.Namespace) -> int:
    chosen = settings.find(arguments.config).settings
    node = node_name(arguments.node)
    load()
    own = {key: value for key, value in os.environ.items() if not key.startswith(OF_A_JOB)}
    program = Program()

    def work(name: str, environ: Mapping[str, str]) -> int:
        from resilience.cli.main import main

        os.environ.clear()
        os.environ.update(own | {key: value for key, value in environ.items() if key.startswith(OF_A_JOB)})
        return main([name])

    server = HookServer(path("hook_socket", run=chosen.paths.run, node=node), work, current=program.is_current)
    gc.collect()
    gc.freeze()  # what is there by now stays: the forked need not look at it, and so not copy it
    try:
        server.run(sys.stdin.fileno())
    finally:
        server.close()
    return exit_code("ok")


def load() -> None:
    """Import now what a hook imports when it comes to that."""
    from resilience.adapters import nvml, scontrol  # noqa: F401
    from resilience.cli import hook  # noqa: F401

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
