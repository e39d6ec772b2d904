"""Spills of a running program: the copy to the host is made in the commit, the file is written beside the computation.

At most one write is in flight. A write that fails is told once on stderr and costs nothing else: the last whole file
stays, and the state is still with the keeper.
"""

import sys
import threading
from collections.abc import Mapping

from resilience.model.errors import StateError
from resilience.state import generations, spillfile
from resilience.state.record import Commit
from resilience.state.spillfile import SpillPlace
from resilience.state.stores import Content


class SpillThread:
    """`seconds` is the shortest time between two spills; 0 spills each commit, waiting for the one before."""

    def __init__(self, where: SpillPlace, seconds: float) -> None:
        self.where = where
        self._seconds = seconds
        self._last: float | None = None
        self._thread: threading.Thread | None = None
        self._told = ""
        self.written = -1
        """The commit that this process has put on disk last, or found there; -1: none."""
        spillfile.sweep(where)  # the process before this one may have been killed while it wrote

    def due(self, *, now: float, asked: bool) -> bool:
        """Shall this commit be spilled? The time counts from the first commit. `asked`: the supervisor wants one."""
        if self._last is None:
            self._last = now
        if asked or self._seconds == 0:
            self.join()
            return True
        return now - self._last >= self._seconds and self.idle

    @property
    def idle(self) -> bool:
        return not (self._thread and self._thread.is_alive())

    def start(
        self, now: float, commit: Commit, *, filled: Mapping[str, int], content: Content, beside: int | None = None
    ) -> None:
        """Write a commit. `beside`: the commit whose file stays, of a group, where each has one of its own."""
        self.join()
        self._last = now

        def work() -> None:
            try:
                spillfile.write(self.where, commit, filled=filled, content=content)
                self.written = commit.sequence
                if commit.group:
                    generations.keep(self.where, {commit.sequence, beside})
            except StateError as error:
                if error.observed != self._told:  # the same trouble may name another file each time
                    self._told = error.observed
                    print(error.lines(), file=sys.stderr, flush=True)

        self._thread = threading.Thread(target=work, name="mpsr-spill", daemon=True)
        self._thread.start()

    def join(self) -> None:
        if self._thread:
            self._thread.join()
            self._thread = None
