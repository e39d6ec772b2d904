"""How much of something is written down for one user within a minute. Pure.

Everybody may speak to the agent, and users own the logs that it follows: what they say must not fill the journal (for the
agent's time: shares.py). The limits lie far above what the busiest node says; what is over them is told once.
"""

from collections.abc import Hashable
from enum import Enum, auto

_MINUTE = 60.0
_KEYS = 4096
"""Users or servers that are counted at once."""


class Taken(Enum):
    YES = auto()
    LAST = auto()
    """Yes, and the limit is reached: what follows within the minute is not taken."""
    NO = auto()


class Budget:
    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._since = float("-inf")
        self._counts: dict[Hashable, int] = {}

    def take(self, key: Hashable, now: float) -> Taken:
        """Count one more, at this time of the monotonic clock."""
        if now - self._since > _MINUTE or len(self._counts) >= _KEYS:
            self._since, self._counts = now, {}
        count = self._counts.get(key, 0) + 1
        self._counts[key] = count
        if count < self._limit:
            return Taken.YES
        return Taken.LAST if count == self._limit else Taken.NO
