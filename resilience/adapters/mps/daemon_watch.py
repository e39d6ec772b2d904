"""The deaths of MPS control daemons, through pidfds: a daemon that is killed leaves its sockets and writes no last line,
and whoever then joins runs without MPS, silently.

One descriptor that is readable when a daemon has ended; nothing is asked and nothing is polled. A process number that
was given to another process in between counts as the daemon's end.
"""

import os
import select

from resilience.adapters.linux.processes import starttime
from resilience.model.ids import Process, ServerId


class DaemonWatch:
    """ports.Daemons."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._early = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._early, select.EPOLLIN)
        self._fds: dict[ServerId, int] = {}
        self._gone: list[ServerId] = []

    def fileno(self) -> int:
        return self._epoll.fileno()

    def watch(self, server: ServerId, daemon: Process | None) -> None:
        """Follow this process as the server's daemon, in place of an earlier one."""
        self.unwatch(server)
        fd = _opened(daemon) if daemon is not None else -1
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

    def read(self) -> tuple[ServerId, ...]:
        """Servers whose daemon has ended since; each is told once."""
        ended = {fd for fd, _ in self._epoll.poll(0)}
        if self._early in ended:
            os.eventfd_read(self._early)
        told = [*self._gone, *(server for server, fd in self._fds.items() if fd in ended)]
        for server in told:
            self.unwatch(server)
        return tuple(told)

    def close(self) -> None:
        for server in list(self._fds):
            self.unwatch(server)
        os.close(self._early)
        self._epoll.close()


def _opened(daemon: Process) -> int:
    """A descriptor of this very process; -1 when it has ended."""
    try:
        fd = os.pidfd_open(daemon.pid)
    except ProcessLookupError:
        return -1
    if starttime(daemon.pid) == daemon.starttime:
        return fd
    os.close(fd)
    return -1
