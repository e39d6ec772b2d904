"""Which processes hold a context on the GPUs of this node's jobs, by NVML: ports.Computing.

NVML has no event for a new context, so a thread looks; only while GPUs are watched, and it looks again at once where
something is new. What it sees twice in a row is news, once for as long as it stays so: a context that is just being made
may be in neither or in the wrong list. NVML counts processes as the host does; in a container of the agent's that does
not, no number of it means anything here.
"""

import os
import queue
import sys
import threading

from resilience.model.errors import GpuError
from resilience.model.ids import GpuUuid
from resilience.ports import Context, Gpus

EVERY = 0.8
"""Seconds between two looks."""
_AGAIN = 0.1
"""And before the second look at what is new: a new context is news within a second."""
_AFTER_ERROR = 10.0


class ComputingWatch:
    def __init__(self, gpus: Gpus, *, every: float = EVERY) -> None:
        self._gpus = gpus
        self._every = every
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._news: queue.SimpleQueue[Context] = queue.SimpleQueue()
        self._changed = threading.Condition()
        self._watched: frozenset[GpuUuid] = frozenset()
        self._last: dict[tuple[GpuUuid, bool], frozenset[int]] = {}
        """The lists of the last look."""
        self._told: set[Context] = set()
        self._pending = False
        """There are contexts that have been seen once."""
        self._ends = False
        self._unwell = ""
        self._thread = threading.Thread(target=self._run, name="mpsr-computing", daemon=True)
        self._thread.start()

    def fileno(self) -> int:
        return self._fd

    def watch(self, uuids: frozenset[GpuUuid]) -> None:
        with self._changed:
            self._watched = uuids
            self._changed.notify()

    def read(self) -> tuple[Context, ...]:
        try:
            os.eventfd_read(self._fd)
        except BlockingIOError:
            return ()
        found: list[Context] = []
        while not self._news.empty():
            found.append(self._news.get())
        return tuple(found)

    def close(self) -> None:
        with self._changed:
            self._ends = True
            self._changed.notify()
        self._thread.join(_AFTER_ERROR)
        os.close(self._fd)

    def _run(self) -> None:
        pause = self._every
        while True:
            with self._changed:
                self._changed.wait(pause if self._watched else None)
                if self._ends:
                    return
                watched = self._watched
            try:
                pause = _AGAIN if self._look(watched) else self._every
                self._unwell = ""
            except GpuError as error:
                pause = _AFTER_ERROR
                if str(error) != self._unwell:
                    self._unwell = str(error)
                    text = f"mpsr: agent: processes are not compared with MPS servers: {error}"
                    print(text, file=sys.stderr, flush=True)

    def _look(self, watched: frozenset[GpuUuid]) -> bool:
        """Whether there is something new. Raises GpuError."""
        now: dict[tuple[GpuUuid, bool], frozenset[int]] = {}
        for uuid in watched:
            now[uuid, True] = frozenset(self._gpus.mps_processes(uuid))
            now[uuid, False] = frozenset(self._gpus.plain_processes(uuid)) - now[uuid, True]
        last, self._last = self._last, now
        if now == last and not self._pending:
            return False
        there = {Context(uuid=uuid, pid=pid, mps=mps) for (uuid, mps), pids in now.items() for pid in pids}
        before = {Context(uuid=uuid, pid=pid, mps=mps) for (uuid, mps), pids in last.items() for pid in pids}
        self._told &= there
        fresh = there & before - self._told
        self._told |= fresh
        self._pending = bool(there - self._told)
        for context in fresh:
            self._news.put(context)
        if fresh:
            os.eventfd_write(self._fd, 1)
        return self._pending
