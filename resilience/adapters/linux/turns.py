"""Who is listened to when: one who costs us much rests for a while, and nobody else waits for that. Pure.

Users write into logs and sockets that we read, as much as they like. Whoever reads says what a look at it cost, in units of
its own; over the limit of a second the user, or the domain, rests for a second.
"""

from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
WINDOW = 1.0
REST = 1.0
"""Seconds."""
_KEYS = 4096


class Turns(Generic[K]):
    """`most`: units of one of them in a second."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._spent: dict[K, tuple[float, int]] = {}
        """When the window began, and what was spent in it."""
        self._until: dict[K, float] = {}

    def rests(self, key: K) -> bool:
        return key in self._until

    def spend(self, key: K, units: int, now: float) -> bool:
        """Count it; True when the rest begins with it. While one rests it costs nothing more."""
        if key in self._until:
            return False
        began, spent = self._spent.get(key, (now, 0))
        if now - began >= WINDOW:
            began, spent = now, 0
        if len(self._spent) >= _KEYS:
            self._spent.clear()
        self._spent[key] = (began, spent + units)
        if spent + units < self._most:
            return False
        del self._spent[key]
        self._until[key] = now + REST
        return True

    def woken(self, now: float) -> frozenset[K]:
        """Those who have rested."""
        found = frozenset(key for key, until in self._until.items() if until <= now)
        for key in found:
            del self._until[key]
        return found

    def wait(self, now: float) -> float | None:
        """Seconds until the next one has rested."""
        return max(0.0, min(self._until.values()) - now) if self._until else None
