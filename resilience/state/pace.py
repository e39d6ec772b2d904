"""How often a program commits when it asks `due`: so that commits take a given share of its time."""

import time

from resilience.model.errors import StateError


class Pace:
    """`overhead`: share of the program's time (0 to 1) that commits may take. Raises StateError."""

    def __init__(self, overhead: float) -> None:
        if not 0 < overhead <= 1:
            raise StateError("session", "overhead is no share of the time", overhead, hint="0.01 is one per cent")
        self._overhead = overhead
        self._cost = 0.0
        """Seconds that the last commit took beyond the program's own work; 0 before the first."""
        self._committed_at = 0.0

    def due(self) -> bool:
        return time.monotonic() - self._committed_at >= self._cost / self._overhead

    def committed(self, *, began: float) -> None:
        """A commit has been made that began then, on the monotonic clock."""
        self._committed_at = time.monotonic()
        self._cost = self._committed_at - began
