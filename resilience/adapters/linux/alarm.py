"""A descriptor that becomes readable after some seconds (timerfd_create(2), which Python has from 3.13 on)."""

import ctypes
import os
import time
from contextlib import suppress

from resilience.model.errors import ResilienceError

_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC


class _Spec(ctypes.Structure):
    """struct itimerspec."""

    _fields_ = [(name, ctypes.c_long) for name in ("every", "every_ns", "first", "first_ns")]


class Alarm:
    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd = int(self._libc.timerfd_create(time.CLOCK_MONOTONIC, _FLAGS))
        if self.fd < 0:
            raise ResilienceError("timerfd", "cannot be made", os.strerror(ctypes.get_errno()))

    def set(self, seconds: float) -> None:
        """Go off once, in so many seconds; what was set before is forgotten."""
        whole, part = divmod(max(1, round(seconds * 1e9)), 10**9)
        self._libc.timerfd_settime(self.fd, 0, ctypes.byref(_Spec(0, 0, whole, part)), None)

    def read(self) -> None:
        """It is not readable until it goes off again."""
        with suppress(BlockingIOError):
            os.read(self.fd, 8)

    def close(self) -> None:
        os.close(self.fd)
