"""Lines of MPS servers that the catalogue does not have: kept in the journal for a person, so many a minute.

A driver may say in new words what matters most. The log lies in its owner's hands, who may write anything into it, so
there is a bound for each user; that it was reached is told. A control daemon's log is left out: it repeats every answer
that we get from it.
"""

from resilience.agent.budget import Budget, Taken
from resilience.ports import ServerLine

_TEXT = 200
LINES = 20
"""Of one user in a minute. A fault in words of 580 that nobody knew would be some ten lines."""


class Unread:
    def __init__(self) -> None:
        self._budget = Budget(LINES)

    def text(self, line: ServerLine, now: float) -> str:
        """What the journal is to keep of a line; empty: nothing."""
        text = line.text.strip()[:_TEXT]
        taken = self._budget.take(line.uid, now) if text and not line.control else Taken.NO
        if taken is Taken.NO:
            return ""
        return f"{text} (further ones of this minute are not written down)" if taken is Taken.LAST else text
