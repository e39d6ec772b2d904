"""The hook server's socket: takes the prologs and epilogs of a node and forks a process for each, with all that they
import already there (protocols.md, "Hook server").

Relies on root alone reaching the socket (0600; the kernel names the peer, too). Guarantees: one thread, so that forking is
safe; a request that does not come whole within a second, or is none, is dropped; a forked process has the caller's
standard output and error, and a session of its own, which is ended with all it started when the caller goes away. A
caller that is dropped does the work itself.
"""

import os
import signal
import socket
import struct
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import NoReturn

from resilience.adapters.linux.readable import readable
from resilience.model.errors import ResilienceError
from resilience.parse import ucred

NAMES = ("prolog", "epilog")
_TAKEN = b"a"
_STREAMS = 2
"""Descriptors that come with a request: standard output and standard error."""
_PATIENCE = 1.0
"""Seconds that a caller has for its request, and that it gives us to take it."""
_GIVES_WAY = 19
_MOST_OPEN = 1 << 16
"""Descriptors that are closed: the server has a dozen."""
_MOST = 1 << 20
"""Bytes of a request: Linux gives a process 2 MiB of environment and arguments at most, slurmd a few KiB."""
_LENGTH = struct.Struct("=I")


class HookServer:
    """Serves until a descriptor becomes readable. `current` says whether this process still is what the disk holds;
    `after` is done at the start and after each hook, by a process that nobody waits for."""

    def __init__(
        self,
        path: str,
        work: Callable[[str, Mapping[str, str]], int],
        *,
        current: Callable[[], bool],
        after: Callable[[], None],
    ) -> None:
        self._work = work
        self._after = after
        self._current = current
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        beside = f"{path}.new"
        try:
            with suppress(FileNotFoundError):
                os.unlink(beside)
            self._listener.bind(beside)
            os.chmod(beside, 0o600)
            self._listener.listen(64)
            os.rename(beside, path)  # over the socket of a server that has ended: no caller finds none
        except OSError as error:
            raise ResilienceError("hook server", "cannot be opened", f"{path}: {error.strerror or error}") from error

    def run(self, stop: int) -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forked: the kernel reaps them
        if os.fork() == 0:
            _go_on(self._after)
        while True:
            ready = readable(stop, self._listener.fileno())
            if stop in ready:
                return
            with suppress(OSError):
                connection, _ = self._listener.accept()
                with connection:
                    self._serve(connection)

    def close(self) -> None:
        self._listener.close()

    def _serve(self, connection: socket.socket) -> None:
        """Raises OSError for a caller that is not to be served; it then sees its connection end."""
        uid = ucred.peer(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, ucred.SIZE)).uid
        if uid != os.geteuid() or not self._current():
            return
        connection.settimeout(_PATIENCE)
        data, streams = _request(connection)
        try:
            name, *entries = data.split(b"\0")
            if name.decode("ascii", "replace") not in NAMES or len(streams) != _STREAMS:
                return
            connection.sendall(_TAKEN)
            if os.fork() == 0:
                self._listener.close()
                _become(name.decode(), entries[:-1], streams, connection, self._work)
                _go_on(self._after)
        finally:
            for stream in streams:
                os.close(stream)


def _request(connection: socket.socket) -> tuple[bytes, list[int]]:
    data, streams, _, _ = socket.recv_fds(connection, 1 << 16, _STREAMS, socket.MSG_CMSG_CLOEXEC)
    try:
        while len(data) < _LENGTH.size or len(data) < _LENGTH.size + _LENGTH.unpack_from(data)[0]:
            chunk = connection.recv(1 << 16)
            if not chunk or len(data) > _MOST:
                raise ConnectionError("a request that does not come whole")
            data += chunk
    except OSError:
        for stream in streams:
            os.close(stream)
        raise
    return data[_LENGTH.size :], streams


def _become(
    name: str,
    entries: list[bytes],
    streams: list[int],
    connection: socket.socket,
    work: Callable[[str, Mapping[str, str]], int],
) -> None:
    """The forked process up to its answer: raises nothing, whatever happens."""
    status, done = 1, threading.Event()
    try:
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number, stream in enumerate([os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), *streams]):
            os.dup2(stream, number)
        connection.settimeout(None)
        threading.Thread(target=_end_with, args=(connection, done), daemon=True).start()
        pairs = (os.fsdecode(entry).partition("=") for entry in entries)
        status = work(name, {key: value for key, _, value in pairs})
        sys.stdout.flush()
    except BaseException:  # nothing may run on in a copy of the server
        with suppress(OSError):
            traceback.print_exc()
    done.set()
    with suppress(OSError):
        sys.stderr.flush()
        connection.sendall(bytes([status & 0xFF]))


def _go_on(after: Callable[[], None]) -> NoReturn:
    """The forked process from then on, in a copy without its threads: it keeps nothing of the caller's open, and gives
    way to everybody."""
    try:
        if os.fork() == 0:
            os.closerange(0, _MOST_OPEN)
            os.open(os.devnull, os.O_RDWR)
            os.dup(0)
            os.dup(0)
            os.setpriority(os.PRIO_PROCESS, 0, _GIVES_WAY)
            after()
    finally:
        os._exit(0)


def _end_with(connection: socket.socket, done: threading.Event) -> None:
    """A caller says no more after its request: what comes is its end. Before the work is done that is the end of the work
    and of all that it has started; afterwards what it has started stays, such as daemons."""
    with suppress(OSError):
        connection.recv(1)
    if not done.is_set():
        os.killpg(0, signal.SIGKILL)
