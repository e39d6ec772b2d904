"""How much of the agent's time each user may have. Pure.

Users own the logs and sockets that the agent reads, and say there what they like. So what a user's news cost is measured,
and taken from an account that fills with the time: a step of hundreds of tasks that starts or recovers finds enough in it,
who has used it up rests until some has come in. Counts would not do: lines and messages differ in what they cost.
"""

BURST = 1.0
"""Seconds of the agent's CPU time that a user may use at once. 256 tasks that start, or recover, cost some 0.3 s."""
PART = 0.1
"""Of each second that follows."""
REST = 1.0
"""Seconds that a user rests at least: what comes in meanwhile is enough for a fault of 60 clients."""
_USERS = 4096


class Shares:
    """Accounts by uid."""

    def __init__(self, burst: float = BURST, part: float = PART) -> None:
        self._burst = burst
        self._part = part
        self._left: dict[int, tuple[float, float]] = {}
        """What a user had left, and when."""
        self._until: dict[int, float] = {}

    def rests(self, uid: int) -> bool:
        return uid in self._until

    def spend(self, uid: int, seconds: float, now: float) -> bool:
        """Take it from the user's account; True when the user's rest begins with it."""
        left, at = self._left.get(uid, (self._burst, now))
        left = min(self._burst, left + (now - at) * self._part) - seconds
        if len(self._left) >= _USERS and uid not in self._left:
            self._left = {other: known for other, known in self._left.items() if other in self._until}
        self._left[uid] = (left, now)
        if left > 0 or uid in self._until:
            return False
        self._until[uid] = now + max(REST, -left / self._part)
        return True

    def woken(self, now: float) -> frozenset[int]:
        """Users who have rested."""
        found = frozenset(uid for uid, until in self._until.items() if until <= now)
        for uid in found:
            del self._until[uid]
        return found

    def next(self) -> float | None:
        """When the next user has rested."""
        return min(self._until.values(), default=None)
