"""The MPS control daemons of a node: ports.Mps over NVIDIA's `nvidia-cuda-mps-control`.

One daemon with one server for each ServerId, in directories of its own; never the default ones. Daemon, server and
our own conversations with them run as the owner of the domain: root talks to nothing that a user controls, except by
reading bounded text. What the control program is known to do, and what is done about it:

- exit status 0 proves nothing: the answers are read, and quit is believed when the processes have gone;
- one conversation at a time, a second one gets nothing: an own lock, a sentinel line, and another try every 5 ms;
- sockets of a dead daemon stay, and clients then run without MPS *silently*: a daemon that does not answer is cleared;
- removing the directories of a living daemon orphans it: they go when its processes have gone;
- start_server returns at once: ready means get_server_status says ACTIVE (535: its logs say so);
- the daemon finds nvidia-cuda-mps-server on PATH alone, and a hook's PATH is short: `search_path` makes it longer;
- a driver without static SM partitions takes -S for a question or prints its help, with status 0: they are there when
  the daemon lists them.

Guarantees: `open` leaves an ACTIVE server or nothing; `close` leaves nothing or says what; both are idempotent, hold
the domain's lock, and end within the settings' times. Failures are MpsControlError with the driver's own reason.
"""

import os
import sys
import time
from collections.abc import Callable, Mapping

from resilience import contract
from resilience.adapters.commands import Ran, RunAs, raise_open_files, run
from resilience.adapters.domain_locks import DomainLocks, talk_lock
from resilience.adapters.guarded_files import make_dir, make_dirs, read_or_empty, remove_tree
from resilience.adapters.processes import Seen, end, living, parent, wait_gone
from resilience.adapters.sm_partitions import SmPartitions
from resilience.model.errors import DaemonGone, MpsControlError
from resilience.model.ids import GpuUuid, NodeName, Process, ServerId
from resilience.model.settings import Settings
from resilience.parse import mps_control as parse
from resilience.parse.mps_control import Talk
from resilience.ports import ServerOwner, ServerState

_TALK_TIMEOUT = 2.0
"""Seconds for one command (3 ms on all drivers) together with its other tries while the daemon is busy."""
_RETRY = 0.005
"""Seconds between two tries at a busy daemon."""
_MULTIUSER = (("-multiuser-server",), ("--multiuser-server",))
"""How the option is written: in the documents and 550, and in the help of 580. A program that does not know one of them starts
nothing, prints its help, and ends with status 0 (580)."""
_POLL_FIRST, _POLL_MOST = 0.02, 0.1
"""Seconds between two questions to a daemon whose server starts (0.2 to 0.3 s on a T4 and an A16)."""
_LOG_POLL = 0.002
"""Seconds between two looks into control.log meanwhile."""
_GRACE = 1.0
"""Seconds between SIGTERM and SIGKILL for a daemon that quit did not end."""
_SUN_PATH = 107
"""Bytes that a socket's path may have (unix(7)); beyond it the daemon fails without a message."""
_LONGEST_SOCKET = "control_privileged"
SERVER_PROGRAM = "nvidia-cuda-mps-server"
_PROGRAM = "nvidia-cuda-mps"
"""Name of daemon and server as /proc shows it: the first 15 characters of both."""
_DROP = ("SLURM", "SPANK_", "MPSR", "CUDA_", "GPU_DEVICE_ORDINAL", "BASH_FUNC_")
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


def _to_stderr(text: str) -> None:
    print(f"mpsr: {text}", file=sys.stderr)


class ControlDaemons:
    """See the module. `environ` is the caller's environment; `say` takes warnings that change nothing."""

    def __init__(
        self,
        settings: Settings,
        node: NodeName,
        locks: DomainLocks,
        environ: Mapping[str, str],
        *,
        say: Callable[[str], None] = _to_stderr,
    ) -> None:
        self._settings = settings
        self._node = node
        self._locks = locks
        self._environ = daemon_environment(environ, settings.paths.mps_control)
        self._say = say
        self.partitions = SmPartitions(
            settings.paths.run, node, lambda server, *commands: self._ask(server, *commands, must_answer=True)[1]
        )
        self._server: dict[ServerId, int] = {}
        """Each daemon's server at the last look: saves a conversation, decides nothing."""

    # ------------------------------------------------------------------------------------------------ asking

    def pipe(self, server: ServerId) -> str:
        return self._path("pipe", server)

    def logs(self, server: ServerId) -> str:
        return self._path("mps_log", server)

    def state(self, server: ServerId) -> ServerState:
        return self._look(server)[0]

    def clients(self, server: ServerId) -> tuple[int, ...]:
        found: list[int] = []
        for pid in self.servers(server):
            _, lines = self._ask(server, f"get_client_list {pid}")
            found += parse.pids(lines)
        return tuple(found)

    def servers(self, server: ServerId) -> tuple[int, ...]:
        """Process ids of the daemon's servers; one, but for the moment of a change."""
        _, lines = self._ask(server, "get_server_list")
        return parse.pids(lines)

    def terminate_client(self, server: ServerId, pid: int) -> bool:
        answers = [self._ask(server, f"terminate_client {one} {pid}")[1] for one in self.servers(server)]
        return any(parse.terminated(lines) for lines in answers)

    def daemon(self, server: ServerId) -> Process | None:
        """The parent of the server, when it is proven to be this pipe directory's (drivers before 550 write no pid)."""
        talk, lines = self._ask(server, "get_server_list")
        if talk is Talk.NO_DAEMON:
            return None
        parents = {parent(pid) for pid in parse.pids(lines)}
        for seen in self.processes(server):
            if seen.process.pid in parents:
                return seen.process
        raise self._error(server, "control daemon cannot be told from others", "it has no server")

    def processes(self, server: ServerId) -> tuple[Seen, ...]:
        """Daemon and servers that are proven to be those of this pipe directory."""
        try:
            owner = os.lstat(self.pipe(server)).st_uid
        except FileNotFoundError:
            return ()
        meant = self._is_ours(server, owner)
        return tuple(seen for seen in living(owner) if meant(seen))

    # ------------------------------------------------------------------------------------------------ opening

    def open(self, server: ServerId, uuid: GpuUuid, owner: ServerOwner, *, in_use: bool = False) -> None:
        """See ports.Mps. `in_use`: others hold leases on it, so nothing that lives is ended to have it."""
        pipe = self.pipe(server)
        if len(os.fsencode(f"{pipe}/{_LONGEST_SOCKET}")) > _SUN_PATH:
            raise self._error(
                server, f"path of its sockets is longer than {_SUN_PATH} bytes", pipe, hint="choose a shorter paths.run"
            )
        with self._locks.domain(server.domain, timeout=self._settings.mps.start_timeout):
            if os.path.lexists(pipe):
                if self._take_over(server, owner):
                    return
                if in_use and (alive := self.processes(server)):
                    raise self._error(
                        server,
                        "is not ACTIVE, and other jobs use it",
                        ", ".join(map(str, alive)),
                        hint="the node agent repairs it: see mpsr log",
                    )
                self._clear_or_raise(server)
            try:
                self._start_anew(server, uuid, owner)
            except DaemonGone:  # somebody has killed it: that happens once
                self._start_anew(server, uuid, owner)

    def _start_anew(self, server: ServerId, uuid: GpuUuid, owner: ServerOwner) -> None:
        """An ACTIVE server, or nothing and an MpsControlError."""
        try:
            self._start(server, uuid, owner)
            self.partitions.cut(server, uuid)
            self._await_active(server, owner, self._settings.mps.start_timeout)
        except (MpsControlError, OSError) as error:
            left = self._clear(server)
            if isinstance(error, MpsControlError) and not left:
                raise
            raise self._error(server, "cannot be opened", "; ".join([str(error), *left])) from error

    def _take_over(self, server: ServerId, owner: ServerOwner) -> bool:
        """Whether the daemon that is there is the owner's and has, or gets, an ACTIVE server."""
        info = os.lstat(self.pipe(server))
        if (info.st_uid, info.st_gid) != (owner.uid, owner.gid):
            return False
        mps = self._settings.mps
        try:
            state = self._look(server)[0]
            if not self.partitions.whole(server):
                return False
            if state is ServerState.ACTIVE:
                return True
            if not self.processes(server):
                return False
            if state is ServerState.ABSENT:
                self._await_active(server, owner, mps.start_timeout)
            else:
                patience = mps.rebuild_timeout if state is ServerState.FAULT else mps.start_timeout
                self._await_active(server, owner, patience, state)
        except MpsControlError:
            return False
        return True

    def _start(self, server: ServerId, uuid: GpuUuid, owner: ServerOwner) -> None:
        pipe, logs = self.pipe(server), self.logs(server)
        make_dir(os.path.dirname(pipe))
        make_dir(pipe, mode=0o755 if owner.shared else 0o700, uid=owner.uid, gid=owner.gid)
        try:
            remove_tree(logs)
            make_dirs(os.path.dirname(logs))
            make_dir(logs, mode=0o755 if owner.shared else 0o700, uid=owner.uid, gid=owner.gid)
        except OSError as error:
            self._say(f"{self._name(server)}: no log directory, faults will have no named culprit: {error}")
        env = self._environ | {
            "CUDA_MPS_PIPE_DIRECTORY": pipe,
            "CUDA_MPS_LOG_DIRECTORY": logs,
            "CUDA_VISIBLE_DEVICES": uuid,
        }
        raise_open_files()
        run_as = RunAs(uid=owner.uid, gid=owner.gid)
        cut = ["-S"] if self.partitions.share(server) is not None else []
        for options in _MULTIUSER if owner.shared else ((),):
            argv = [self._settings.paths.mps_control, "-d", *options, *cut]
            ran = run(argv, stdin=b"", env=env, timeout=self._settings.mps.start_timeout, run_as=run_as)
            output = f"{ran.stdout} {ran.stderr}".strip()
            if not parse.unknown_option(output):
                break
        # A program without -S is found out when its daemon lists no partitions.
        refused = parse.unknown_option(output) and not cut
        if ran.timed_out or ran.status != 0 or refused:
            what = "control daemon did not start in time" if ran.timed_out else "control daemon did not start"
            observed = f"{' '.join(argv)}: status {ran.status}" + (f", {output[:200]}" if output else "")
            raise self._error(server, what, observed, hint=parse.start_hint(ran.status, output))
        if "No logs will be available" in output:
            self._say(f"{self._name(server)}: {output[:200]}")

    def _await_active(
        self, server: ServerId, owner: ServerOwner, timeout: float, seen: ServerState | None = None
    ) -> None:
        """Ask for a server, unless one was `seen`, and wait until it is ACTIVE. Raises when it dies or is late."""
        deadline = time.monotonic() + timeout
        died_before = parse.deaths(self._control_log(server))
        state, complaint = (seen, "") if seen else self._look(server, owner.uid)
        poll = _POLL_FIRST
        while state is not ServerState.ACTIVE:
            if complaint:
                raise self._error(server, "control daemon refuses to start a server", complaint)
            if state is ServerState.ABSENT and parse.deaths(self._control_log(server)) > died_before:
                raise self._ended_at_once(server)
            if time.monotonic() >= deadline:
                raise self._error(
                    server, f"server is not ACTIVE after {timeout:g} s", state.value, hint=f"see {self.logs(server)}"
                )
            self._await_news(server, died_before, poll)
            poll = min(poll * 1.5, _POLL_MOST)
            state, complaint = self._look(server, must_answer=True)

    def _ended_at_once(self, server: ServerId) -> MpsControlError:
        """Why a server did not live: what its log says, or that there is no program to start."""
        import shutil  # costs a prolog milliseconds, for an error alone

        path = self._environ["PATH"]
        if shutil.which(SERVER_PROGRAM, path=path) is None:
            hint = f"install {SERVER_PROGRAM} beside the control program, or set paths.mps_control in mpsr.yaml"
            return self._error(server, f"control daemon finds no {SERVER_PROGRAM} on its PATH", path, hint=hint)
        why = parse.reason(self._server_log(server)) or "its log does not say why"
        return self._error(server, "server ended at once", why, hint=f"see server.log in {self.logs(server)}")

    def _await_news(self, server: ServerId, died_before: int, most: float) -> None:
        """Until control.log tells of a server that reported in or died, at most `most` seconds.

        Only saves conversations: what counts is what the daemon then says.
        """
        until = time.monotonic() + most
        while time.monotonic() < until:
            log = self._control_log(server)
            if parse.deaths(log) > died_before:
                return
            if (ready := parse.ready(log)) and ready[-1] != self._server.get(server):
                self._server[server] = ready[-1]
                return
            time.sleep(_LOG_POLL)

    # ------------------------------------------------------------------------------------------------ closing

    def close(self, server: ServerId) -> tuple[str, ...]:
        if not os.path.lexists(self.pipe(server)):
            return ()
        try:
            with self._locks.domain(server.domain, timeout=self._settings.mps.quit_timeout):
                return self._clear(server)
        except MpsControlError as error:
            return (str(error),)

    def _clear_or_raise(self, server: ServerId) -> None:
        if left := self._clear(server):
            raise self._error(server, "what is left of it cannot be cleared away", "; ".join(left))

    def _clear(self, server: ServerId) -> tuple[str, ...]:
        """Quit, end, prove, remove."""
        pipe = self.pipe(server)
        if not os.path.lexists(pipe):
            return ()
        owner = os.lstat(pipe).st_uid
        if self.processes(server):
            self.partitions.remove(server)
            self._quit(server)
            end(self.processes(server), grace=_GRACE, still_meant=self._is_ours(server, owner))
        if left := self.processes(server):
            return tuple(f"{seen} of {pipe}" for seen in left)
        self.partitions.forget(server)
        wrong = remove_tree(pipe)
        if wrong:
            return (wrong,)
        remove_tree(talk_lock(pipe))
        return ()

    def _quit(self, server: ServerId) -> None:
        """Ask the daemon to end and wait for its processes; asks again as long as nobody has taken note."""
        deadline = time.monotonic() + self._settings.mps.quit_timeout
        noted_before = parse.quits(self._control_log(server))
        patience = max(1, int(self._settings.mps.quit_timeout / 2))
        while (left := deadline - time.monotonic()) > 0:
            ran = self._talk(server, f"quit -t {patience}\n".encode(), timeout=min(left, patience + _TALK_TIMEOUT))
            talk, _ = parse.answer(ran.stdout, ran.stderr)
            noted = parse.quits(self._control_log(server)) > noted_before
            left = deadline - time.monotonic()
            gone = not wait_gone((seen.process for seen in self.processes(server)), left if noted else _RETRY)
            if gone or noted or talk is Talk.NO_DAEMON or ran.timed_out:
                return

    # ------------------------------------------------------------------------------------------------ conversation

    def _ask(self, server: ServerId, *commands: str, must_answer: bool = False) -> tuple[Talk, tuple[str, ...]]:
        """The answer to some commands. Raises MpsControlError for a daemon that stays busy or does not answer."""
        deadline = time.monotonic() + _TALK_TIMEOUT
        if not must_answer and not os.path.lexists(f"{self.pipe(server)}/control"):
            return Talk.NO_DAEMON, ()
        while True:
            ran = self._talk(server, parse.script(*commands), timeout=_TALK_TIMEOUT)
            if ran.timed_out:
                raise self._error(server, f"control daemon does not answer within {_TALK_TIMEOUT:g} s", commands[0])
            if ran.status in (126, 127) and not ran.stdout:
                raise self._error(
                    server,
                    "control program cannot be run",
                    f"{self._settings.paths.mps_control}: {ran.stderr.strip()[:200]}",
                    hint=parse.start_hint(ran.status, ""),
                )
            talk, lines = parse.answer(ran.stdout, ran.stderr)
            if talk is Talk.NO_DAEMON and must_answer:
                raise DaemonGone(self._name(server), "control daemon has gone", commands[0])
            if talk is not Talk.BUSY:
                return talk, lines
            if time.monotonic() >= deadline:
                raise self._error(server, f"control daemon is busy for {_TALK_TIMEOUT:g} s", commands[0])
            time.sleep(_RETRY)

    def _talk(self, server: ServerId, stdin: bytes, *, timeout: float) -> Ran:
        """One run of the control program as the owner of the pipe directory, under the colour's own lock."""
        pipe = self.pipe(server)
        env = self._environ | {"CUDA_MPS_PIPE_DIRECTORY": pipe, "CUDA_MPS_LOG_DIRECTORY": self.logs(server)}
        with self._locks.talk(server, timeout=timeout):
            try:
                info = os.lstat(pipe)
            except FileNotFoundError:
                raise self._error(server, "is closed", pipe) from None
            run_as = RunAs(uid=info.st_uid, gid=info.st_gid)
            return run([self._settings.paths.mps_control], stdin=stdin, env=env, timeout=timeout, run_as=run_as)

    def _look(
        self, server: ServerId, start_for: int | None = None, *, must_answer: bool = False
    ) -> tuple[ServerState, str]:
        """State (ABSENT also without its SM partitions), and what the daemon complained of. `start_for`: ask for a server
        of this user first. One conversation when the server is the one of the last look."""
        known = self._server.get(server)
        commands = [] if start_for is None else [f"start_server -uid {start_for}"]
        commands += ["get_server_list"] if known is None else ["get_server_list", f"get_server_status {known}"]
        cut = self.partitions.question(server) if known is not None and start_for is None else ()
        _, lines = self._ask(server, *commands, *cut, must_answer=must_answer or start_for is not None)
        servers = parse.pids(lines)
        if servers and servers == (known,):
            state = self._server_state(server, servers[0], lines)
            lost = cut and state is ServerState.ACTIVE and not self.partitions.answered(server, lines)
            return ServerState.ABSENT if lost else state, ""
        if not servers:
            self._server.pop(server, None)
            return ServerState.ABSENT, "" if cut else parse.complaint(lines)
        self._server[server] = servers[-1]
        states = [self._server_state(server, pid, self._ask(server, f"get_server_status {pid}")[1]) for pid in servers]
        if ServerState.ACTIVE not in states:
            return states[-1], ""
        return ServerState.ACTIVE if self.partitions.whole(server) else ServerState.ABSENT, ""

    def _server_state(self, server: ServerId, pid: int, lines: tuple[str, ...]) -> ServerState:
        word = parse.status(lines)
        if word is None:
            word = parse.state_in_logs(self._control_log(server), self._server_log(server), pid)
        return ServerState(word)

    def _is_ours(self, server: ServerId, owner: int) -> Callable[[Seen], bool]:
        pipe = self.pipe(server)

        def ours(seen: Seen) -> bool:
            named = seen.name.startswith(_PROGRAM)
            return named and seen.uid == owner and seen.environ.get("CUDA_MPS_PIPE_DIRECTORY") == pipe

        return ours

    def _control_log(self, server: ServerId) -> str:
        return read_or_empty(f"{self.logs(server)}/control.log")

    def _server_log(self, server: ServerId) -> str:
        return read_or_empty(f"{self.logs(server)}/server.log")

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

    def _name(self, server: ServerId) -> str:
        return f"mps {server.domain}/g{server.gpu}/{server.color}"

    def _error(self, server: ServerId, wrong: str, observed: object, *, hint: str = "") -> MpsControlError:
        return MpsControlError(self._name(server), wrong, observed, hint=hint)
