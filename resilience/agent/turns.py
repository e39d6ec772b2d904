"""Users' news: each user's in their order, the users in turn, so much of the agent's time each.

What a piece of news costs is measured as it is taken, whatever is in it. A user with much to say keeps another waiting for
one turn; one who has used up their share (shares.py) is not listened to until they have rested, which the journal names once
a minute. News of root's own sources do not come here.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from resilience.agent.budget import Budget, Taken
from resilience.agent.shares import Shares
from resilience.model.event import Event
from resilience.model.records import UserThrottled
from resilience.ports import Clock, Journal, Listening

TURN = 0.002
"""Seconds of one user at a time."""
_LATELY = 60.0
"""Seconds that the journal sums up at most."""
_USERS = 4096
Piece = Callable[[], Iterable[Event]]


class Turns:
    def __init__(self, clock: Clock, journal: Journal, listening: Mapping[str, Listening], shares: Shares) -> None:
        """`listening`: what hears users, by the name that the journal has for it."""
        self._clock = clock
        self._journal = journal
        self._listening = listening
        self._shares = shares
        self._pieces: dict[int, deque[tuple[str, Piece]]] = {}
        self._spent: dict[int, tuple[float, dict[str, float]]] = {}
        """Since when, and the seconds that each source has cost."""
        self._told = Budget(1)

    def put(self, uid: int, source: str, piece: Piece) -> None:
        self._pieces.setdefault(uid, deque()).append((source, piece))

    def waiting(self) -> frozenset[int]:
        """Users of whom there is enough for now."""
        return frozenset(self._pieces)

    def due(self) -> tuple[float, ...]:
        """Moments of the monotonic clock at which `run` has something to do."""
        if any(not self._shares.rests(uid) for uid in self._pieces):
            return (0.0,)
        woken = self._shares.next()
        return () if woken is None else (woken,)

    def run(self) -> Iterator[Iterable[Event]]:
        """One turn of each user who has news, those with the fewest first: the events of each piece."""
        for source, one in self._listening.items():
            for uid, seconds in one.costs().items():
                self._charge(uid, source, seconds)
        for uid in self._shares.woken(self._clock.monotonic()):
            for one in self._listening.values():
                one.listen(uid)
        for uid in sorted(self._pieces, key=lambda uid: len(self._pieces[uid])):
            spent, pieces = 0.0, self._pieces[uid]
            while pieces and spent < TURN and not self._shares.rests(uid):
                began = self._clock.worked()
                source, piece = pieces.popleft()
                yield piece()
                cost = self._clock.worked() - began
                spent += cost
                self._charge(uid, source, cost)
            if not pieces:
                del self._pieces[uid]

    def _charge(self, uid: int, source: str, seconds: float) -> None:
        now = self._clock.monotonic()
        since, spent = self._spent.get(uid, (now, {}))
        if now - since > _LATELY or len(self._spent) > _USERS:
            since, spent = now, {}
        spent[source] = spent.get(source, 0.0) + seconds
        self._spent[uid] = since, spent
        if not self._shares.spend(uid, seconds, now):
            return
        for one in self._listening.values():
            one.hush(uid)
        if self._told.take(uid, now) is not Taken.NO:
            ms: dict[str, Any] = {f"{name}_ms": round(1000 * cost, 1) for name, cost in spent.items()}
            self._journal.append(UserThrottled(uid=uid, seconds=round(now - since, 1), **ms))
        del self._spent[uid]
