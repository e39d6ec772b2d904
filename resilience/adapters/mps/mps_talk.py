"""NVIDIA's control program as a partner in conversation: where its daemons lie, what they inherit, a question and its answer.

Daemon and our conversations with it run as the owner of the pipe directory, in the server's enclosure: root talks to
nothing that a user controls, except by reading bounded text. One conversation at a time: an own lock, a sentinel line,
and another try every 5 ms.
"""

import os
import time
from collections.abc import Mapping

from resilience import contract
from resilience.adapters.linux.commands import Ran, RunAs, run
from resilience.adapters.linux.enclosures import Enclosures
from resilience.adapters.linux.guarded_files import read_or_empty
from resilience.adapters.mps.domain_locks import DomainLocks
from resilience.model.errors import DaemonGone, MpsControlError
from resilience.model.ids import NodeName, ServerId
from resilience.model.settings import Settings
from resilience.parse import mps_control as parse
from resilience.parse.job_environment import OF_A_JOB
from resilience.parse.mps_control import Talk

TALK_TIMEOUT = 2.0
"""Seconds for one command (3 ms on all drivers) together with its other tries while the daemon is busy."""
ANSWER_SECONDS = 1.0
"""Seconds for terminate_client: whoever waits for it, to end a process or to die, waits no longer."""
RETRY = 0.005
"""Seconds between two tries at a busy daemon."""
NOTHING: Mapping[str, str] = {}
_DROP = (*OF_A_JOB, "BASH_FUNC_")
_DROP_NAMES = frozenset("HOME USER LOGNAME MAIL SHELL TERM PWD OLDPWD SHLVL BASH_ENV ENV _".split())
_USUAL = "/usr/local/sbin /usr/local/bin /usr/sbin /usr/bin /sbin /bin".split()
"""Where packages put the two programs: Debian has the control program in /usr/bin and the server in /usr/sbin."""


def search_path(environ: Mapping[str, str], control: str) -> str:
    """PATH of a daemon: the control program's own directory first, since both must be of one driver, then the caller's
    PATH and the usual places."""
    own = [os.path.dirname(control)] if "/" in control else []
    given = (environ.get("PATH") or os.defpath).split(":")
    return ":".join(dict.fromkeys([*own, *given, *_USUAL]))


def daemon_environment(environ: Mapping[str, str], control: str) -> dict[str, str]:
    """What a daemon inherits: the library search path and the like, nothing of the job, of Slurm or of a terminal.

    CUDA_MPS_ACTIVE_THREAD_PERCENTAGE, which Slurm's gres/mps sets for one job, would else become the default of all.
    """
    return {
        name: value for name, value in environ.items() if not name.startswith(_DROP) and name not in _DROP_NAMES
    } | {"PATH": search_path(environ, control)}


class ControlProgram:
    """The program of one node, for all of its daemons. `environ` is the caller's environment."""

    def __init__(self, settings: Settings, node: NodeName, locks: DomainLocks, environ: Mapping[str, str]) -> None:
        self._settings = settings
        self._node = node
        self._locks = locks
        self.environ = daemon_environment(environ, settings.paths.mps_control)
        self.enclosures = Enclosures(settings.paths.cgroup, settings.paths.launcher, node)

    def pipe(self, server: ServerId) -> str:
        return self._path("pipe", server)

    def logs(self, server: ServerId) -> str:
        return self._path("mps_log", server)

    def name(self, server: ServerId) -> str:
        """How messages call it."""
        return f"mps {server.domain}/g{server.gpu}/{server.color}"

    def error(self, server: ServerId, wrong: str, observed: object, *, hint: str = "") -> MpsControlError:
        return MpsControlError(self.name(server), wrong, observed, hint=hint)

    def control_log(self, server: ServerId) -> str:
        return read_or_empty(f"{self.logs(server)}/control.log")

    def server_log(self, server: ServerId) -> str:
        return read_or_empty(f"{self.logs(server)}/server.log")

    def ask(
        self, server: ServerId, *commands: str, must_answer: bool = False, until: float | None = None
    ) -> tuple[Talk, tuple[str, ...]]:
        """The answer to some commands, by the time `until` of the monotonic clock, or within TALK_TIMEOUT.

        Raises MpsControlError for a daemon that stays busy or does not answer."""
        began = time.monotonic()
        deadline = began + TALK_TIMEOUT if until is None else until
        limit = round(deadline - began, 1)
        if not must_answer and not os.path.lexists(f"{self.pipe(server)}/control"):
            return Talk.NO_DAEMON, ()
        busy = False
        while True:
            ran = self.talk(server, parse.script(*commands), timeout=max(RETRY, deadline - time.monotonic()))
            if ran.timed_out:
                state = "is busy for" if busy else "does not answer within"
                raise self.error(server, f"control daemon {state} {limit:g} s", commands[0])
            if ran.status in (126, 127) and not ran.stdout:
                raise self.error(
                    server,
                    "control program cannot be run",
                    f"{self._settings.paths.mps_control}: {ran.stderr.strip()[:200]}",
                    hint=parse.start_hint(ran.status, ""),
                )
            talk, lines = parse.answer(ran.stdout, ran.stderr)
            if talk is Talk.NO_DAEMON and must_answer:
                raise DaemonGone(self.name(server), "control daemon has gone", commands[0])
            if talk is not Talk.BUSY:
                return talk, lines
            if time.monotonic() >= deadline:
                raise self.error(server, f"control daemon is busy for {limit:g} s", commands[0])
            busy = True
            time.sleep(RETRY)

    def talk(self, server: ServerId, stdin: bytes, *, timeout: float) -> Ran:
        """One run of the control program as the owner of the pipe directory, under the colour's own lock."""
        pipe = self.pipe(server)
        with self._locks.talk(server, timeout=timeout):
            try:
                info = os.lstat(pipe)
            except FileNotFoundError:
                raise self.error(server, "is closed", pipe) from None
            return self.run(server, RunAs(uid=info.st_uid, gid=info.st_gid), stdin=stdin, timeout=timeout)

    def run(
        self,
        server: ServerId,
        run_as: RunAs,
        *options: str,
        stdin: bytes,
        timeout: float,
        more: Mapping[str, str] = NOTHING,
    ) -> Ran:
        """The control program in the server's enclosure; `more` of environment."""
        pipe = self.pipe(server)
        env = self.environ | {"CUDA_MPS_PIPE_DIRECTORY": pipe, "CUDA_MPS_LOG_DIRECTORY": self.logs(server)} | dict(more)
        argv = [*self.enclosures.entrance(server, pipe, run_as), self._settings.paths.mps_control, *options]
        return run(argv, stdin=stdin, env=env, timeout=timeout)

    def _path(self, name: str, server: ServerId) -> str:
        paths = self._settings.paths
        return contract.path(
            name,
            run=paths.run,
            log=paths.log,
            node=self._node,
            key=server.domain,
            gpu=server.gpu,
            color=server.color,
        )
