"""Threads for calls that take their time, one a lane, each in order; results come back through a descriptor.

A call that raises gives its exception as the result. A lane's slow calls hold up no other lane.
A lane that had nothing to do for a while has no thread.
Threads are daemon threads: a call that hangs does not keep the agent from ending.
"""

import os
import queue
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from resilience.model.event import Event
from resilience.ports import Answer

T = TypeVar("T")
_IDLE = 30.0
"""Seconds after which a lane's thread ends."""


class WorkerThreads:
    """Worker port. A lane's thread starts with its first call."""

    def __init__(self, *, idle: float = _IDLE) -> None:
        self._idle = idle
        self._guard = threading.Lock()
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._done: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self._lanes: dict[str, queue.SimpleQueue[Callable[[], Answer]]] = {}

    def fileno(self) -> int:
        return self._fd

    def submit(self, lane: str, call: Callable[[], T], then: Callable[[T | Exception], Event | None]) -> None:
        with self._guard:
            fresh = lane not in self._lanes
            calls = self._lanes.setdefault(lane, queue.SimpleQueue())
            calls.put(partial(_answer, lane, call, then))
        if fresh:
            threading.Thread(target=self._run, args=(lane, calls), name=f"mpsr-{lane}", daemon=True).start()

    def _run(self, lane: str, calls: "queue.SimpleQueue[Callable[[], Answer]]") -> None:
        while True:
            try:
                call = calls.get(timeout=self._idle)
            except queue.Empty:
                with self._guard:
                    if calls.empty():
                        del self._lanes[lane]
                        return
                continue
            self._done.put(call())
            os.eventfd_write(self._fd, 1)

    def read(self) -> tuple[Answer, ...]:
        try:
            os.eventfd_read(self._fd)
        except BlockingIOError:
            return ()
        answers: list[Answer] = []
        while True:
            try:
                answers.append(self._done.get_nowait())
            except queue.Empty:
                return tuple(answers)


def _answer(lane: str, call: Callable[[], T], then: Callable[[T | Exception], Event | None]) -> Answer:
    value: T | Exception
    try:
        value = call()
    except Exception as error:  # the caller's business, whatever it is
        value = error
    return Answer(lane=lane, take=lambda: then(value))
