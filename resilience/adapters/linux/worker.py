"""Threads for calls that take their time, one a lane, each in order; results come back through a descriptor.

A call that raises gives its exception as the result. A lane's slow calls hold up no other lane.
Threads are daemon threads: a call that hangs does not keep the agent from ending.
"""

import os
import queue
import threading
from collections.abc import Callable

from resilience.ports import Result


class WorkerThreads:
    """Worker port. A lane's thread starts with its first call."""

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._done: queue.SimpleQueue[Result] = queue.SimpleQueue()
        self._lanes: dict[str, queue.SimpleQueue[tuple[object, Callable[[], object]]]] = {}

    def fileno(self) -> int:
        return self._fd

    def submit(self, lane: str, tag: object, call: Callable[[], object]) -> None:
        if lane not in self._lanes:
            calls: queue.SimpleQueue[tuple[object, Callable[[], object]]] = queue.SimpleQueue()
            self._lanes[lane] = calls
            threading.Thread(target=self._run, args=(calls,), name=f"mpsr-{lane}", daemon=True).start()
        self._lanes[lane].put((tag, call))

    def _run(self, calls: "queue.SimpleQueue[tuple[object, Callable[[], object]]]") -> None:
        while True:
            tag, call = calls.get()
            try:
                value = call()
            except Exception as error:  # the caller's business, whatever it is
                value = error
            self._done.put(Result(tag=tag, value=value))
            os.eventfd_write(self._fd, 1)

    def read(self) -> tuple[Result, ...]:
        try:
            os.eventfd_read(self._fd)
        except BlockingIOError:
            return ()
        results: list[Result] = []
        while True:
            try:
                results.append(self._done.get_nowait())
            except queue.Empty:
                return tuple(results)
