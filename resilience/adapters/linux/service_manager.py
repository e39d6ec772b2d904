"""What systemd is told of the agent: that it is ready, that its loop turns, that it ends (sd_notify(3): a datagram for each).

Relies on NOTIFY_SOCKET and, for the watchdog, on WATCHDOG_USEC and WATCHDOG_PID; without them nothing is sent. Both are taken out
of the environment, since what the agent starts must not speak for it. A manager that does not listen costs nothing: no call waits,
none raises.
"""

import math
import os
import socket
from collections.abc import MutableMapping
from contextlib import suppress

from resilience.ports import Clock

_NAMES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class ServiceManager:
    """Alive port."""

    def __init__(self, environ: MutableMapping[str, str], clock: Clock) -> None:
        self._given = {name: environ.pop(name) for name in _NAMES if name in environ}
        self._clock = clock
        self._due = 0.0
        address = self._given.get("NOTIFY_SOCKET", "")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        period = self._given.get("WATCHDOG_USEC", "")
        mine = self._given.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        counts = self._address and mine and period.isascii() and period.isdigit() and int(period) > 0
        self._period = int(period) / 2e6 if counts else math.inf  # half, as sd_watchdog_enabled(3) asks

    def ready(self) -> None:
        self._tell("READY=1")

    def beat(self) -> float:
        if self._period == math.inf:
            return math.inf
        now = self._clock.monotonic()
        if now >= self._due:
            self._tell("WATCHDOG=1")
            self._due = now + self._period
        return self._due - now

    def stopping(self) -> None:
        self._tell("STOPPING=1")

    def give_back(self, environ: MutableMapping[str, str]) -> None:
        """For the same process with a new program."""
        environ.update(self._given)

    def _tell(self, text: str) -> None:
        if not self._address:
            return
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.sendto(text.encode(), self._address)
