"""The MPS control daemons of a node: ports.Mps over NVIDIA's `nvidia-cuda-mps-control`.

One daemon with one server for each ServerId, in directories of its own; never the default ones. The conversations are
those of mps_talk.py. What the control program is known to do, and what is done about it:

- exit status 0 proves nothing: the answers are read, and quit is believed when the processes have gone;
- sockets of a dead daemon stay, and clients then run without MPS *silently*: a daemon that does not answer is cleared;
- removing the directories of a living daemon orphans it: they go when its processes have gone;
- start_server returns at once: ready means get_server_status says ACTIVE (535: its logs say so);
- the daemon finds nvidia-cuda-mps-server on PATH alone, and a hook's PATH is short: it gets a longer one;
- a driver without static SM partitions takes -S for a question or prints its help, with status 0: they are there when
  the daemon lists them.

Guarantees: `open` leaves an ACTIVE server or nothing; `close` leaves nothing or says what; both are idempotent, hold
the domain's lock, and end within the settings' times. Failures are MpsControlError with the driver's own reason.
"""

import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress

from resilience.adapters.linux.commands import RunAs, raise_open_files
from resilience.adapters.linux.discards import Discards
from resilience.adapters.linux.guarded_files import make_dir, make_dirs
from resilience.adapters.linux.processes import ObservedProcess, end, living, parent, wait_gone
from resilience.adapters.mps.domain_locks import DomainLocks, talk_lock
from resilience.adapters.mps.mps_talk import ANSWER_SECONDS, RETRY, TALK_TIMEOUT, ControlProgram
from resilience.adapters.mps.sm_partitions import SmPartitions
from resilience.model.errors import DaemonGone, MpsControlError, ServerFaulted
from resilience.model.ids import GpuUuid, NodeName, ProcessId, ServerId
from resilience.model.settings import Settings
from resilience.model.world import ServerState
from resilience.parse import mps_control as parse
from resilience.parse.mps_control import Talk
from resilience.ports import ServerOwner

_MULTIUSER = (("-multiuser-server",), ("--multiuser-server",))
"""How the option is written: in the documents and 550, and in the help of 580. A program that does not know one of them starts
nothing, prints its help, and ends with status 0 (580)."""
_POLL_FIRST, _POLL_MOST = 0.02, 0.1
"""Seconds between two questions to a daemon whose server starts (0.2 to 0.3 s on a T4 and an A16)."""
_LOG_POLL = 0.002
"""Seconds between two looks into control.log meanwhile."""
_GRACE = 1.0
"""Seconds between SIGTERM and SIGKILL for a daemon that quit did not end."""
_NAMED = 4
"""Processes that a message names."""
_SUN_PATH = 107
"""Bytes that a socket's path may have (unix(7)); beyond it the daemon fails without a message."""
_LONGEST_SOCKET = "control_privileged"
SERVER_PROGRAM = "nvidia-cuda-mps-server"
_PROGRAM = "nvidia-cuda-mps"
"""Name of daemon and server as /proc shows it: the first 15 characters of both."""


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
        self._locks = locks
        self._program = ControlProgram(settings, node, locks, environ)
        self._say = say
        self._discards = Discards(node, run=settings.paths.run, log=settings.paths.log)
        self.partitions = SmPartitions(
            settings.paths.run,
            node,
            lambda server, *commands: self._program.ask(server, *commands, must_answer=True)[1],
        )
        self.ended: dict[ServerId, str] = {}
        """What was ended with a server and is not NVIDIA's, in words."""
        self._server: dict[ServerId, int] = {}
        """Each daemon's server at the last look: saves a conversation, decides nothing."""

    # ------------------------------------------------------------------------------------------------ asking

    def pipe(self, server: ServerId) -> str:
        return self._program.pipe(server)

    def logs(self, server: ServerId) -> str:
        return self._program.logs(server)

    def partition(self, server: ServerId, slot: int) -> str:
        return self.partitions.value(server, slot)

    def state(self, server: ServerId) -> ServerState:
        return self._look(server)[0]

    def clients(self, server: ServerId) -> tuple[int, ...]:
        found: list[int] = []
        for pid in self.servers(server):
            _, lines = self._program.ask(server, f"get_client_list {pid}")
            found += parse.pids(lines)
        return tuple(found)

    def servers(self, server: ServerId) -> tuple[int, ...]:
        """Process ids of the daemon's servers; one, but for the moment of a change."""
        _, lines = self._program.ask(server, "get_server_list")
        return parse.pids(lines)

    def end_clients(self, server: ServerId, meant: Callable[[int], bool]) -> tuple[int, ...]:
        until = time.monotonic() + ANSWER_SECONDS
        ended: list[int] = []
        for one in parse.pids(self._program.ask(server, "get_server_list", until=until)[1]):
            _, lines = self._program.ask(server, f"get_client_list {one}", until=until)
            pids = [pid for pid in parse.pids(lines) if meant(pid)]
            if not pids:
                continue
            _, said = self._program.ask(server, *(f"terminate_client {one} {pid}" for pid in pids), until=until)
            ended += pids
            if not parse.terminated(said, len(pids)):  # it may have ended by itself meanwhile
                _, lines = self._program.ask(server, f"get_client_list {one}", until=until)
                if not set(pids).isdisjoint(parse.pids(lines)):
                    raise self._program.error(
                        server, "terminate_client is refused", " ".join(said)[:200] or "no answer"
                    )
        return tuple(ended)

    def daemon(self, server: ServerId) -> ProcessId | None:
        """The parent of the server, when it is proven to be this pipe directory's (drivers before 550 write no pid).

        Where the two are seen as parent and child nobody is asked: a task may wait for the answer.
        """
        if os.path.lexists(f"{self.pipe(server)}/control"):
            seen_here = {seen.process.pid: seen.process for seen in self.processes(server)}
            for pid in seen_here:
                if (above := seen_here.get(parent(pid) or 0)) is not None:
                    return above
        talk, lines = self._program.ask(server, "get_server_list")
        if talk is Talk.NO_DAEMON:
            return None
        parents = {parent(pid) for pid in parse.pids(lines)}
        for seen in self.processes(server):
            if seen.process.pid in parents:
                return seen.process
        raise self._program.error(server, "control daemon cannot be told from others", "it has no server")

    def processes(self, server: ServerId) -> tuple[ObservedProcess, ...]:
        """Daemon and servers that are proven to be those of this pipe directory."""
        try:
            owner = os.lstat(self.pipe(server)).st_uid
        except FileNotFoundError:
            return ()
        meant = self._is_ours(server, owner)
        return tuple(seen for seen in living(owner) if meant(seen))

    # ------------------------------------------------------------------------------------------------ opening

    def open(self, server: ServerId, uuids: tuple[GpuUuid, ...], owner: ServerOwner, *, in_use: bool = False) -> None:
        """See ports.Mps. `in_use`: others hold leases on it, so nothing that lives is ended to have it, and while it is in
        its fault state that is told at once (ServerFaulted): the agent needs the domain to recover them."""
        pipe = self.pipe(server)
        if len(os.fsencode(f"{pipe}/{_LONGEST_SOCKET}")) > _SUN_PATH:
            raise self._program.error(
                server, f"path of its sockets is longer than {_SUN_PATH} bytes", pipe, hint="choose a shorter paths.run"
            )
        with self._locks.domain(server.domain, timeout=self._settings.mps.start_timeout):
            if os.path.lexists(pipe):
                if self._take_over(server, owner, in_use=in_use):
                    return
                with self._nobody_talks(server):
                    alive = self.processes(server)
                if in_use and alive:
                    raise self._program.error(
                        server,
                        "is not ACTIVE, and other jobs use it",
                        ", ".join(map(str, alive)),
                        hint="the node agent repairs it: see mpsr log",
                    )
                self._clear_or_raise(server)
            try:
                self._start_anew(server, uuids, owner)
            except DaemonGone:  # somebody has killed it: that happens once
                self._start_anew(server, uuids, owner)

    def _start_anew(self, server: ServerId, uuids: tuple[GpuUuid, ...], owner: ServerOwner) -> None:
        """An ACTIVE server, or nothing and an MpsControlError."""
        try:
            self._start(server, uuids, owner)
            self.partitions.cut(server, uuids[0])
            self._await_active(server, owner, self._settings.mps.start_timeout)
        except (MpsControlError, OSError) as error:
            left = self._clear(server)
            if isinstance(error, MpsControlError) and not left:
                raise
            raise self._program.error(server, "cannot be opened", "; ".join([str(error), *left])) from error

    def _take_over(self, server: ServerId, owner: ServerOwner, *, in_use: bool) -> bool:
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
            if in_use and state is ServerState.FAULT:
                raise ServerFaulted(self._program.name(server), "is in its fault state, and other jobs use it")
            if state is ServerState.ABSENT:
                self._await_active(server, owner, mps.start_timeout)
            else:
                patience = mps.rebuild_timeout if state is ServerState.FAULT else mps.start_timeout
                self._await_active(server, owner, patience, state)
        except ServerFaulted:
            raise
        except MpsControlError:
            return False
        return True

    def _start(self, server: ServerId, uuids: tuple[GpuUuid, ...], owner: ServerOwner) -> None:
        pipe, logs = self.pipe(server), self.logs(server)
        make_dir(os.path.dirname(pipe))
        with self._nobody_talks(server):
            make_dir(pipe, mode=0o755 if owner.shared else 0o700, uid=owner.uid, gid=owner.gid)
        try:
            self._discards.discard(logs)
            make_dirs(os.path.dirname(logs))
            make_dir(logs, mode=0o755 if owner.shared else 0o700, uid=owner.uid, gid=owner.gid)
        except OSError as error:
            self._say(f"{self._program.name(server)}: no log directory, faults will have no named culprit: {error}")
        raise_open_files()
        run_as = RunAs(uid=owner.uid, gid=owner.gid)
        cut = ["-S"] if self.partitions.share(server) is not None else []
        for options in _MULTIUSER if owner.shared else ((),):
            words = ["-d", *options, *cut]
            ran = self._program.run(
                server,
                run_as,
                *words,
                stdin=b"",
                timeout=self._settings.mps.start_timeout,
                more={"CUDA_VISIBLE_DEVICES": ",".join(uuids)},
            )
            output = f"{ran.stdout} {ran.stderr}".strip()
            if not parse.unknown_option(output):
                break
        # A program without -S is found out when its daemon lists no partitions.
        refused = parse.unknown_option(output) and not cut
        if ran.timed_out or ran.status != 0 or refused:
            what = "control daemon did not start in time" if ran.timed_out else "control daemon did not start"
            argv = " ".join([self._settings.paths.mps_control, *words])
            observed = f"{argv}: status {ran.status}" + (f", {output[:200]}" if output else "")
            raise self._program.error(server, what, observed, hint=parse.start_hint(ran.status, output))
        if "No logs will be available" in output:
            self._say(f"{self._program.name(server)}: {output[:200]}")

    def _await_active(
        self, server: ServerId, owner: ServerOwner, timeout: float, seen: ServerState | None = None
    ) -> None:
        """Ask for a server, unless one was `seen`, and wait until it is ACTIVE. Raises when it dies or is late."""
        deadline = time.monotonic() + timeout
        died_before = parse.deaths(self._program.control_log(server))
        state, complaint = (seen, "") if seen else self._look(server, owner.uid)
        poll = _POLL_FIRST
        while state is not ServerState.ACTIVE:
            if complaint:
                raise self._program.error(server, "control daemon refuses to start a server", complaint)
            if state is ServerState.ABSENT and parse.deaths(self._program.control_log(server)) > died_before:
                raise self._ended_at_once(server)
            if time.monotonic() >= deadline:
                raise self._program.error(
                    server, f"server is not ACTIVE after {timeout:g} s", state.value, hint=f"see {self.logs(server)}"
                )
            self._await_news(server, died_before, poll)
            poll = min(poll * 1.5, _POLL_MOST)
            state, complaint = self._look(server, must_answer=True)

    def _ended_at_once(self, server: ServerId) -> MpsControlError:
        """Why a server did not live: what its log says, or that there is no program to start."""
        import shutil  # costs a prolog milliseconds, for an error alone

        path = self._program.environ["PATH"]
        if shutil.which(SERVER_PROGRAM, path=path) is None:
            hint = f"install {SERVER_PROGRAM} beside the control program, or set paths.mps_control in mpsr.yaml"
            return self._program.error(server, f"control daemon finds no {SERVER_PROGRAM} on its PATH", path, hint=hint)
        why = parse.reason(self._program.server_log(server)) or "its log does not say why"
        return self._program.error(server, "server ended at once", why, hint=f"see server.log in {self.logs(server)}")

    def _await_news(self, server: ServerId, died_before: int, most: float) -> None:
        """Until control.log tells of a server that reported in or died, at most `most` seconds.

        Only saves conversations: what counts is what the daemon then says.
        """
        until = time.monotonic() + most
        while time.monotonic() < until:
            log = self._program.control_log(server)
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
            raise self._program.error(server, "what is left of it cannot be cleared away", "; ".join(left))

    def _clear(self, server: ServerId) -> tuple[str, ...]:
        """Quit, end, prove, remove."""
        pipe = self.pipe(server)
        if not os.path.lexists(pipe):
            return ()
        owner = os.lstat(pipe).st_uid
        if self.processes(server):
            self.partitions.remove(server)
            self._quit(server)
        with self._nobody_talks(server):
            end(self.processes(server), grace=_GRACE, still_meant=self._is_ours(server, owner))
            if left := (*self.processes(server), *self._end_enclosure(server)):
                return tuple(dict.fromkeys(f"{seen} of {pipe}" for seen in left))
            self.partitions.forget(server)
            wrong = self._discards.discard(pipe)
        if wrong:
            return (wrong,)
        with suppress(FileNotFoundError):
            os.unlink(talk_lock(pipe))
        return ()

    def _end_enclosure(self, server: ServerId) -> tuple[ObservedProcess, ...]:
        """End what the daemon has turned into or started besides its servers; what outlives that."""
        pipe, enclosures = self.pipe(server), self._program.enclosures
        if strangers := enclosures.inside(server, pipe):
            names = ", ".join(map(str, strangers[:_NAMED]))
            more = f" and {len(strangers) - _NAMED} more" if len(strangers) > _NAMED else ""
            self.ended[server] = f"{names}{more}"
            self._say(f"{self._program.name(server)}: what has become of its daemon is ended: {names}{more}")
        left = enclosures.end(server, pipe, _GRACE)
        if not left:
            enclosures.remove(server)
        return left

    def _nobody_talks(self, server: ServerId) -> AbstractContextManager[None]:
        """A conversation, such as the agent's, is a process that looks like a daemon: none is under way meanwhile."""
        return self._locks.talk(server, timeout=2 * TALK_TIMEOUT, create=True)

    def _quit(self, server: ServerId) -> None:
        """Ask the daemon to end and wait for its processes; asks again as long as nobody has taken note."""
        deadline = time.monotonic() + self._settings.mps.quit_timeout
        noted_before = parse.quits(self._program.control_log(server))
        patience = max(1, int(self._settings.mps.quit_timeout / 2))
        while (left := deadline - time.monotonic()) > 0:
            ran = self._program.talk(
                server, f"quit -t {patience}\n".encode(), timeout=min(left, patience + TALK_TIMEOUT)
            )
            talk, _ = parse.answer(ran.stdout, ran.stderr)
            noted = parse.quits(self._program.control_log(server)) > noted_before
            left = deadline - time.monotonic()
            gone = not wait_gone((seen.process for seen in self.processes(server)), left if noted else RETRY)
            if gone or noted or talk is Talk.NO_DAEMON or ran.timed_out:
                return

    # ------------------------------------------------------------------------------------------------ conversation

    def _look(
        self, server: ServerId, start_for: int | None = None, *, must_answer: bool = False
    ) -> tuple[ServerState, str]:
        """State (ABSENT also without its SM partitions), and what the daemon complained of. `start_for`: ask for a server
        of this user first. One conversation when the server is the one of the last look."""
        known = self._server.get(server)
        commands = [] if start_for is None else [f"start_server -uid {start_for}"]
        commands += ["get_server_list"] if known is None else ["get_server_list", f"get_server_status {known}"]
        cut = self.partitions.question(server) if known is not None and start_for is None else ()
        _, lines = self._program.ask(server, *commands, *cut, must_answer=must_answer or start_for is not None)
        servers = parse.pids(lines)
        if servers and servers == (known,):
            state = self._server_state(server, servers[0], lines)
            lost = cut and state is ServerState.ACTIVE and not self.partitions.answered(server, lines)
            return ServerState.ABSENT if lost else state, ""
        if not servers:
            self._server.pop(server, None)
            return ServerState.ABSENT, "" if cut else parse.complaint(lines)
        self._server[server] = servers[-1]
        states = [
            self._server_state(server, pid, self._program.ask(server, f"get_server_status {pid}")[1]) for pid in servers
        ]
        if ServerState.ACTIVE not in states:
            return states[-1], ""
        return ServerState.ACTIVE if self.partitions.whole(server) else ServerState.ABSENT, ""

    def _server_state(self, server: ServerId, pid: int, lines: tuple[str, ...]) -> ServerState:
        word = parse.status(lines)
        if word is None:
            word = parse.state_in_logs(self._program.control_log(server), self._program.server_log(server), pid)
        return ServerState(word)

    def _is_ours(self, server: ServerId, owner: int) -> Callable[[ObservedProcess], bool]:
        pipe = self.pipe(server)

        def ours(seen: ObservedProcess) -> bool:
            named = seen.name.startswith(_PROGRAM)
            return named and seen.uid == owner and seen.environ.get("CUDA_MPS_PIPE_DIRECTORY") == pipe

        return ours
