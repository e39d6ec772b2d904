"""What is asked of pyslurm, in a process that may hang in a call, or be ended by libslurm, without harm to the agent.

pyslurm holds Python's lock while it waits for slurmctld (seen with 25.11: every other thread stood still for 20 s), has no
deadline of its own, and where there is no slurm.conf libslurm ends the process that imports it. So it is imported here and
nowhere else: `python -m resilience.adapters.slurm.pyslurm_calls FD`, started by pyslurm_process.py. FD is a socket of packets
(SOCK_SEQPACKET): one packet of JSON a request, one an answer; the first packet says what came of the import. The
process ends when its starter does.

Sources: https://pyslurm.github.io/25.11/reference/ (job, node, slurmctld); github.com/PySlurm/pyslurm, pyslurm/core/job/
job.pyx, job/submission.pxd, node.pyx, error.pyx, slurmctld/config.pyx.
"""

import importlib
import json
import os
import socket
import sys
from collections.abc import Callable
from typing import Any

PACKET = 1 << 17
"""Bytes of an answer: an AdminComment, paths, and their escapes."""
_NEEDED = ("Job", "JobSubmitDescription", "Node", "RPCError", "slurmctld")


class Calls:
    """pyslurm's calls by name. Each takes and returns what JSON can say, and raises pyslurm's RPCError."""

    def __init__(self, api: Any) -> None:
        self.api = api

    def releases(self) -> dict[str, str]:
        """pyslurm's own, and that of the slurmctld which answers."""
        return {"pyslurm": str(self.api.__version__), "slurmctld": str(self.api.slurmctld.Config.load().version)}

    def load(self, job: int) -> dict[str, Any]:
        """For the leader of an array or of a heterogeneous job this may be another of its jobs: see `id`."""
        found = self.api.Job.load(job)
        excluded = found.excluded_nodes or ""
        return {
            "id": int(found.id),
            "several": bool(found.array_id) or bool(found.heterogeneous_id),
            "state": str(found.state),
            "batch": bool(found.is_batch_job),
            "requeue": bool(found.is_requeueable),
            "restarts": int(found.requeue_count or 0),
            "stdout": str(found.standard_output or ""),
            "workdir": str(found.working_directory or ""),
            "excluded": excluded if isinstance(excluded, str) else ",".join(map(str, excluded)),
            "comment": str(found.admin_comment or ""),
            "held": found.priority == 0,
            "reason": str(found.state_reason or ""),
        }

    def requeue(self, job: int) -> None:
        self.api.Job(job).requeue()

    def modify(self, job: int, changes: dict[str, str]) -> None:
        self.api.Job(job).modify(self.api.JobSubmitDescription(**changes))

    def node(self, name: str) -> dict[str, str]:
        found = self.api.Node.load(name)
        return {"state": str(found.state), "reason": str(found.reason or "")}

    def drain(self, name: str, reason: str) -> None:
        self.api.Node.load(name).modify(self.api.Node(state="DRAIN", reason=reason))


def load() -> Any:
    """The module, if it is here and has what we call. Raises ImportError or RuntimeError, in pyslurm's words."""
    module = importlib.import_module("pyslurm")
    if missing := [name for name in _NEEDED if not hasattr(module, name)]:
        raise ImportError(
            f"pyslurm {getattr(module, '__version__', '?')} has no {missing[0]}: 25.11 or later is needed"
        )
    return module


def answer(calls: Calls, call: str, words: dict[str, Any]) -> dict[str, Any]:
    """`ok`, or in Slurm's own words `refused`; `failed` is for what pyslurm did not do as we know it."""
    asked: Callable[..., Any] = getattr(calls, call)
    try:
        return {"ok": asked(**words)}
    except calls.api.RPCError as error:
        return {"refused": " ".join(str(error).split()) or "no reason given"}
    except Exception as error:  # whatever it is, the agent is to hear of it
        return {"failed": f"{type(error).__name__}: {error}"}


def begin() -> tuple[Calls | None, dict[str, Any]]:
    try:
        calls = Calls(load())
    except (ImportError, RuntimeError) as error:
        return None, {"failed": " ".join(str(error).split())}
    return calls, answer(calls, "releases", {})


def main(fd: int) -> None:
    with socket.socket(fileno=fd) as link:
        calls, first = begin()
        link.send(json.dumps(first).encode())
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, sys.stderr.fileno())  # libslurm's lines, which nobody reads from here on
        while calls is not None and (data := link.recv(PACKET)):
            asked = json.loads(data)
            link.send(json.dumps(answer(calls, asked["call"], asked["words"])).encode())


if __name__ == "__main__":
    main(int(sys.argv[1]))
