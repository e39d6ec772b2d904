"""One command on many nodes at the same time, through ClusterShell: over ssh, or as a Slurm step where the site says so.

It runs as the caller, with what the caller may do on each node. A node is not trusted: what it prints is kept as bytes up to a
bound and looked at by nobody here; a node that says more, or that does not end in time, is ended and named. A node that cannot
be reached costs its own time limit and no other node's. Raises ConfigError when the program that reaches nodes is not there.
"""

import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ClusterShell.Event import EventHandler
from ClusterShell.NodeSet import NodeSet
from ClusterShell.Task import task_self
from ClusterShell.Worker.Exec import ExecClient, ExecWorker
from ClusterShell.Worker.Ssh import SshClient, WorkerSsh

from resilience.adapters.slurm.slurm_program import beside
from resilience.model.errors import ConfigError
from resilience.model.settings import Settings

MOST = 32 << 20
"""Bytes of one node's answer."""
_MOST_IN_ALL = 512 << 20
"""Bytes of all answers together."""
_MOST_ERR = 16 << 10
"""Bytes of one node's standard error that are kept; the rest is read and dropped."""
_CONNECT = 10
"""Seconds for a connection of ssh."""
_LINGER = 1.0
"""Seconds for a program to end after it has closed its output."""
_PAUSE = 0.005
_STEP = ("--quiet", "--input=none", "--nodes=1", "--ntasks=1", "--overlap", "--job-name=mpsr")

Words = Callable[[str], Sequence[str]]
"""The command for a node."""


@dataclass(slots=True)
class Reply:
    """What a node answered. `wrong` says why there is no answer; empty when the command ended by itself."""

    out: bytearray = field(default_factory=bytearray)
    err: bytearray = field(default_factory=bytearray)
    status: int | None = None
    wrong: str = ""


def gather(nodes: Iterable[str], words: Words, chosen: Settings, *, job: int | None = None) -> dict[str, Reply]:
    """Run `words` on every node and return each one's reply. `job`: a running job that srun makes its steps in."""
    names = list(nodes)
    replies = {name: Reply() for name in names}
    progress = _Progress(replies)
    remote, task = chosen.remote, task_self()
    srun = beside(chosen.paths.scontrol, "srun")
    program = remote.ssh if remote.shell == "ssh" else srun
    if shutil.which(program) is None:
        hint = "remote.shell and remote.ssh in mpsr.yaml say how nodes are reached"
        raise ConfigError(program, "is not there, or cannot be executed", hint=hint)
    task.set_info("fanout", remote.fanout)
    task.set_info("ssh_path", remote.ssh)
    task.set_info("connect_timeout", min(_CONNECT, remote.timeout))
    kind = _Ssh if remote.shell == "ssh" else _Srun
    worker = kind(NodeSet.fromlist(names), handler=progress, timeout=remote.timeout, command="mpsr", stderr=True)
    worker.replies, worker.words, worker.srun, worker.job = replies, words, srun, job
    task.schedule(worker)
    worker.set_write_eof()
    try:
        task.run()
    except BaseException:
        worker.abort()
        raise
    finally:
        progress.end()
    for reply in replies.values():
        if reply.status is None and not reply.wrong:
            reply.wrong = f"no answer within {remote.timeout:g} s"
    return replies


class _Progress(EventHandler):  # type: ignore[misc]  # ClusterShell has no types
    """How many nodes have answered, on a terminal's standard error."""

    def __init__(self, replies: dict[str, Reply]) -> None:
        self._replies = replies
        self._shown = sys.stderr.isatty() and len(replies) > 1

    def ev_hup(self, worker: Any, node: str, rc: int) -> None:
        self._replies[node].status = rc
        if self._shown:
            ended = sum(reply.status is not None for reply in self._replies.values())
            print(f"\r{ended} of {len(self._replies)} nodes", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


class _Bounded:
    """A ClusterShell client that keeps bytes up to a bound, where its own looks for lines and keeps one of any length."""

    worker: Any
    key: str
    popen: Any

    def _handle_read(self, sname: str) -> None:
        data = self._read(sname)  # type: ignore[attr-defined]  # EngineClient's
        reply: Reply = self.worker.replies[self.key]
        if sname == self.worker.SNAME_STDERR:
            reply.err += data[: max(0, _MOST_ERR - len(reply.err))]
            return
        reply.out += data
        self.worker.said += len(data)
        if len(reply.out) > MOST or self.worker.said > _MOST_IN_ALL:
            reply.out.clear()
            reply.wrong = f"said more than {MOST >> 20} MiB"
            self.abort()  # type: ignore[attr-defined]

    def _close(self, abort: bool, timeout: bool) -> None:
        """ClusterShell waits without a limit for a program that has closed its output and goes on."""
        until = time.monotonic() + _LINGER
        while not abort and self.popen.poll() is None:
            if time.monotonic() > until:
                self.popen.kill()
                break
            time.sleep(_PAUSE)
        super()._close(abort, timeout)  # type: ignore[misc]


class _SshClient(_Bounded, SshClient):  # type: ignore[misc]
    def _build_cmd(self) -> tuple[list[str], dict[str, str] | None]:
        self.command = shlex.join(self.worker.words(self.key))
        command: tuple[list[str], dict[str, str] | None] = super()._build_cmd()
        return command


class _SrunClient(_Bounded, ExecClient):  # type: ignore[misc]
    def _build_cmd(self) -> tuple[list[str], dict[str, str] | None]:
        """The step asks for no MPS itself, whatever the site's default is."""
        job = [f"--jobid={self.worker.job}"] if self.worker.job is not None else []
        command = [self.worker.srun, *_STEP, *job, f"--nodelist={self.key}", *self.worker.words(self.key)]
        return command, {"MPSR_MPS": "off"}


class _Ssh(WorkerSsh):  # type: ignore[misc]
    SHELL_CLASS = _SshClient
    said = 0


class _Srun(ExecWorker):  # type: ignore[misc]
    SHELL_CLASS = _SrunClient
    said = 0
