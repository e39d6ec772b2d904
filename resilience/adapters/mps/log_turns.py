"""Whose logs are read when: a domain whose logs cost much rests for a while, and only its own lines wait. Pure.

Logs lie in their users' hands, who may write without end. What counts is what a look costs us: the look itself, each line
whatever is in it, and bytes.
"""

from resilience.model.ids import DomainKey

MOST = 2000
"""Units of one domain in `_WINDOW`. A fault of 60 clients, with a server that is asked for its state, costs some 500."""
_WINDOW = 1.0
REST = 1.0
"""Seconds that a domain rests then."""
_LOOK = 4
_BYTES = 4096
"""So many cost as much as a line."""


class LogTurns:
    def __init__(self) -> None:
        self._spent: dict[DomainKey, tuple[float, int]] = {}
        """When the window began, and what was spent in it."""
        self._until: dict[DomainKey, float] = {}

    def rests(self, domain: DomainKey) -> bool:
        return domain in self._until

    def spend(self, domain: DomainKey, lines: int, size: int, now: float) -> None:
        """One look at one file of the domain's. While it rests that costs nothing more."""
        if domain in self._until:
            return
        began, spent = self._spent.get(domain, (now, 0))
        if now - began >= _WINDOW:
            began, spent = now, 0
        spent += _LOOK + lines + size // _BYTES
        self._spent[domain] = (began, spent)
        if spent >= MOST:
            del self._spent[domain]
            self._until[domain] = now + REST

    def woken(self, now: float) -> frozenset[DomainKey]:
        """Domains that have rested."""
        found = frozenset(domain for domain, until in self._until.items() if until <= now)
        for domain in found:
            del self._until[domain]
        return found

    def wait(self, now: float) -> float | None:
        """Seconds until the next one has rested."""
        return max(0.0, min(self._until.values()) - now) if self._until else None

    def forget(self, domain: DomainKey) -> None:
        """Nobody follows its logs any more; a rest goes on."""
        self._spent.pop(domain, None)
