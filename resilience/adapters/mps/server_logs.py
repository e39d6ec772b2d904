"""control.log and server.log of every open domain, followed with inotify as the daemons write them.

A directory that does not exist yet is waited for at its nearest existing parent. The files lie in directories of
users, so they are opened as inotify.py says. A line is handed on once, when it is complete.
"""

import os
from dataclasses import dataclass, field

from resilience.adapters.linux.inotify import Inotify, Tail
from resilience.model.ids import ServerId
from resilience.ports import ServerLine

_PAST = 1 << 18
"""Bytes at the end of a log that are handed on when following begins: who has connected so far."""


@dataclass(slots=True)
class _Watched:
    directory: str
    tails: tuple[tuple[bool, Tail], ...]
    numbers: set[int] = field(default_factory=set)


class ServerLogFollower:
    """ServerLogs port."""

    def __init__(self) -> None:
        self._notify = Inotify()
        self._watched: dict[ServerId, _Watched] = {}

    def fileno(self) -> int:
        return self._notify.fd

    def watch(self, server: ServerId, directory: str) -> tuple[ServerLine, ...]:
        known = self._watched.get(server)
        if known is not None and known.directory == directory:
            self._arm(known)
            return ()
        self.unwatch(server)
        room = os.path.dirname(os.path.dirname(directory))
        tails = (
            (True, Tail(os.path.join(directory, "control.log"), room=room)),
            (False, Tail(os.path.join(directory, "server.log"), room=room)),
        )
        known = _Watched(directory=directory, tails=tails)
        self._watched[server] = known
        self._arm(known)
        return tuple(
            ServerLine(server=server, control=control, text=line)
            for control, tail in tails
            for line in tail.skip(_PAST)
        )

    def unwatch(self, server: ServerId) -> None:
        known = self._watched.pop(server, None)
        if known is None:
            return
        for _, tail in known.tails:
            tail.close()
        for number in known.numbers - self._used():
            self._notify.remove(number)

    def read(self) -> tuple[ServerLine, ...]:
        numbers = self._notify.read()
        touched = {number for number, _ in numbers}
        lines: list[ServerLine] = []
        for server, known in self._watched.items():
            if not known.numbers & touched:
                continue
            known.numbers -= {number for number, gone in numbers if gone}
            self._arm(known)
            lines += [
                ServerLine(server=server, control=control, text=line)
                for control, tail in known.tails
                for line in tail.read()
            ]
        return tuple(lines)

    def close(self) -> None:
        for server in list(self._watched):
            self.unwatch(server)
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
