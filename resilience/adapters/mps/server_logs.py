"""control.log and server.log of every open domain, followed with inotify as the daemons write them.

A directory that does not exist yet is waited for at its nearest existing parent. The files lie in directories of
users, so they are opened as inotify.py says. A line is handed on once, when it is complete. A domain whose logs cost too
much is left alone for a second (turns.py); of what came meanwhile the end is read then. The quiet come first.
"""

import os
import select
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from resilience.adapters.linux.alarm import Alarm
from resilience.adapters.linux.inotify import Inotify, Tail
from resilience.adapters.linux.turns import Turns
from resilience.model.ids import DomainKey, ServerId
from resilience.ports import ServerLine

_PAST = 1 << 18
"""Bytes at the end of a log that are handed on when following begins: who has connected so far."""
_PAST_LINES = 1000
MOST = 4000
"""Units of one domain in a second, some 60 ms of work. A fault of 60 clients, with a server that is asked for its state, costs
some 500; two servers that start and are cut into partitions, each line seen alone, more than 1000."""
_LOOK = 4
_BYTES = 4096
"""So many cost as much as a line."""
_LINES = 400
"""Lines of one file that are read at a time. A fault of 60 clients writes some 300."""


@dataclass(slots=True)
class _Watched:
    directory: str
    tails: tuple[tuple[bool, Tail], ...]
    numbers: set[int] = field(default_factory=set)


class ServerLogFollower:
    """ServerLogs port."""

    def __init__(self, now: Callable[[], float] = time.monotonic, *, most: int = MOST) -> None:
        self._now = now
        self._notify = Inotify()
        self._alarm = Alarm()
        self._epoll = select.epoll()
        for fd in (self._notify.fd, self._alarm.fd):
            self._epoll.register(fd, select.EPOLLIN)
        self._watched: dict[ServerId, _Watched] = {}
        self._turns: Turns[DomainKey] = Turns(most)

    def fileno(self) -> int:
        return self._epoll.fileno()

    def watch(self, server: ServerId, directory: str) -> tuple[ServerLine, ...]:
        known = self._watched.get(server)
        resting = self._turns.rests(server.domain)
        if known is not None and known.directory == directory:
            if not resting:
                self._arm(known)
            return ()
        self.unwatch(server)
        room = os.path.dirname(os.path.dirname(directory))
        tails = (
            (True, Tail(os.path.join(directory, "control.log"), lines=_LINES, room=room)),
            (False, Tail(os.path.join(directory, "server.log"), lines=_LINES, room=room)),
        )
        known = _Watched(directory=directory, tails=tails)
        self._watched[server] = known
        if not resting:
            self._arm(known)
        found: list[ServerLine] = []
        for control, tail in tails:
            texts = tail.skip(0 if resting else _PAST, most=_PAST_LINES)
            self._turns.spend(server.domain, _units(len(texts), tail.size), self._now())
            found += [ServerLine(server=server, control=control, text=text) for text in texts]
        return tuple(found)

    def unwatch(self, server: ServerId) -> None:
        known = self._watched.pop(server, None)
        if known is None:
            return
        for _, tail in known.tails:
            tail.close()
        for number in known.numbers - self._used():
            self._notify.remove(number)

    def read(self) -> tuple[ServerLine, ...]:
        numbers, now = self._notify.read(), self._now()
        self._alarm.read()
        touched, woken = {number for number, _ in numbers}, self._turns.woken(now)
        lines: dict[DomainKey, list[ServerLine]] = {}
        for server, known in self._watched.items():
            if not known.numbers & touched and server.domain not in woken:
                continue
            known.numbers -= {number for number, gone in numbers if gone}
            if not self._turns.rests(server.domain):
                self._arm(known)
                lines.setdefault(server.domain, []).extend(self._lines(server, known, now))
        self._lay_to_rest(now)
        return tuple(line for mine in sorted(lines.values(), key=len) for line in mine)

    def _lines(self, server: ServerId, known: _Watched, now: float) -> list[ServerLine]:
        """What is new in a server's logs, until its domain's turn is over."""
        found: list[ServerLine] = []
        for control, tail in known.tails:
            if not self._turns.rests(server.domain):
                texts = tail.read()
                self._turns.spend(server.domain, _units(len(texts), tail.size), now)
                found += [ServerLine(server=server, control=control, text=text) for text in texts]
        return found

    def _lay_to_rest(self, now: float) -> None:
        """Not even the news that something was written wakes us for a domain that rests."""
        if (seconds := self._turns.wait(now)) is None:
            return
        self._alarm.set(seconds)
        for server, known in self._watched.items():
            if self._turns.rests(server.domain) and known.numbers:
                old, known.numbers = known.numbers, set()
                for number in old - self._used():
                    self._notify.remove(number)

    def close(self) -> None:
        for server in list(self._watched):
            self.unwatch(server)
        self._epoll.close()
        self._alarm.close()
        self._notify.close()

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


def _units(lines: int, size: int) -> int:
    """What a look at a file cost, whatever is in its lines."""
    return _LOOK + lines + size // _BYTES
