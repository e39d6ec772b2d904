"""control.log and server.log of every open domain, followed with inotify as the daemons write them.

A directory that does not exist yet is waited for at its nearest existing parent. The files lie in directories of
users, so they are opened as inotify.py says. A line is handed on once, when it is complete. What reading a user's logs costs
is told to the agent; one whom it does not hear is left alone, and the end of what came meanwhile is read then.
"""

import os
import select
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from resilience.adapters.linux.inotify import Inotify, Tail
from resilience.model.ids import ServerId
from resilience.ports import ServerLine

_PAST = 1 << 18
"""Bytes at the end of a log that are handed on when following begins: who has connected so far."""
_PAST_LINES = 1000
LINES = 400
"""Lines of one file that are read at a time. A fault of 60 clients writes some 300."""


@dataclass(slots=True)
class _Watched:
    uid: int
    directory: str
    tails: tuple[tuple[bool, Tail], ...]
    numbers: set[int] = field(default_factory=set)
    news: bool = False


class ServerLogFollower:
    """ServerLogs port. `cost`: CPU time of this thread in seconds."""

    def __init__(self, cost: Callable[[], float] = time.thread_time) -> None:
        self._cost = cost
        self._notify = Inotify()
        self._again = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll = select.epoll()
        for fd in (self._notify.fd, self._again):
            self._epoll.register(fd, select.EPOLLIN)
        self._watched: dict[ServerId, _Watched] = {}
        self._hushed: set[int] = set()
        self._costs: dict[int, float] = {}

    def fileno(self) -> int:
        return self._epoll.fileno()

    def watch(self, server: ServerId, directory: str, uid: int = 0) -> tuple[ServerLine, ...]:
        known = self._watched.get(server)
        if known is not None and known.directory == directory:
            if uid not in self._hushed:
                self._arm(known)
            return ()
        self.unwatch(server)
        room = os.path.dirname(os.path.dirname(directory))
        tails = tuple(
            (name == "control", Tail(os.path.join(directory, f"{name}.log"), lines=LINES, room=room))
            for name in ("control", "server")
        )
        known = _Watched(uid=uid, directory=directory, tails=tails)
        self._watched[server] = known
        if uid in self._hushed:
            for _, tail in tails:
                tail.skip(0)
            return ()
        self._arm(known)
        return self._lines(server, known, lambda tail: tail.skip(_PAST, most=_PAST_LINES))

    def unwatch(self, server: ServerId) -> None:
        known = self._watched.pop(server, None)
        if known is None:
            return
        for _, tail in known.tails:
            tail.close()
        for number in known.numbers - self._used():
            self._notify.remove(number)

    def read(self, busy: Collection[int] = ()) -> tuple[ServerLine, ...]:
        numbers = self._notify.read()
        with suppress(BlockingIOError):
            os.eventfd_read(self._again)
        touched, gone = {number for number, _ in numbers}, {number for number, gone in numbers if gone}
        found: list[ServerLine] = []
        full: set[int] = set(busy)
        for server, known in self._watched.items():
            if known.numbers & touched:
                known.news = True
                known.numbers -= gone
            if not known.news or known.uid in full or known.uid in self._hushed:
                continue
            self._arm(known)
            known.news = False
            lines = self._lines(server, known, Tail.read)
            found += lines
            if len(lines) >= LINES:
                full.add(known.uid)
        self._wake_again()
        return tuple(found)

    def _wake_again(self) -> None:
        """What a `read` has left is news, though nothing is written any more."""
        if any(known.news and known.uid not in self._hushed for known in self._watched.values()):
            os.eventfd_write(self._again, 1)

    def hush(self, uid: int) -> None:
        self._hushed.add(uid)
        for known in self._of(uid):
            old, known.numbers = known.numbers, set()
            for number in old - self._used():
                self._notify.remove(number)

    def listen(self, uid: int) -> None:
        self._hushed.discard(uid)
        for known in self._of(uid):
            known.news = True
            self._arm(known)
        self._wake_again()

    def costs(self) -> Mapping[int, float]:
        costs, self._costs = self._costs, {}
        return costs

    def close(self) -> None:
        for server in list(self._watched):
            self.unwatch(server)
        self._epoll.close()
        os.close(self._again)
        self._notify.close()

    def _of(self, uid: int) -> list[_Watched]:
        return [known for known in self._watched.values() if known.uid == uid]

    def _lines(self, server: ServerId, known: _Watched, read: Callable[[Tail], list[str]]) -> tuple[ServerLine, ...]:
        began, found = self._cost(), list[ServerLine]()
        for control, tail in known.tails:
            found += [ServerLine(server=server, control=control, text=text, uid=known.uid) for text in read(tail)]
        self._costs[known.uid] = self._costs.get(known.uid, 0.0) + self._cost() - began
        return tuple(found)

    def _used(self) -> set[int]:
        return {number for known in self._watched.values() for number in known.numbers}

    def _arm(self, known: _Watched) -> None:
        """Watch the directory, or while it is missing the nearest parent that is there."""
        path = known.directory
        while (number := self._notify.add(path)) is None and path not in ("/", ""):
            path = os.path.dirname(path)
        while path != known.directory:  # a level may have appeared meanwhile
            path = os.path.join(path, os.path.relpath(known.directory, path).split(os.sep, 1)[0])
            if (deeper := self._notify.add(path)) is None:
                break
            number = deeper
        old, known.numbers = known.numbers, {number} if number is not None else set()
        for stale in old - self._used():
            self._notify.remove(stale)
