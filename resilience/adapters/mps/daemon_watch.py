"""The deaths of MPS control daemons, through pidfds: a daemon that is killed leaves its sockets and writes no last line,
and whoever then joins runs without MPS, silently. A daemon whose socket was removed lives on, and nobody can join it:
that counts as its end, and shows by inotify.

One descriptor that is readable when a daemon has ended; nothing is asked and nothing is polled. A process number that
was given to another process in between counts as the daemon's end. The directory is the user's: one in which things come
and go without an end is not looked at any more.
"""

import os
import select
from dataclasses import dataclass

from resilience.adapters.linux.inotify import REMOVALS, Inotify
from resilience.adapters.linux.processes import starttime
from resilience.model.ids import ProcessId, ServerId

_SOCKET = "control"
"""What clients ask the daemon for a server through."""
_NEWS = 1000
"""Times that something is removed from a directory while the socket is there; a daemon's life has a handful."""


@dataclass(slots=True)
class _Pipe:
    server: ServerId
    socket: str
    news: int = 0


class DaemonWatch:
    """ports.Daemons."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._early = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._early, select.EPOLLIN)
        self._fds: dict[ServerId, int] = {}
        self._notify = Inotify()
        self._epoll.register(self._notify.fd, select.EPOLLIN)
        self._pipes: dict[int, _Pipe] = {}
        self._gone: list[ServerId] = []

    def fileno(self) -> int:
        return self._epoll.fileno()

    def watch(self, server: ServerId, daemon: ProcessId | None, pipe: str = "") -> None:
        """Follow this process as the server's daemon, in place of an earlier one. `pipe`: its directory."""
        self.unwatch(server)
        fd = _opened(daemon) if daemon is not None else -1
        number = self._notify.add(pipe, REMOVALS) if fd >= 0 and pipe else None
        if number is not None:
            self._pipes[number] = _Pipe(server=server, socket=f"{pipe}/{_SOCKET}")
            if not os.path.lexists(self._pipes[number].socket):  # removed before it was followed
                self._forget(number)
                os.close(fd)
                fd = -1
        if fd >= 0:
            self._fds[server] = fd
            self._epoll.register(fd, select.EPOLLIN)
            return
        self._gone.append(server)
        os.eventfd_write(self._early, 1)

    def unwatch(self, server: ServerId) -> None:
        self._gone = [other for other in self._gone if other != server]
        if (fd := self._fds.pop(server, -1)) >= 0:
            self._epoll.unregister(fd)
            os.close(fd)
        for number in [number for number, pipe in self._pipes.items() if pipe.server == server]:
            self._forget(number)

    def _forget(self, number: int) -> None:
        del self._pipes[number]
        self._notify.remove(number)

    def _removed(self) -> list[ServerId]:
        """Servers whose socket is not there any more."""
        found: list[ServerId] = []
        for number in {number for number, _ in self._notify.read()}:
            if (pipe := self._pipes.get(number)) is None:
                continue
            pipe.news += 1
            if not os.path.lexists(pipe.socket):
                found.append(pipe.server)
            elif pipe.news >= _NEWS:
                self._forget(number)
        return found

    def read(self) -> tuple[ServerId, ...]:
        """Servers whose daemon has ended since; each is told once."""
        ended = {fd for fd, _ in self._epoll.poll(0)}
        if self._early in ended:
            os.eventfd_read(self._early)
        removed = self._removed() if self._notify.fd in ended else []
        told = dict.fromkeys([*self._gone, *(server for server, fd in self._fds.items() if fd in ended), *removed])
        for server in told:
            self.unwatch(server)
        return tuple(told)

    def close(self) -> None:
        for server in list(self._fds):
            self.unwatch(server)
        os.close(self._early)
        self._notify.close()
        self._epoll.close()


def _opened(daemon: ProcessId) -> int:
    """A descriptor of this very process; -1 when it has ended."""
    try:
        fd = os.pidfd_open(daemon.pid)
    except ProcessLookupError:
        return -1
    if starttime(daemon.pid) == daemon.starttime:
        return fd
    os.close(fd)
    return -1
