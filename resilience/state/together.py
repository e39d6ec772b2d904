"""What a session of a group does otherwise than that of one process: where it goes on from, and its commits.

The ranks tell each other (resilience/state/group.py); the commit and the spills are those of a session.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

from resilience.model.errors import StateError
from resilience.state import agreement, record
from resilience.state.committed import Committed
from resilience.state.group import Communicator, Group
from resilience.state.link import Deposit
from resilience.state.record import HELD, Commit
from resilience.state.spillfile import SpilledState
from resilience.state.spills import Spills
from resilience.state.stores import Store


class Together:
    def __init__(self, communicator: Communicator, committed: Committed, spills: Spills) -> None:
        self._group = Group(communicator)
        self._committed = committed
        self._spills = spills
        self.decided: tuple[int, int, int] | None = None
        """Sequence, step and start of the commit that all ranks go on from."""

    def settle(self, held: Deposit | None) -> SpilledState | None:
        """Decide with all ranks. What this one has on disk of it, unless its keeper has it. Raises StateError in all."""
        kept = agreement.kept(record.read_fd(held[1][1])) if held else []
        loaded: list[SpilledState] = []

        def load(commit: tuple[int, int, int]) -> bool:
            if not any(one.commit == commit for one in kept):
                found = self._spills.load(commit[0])
                loaded[:] = [found] if found else []
                return found is not None
            return True

        decision = self._group.settle(lambda: (kept, self._spills.offers()), load)
        self._spills.settled(decision.on_disk)
        self._committed.group = self._group.member
        self.decided = decision.commit
        return loaded[0] if self.decided and loaded else None

    def check(self, communicator: Communicator) -> None:
        """That it is this group's. Raises StateError."""
        if self._group.communicator is not communicator:
            raise StateError("commit", "the session was opened with another group", hint=NOT_OPENED)

    def commit(
        self,
        store: Store,
        step: int,
        lengths: dict[str, int],
        values: dict[str, Any],
        *,
        asked: bool,
        read: Callable[[Mapping[str, int]], Any],
    ) -> float:
        """Commit with all ranks; how long the others were waited for, in seconds. `asked`: it is wanted on disk."""
        sequence, before = self._committed.sequence + 1, self._committed.filled
        stands = self._spills.stands(asked=asked)
        waited = 0.0

        def meet() -> None:
            nonlocal waited
            came = time.monotonic()
            self._spills.agreed(self._group.meet(sequence, step, stands))
            waited = time.monotonic() - came

        self._committed.filled = lengths
        try:
            self._committed.write(store, sequence, step, values, group=self._group.member, meet=meet)
        except StateError:
            self._committed.filled = before
            raise
        made = Commit(sequence, HELD, step, values, group=self._group.member)
        self._spills.committed_together(made, lengths, lambda: read(lengths))
        return waited

    def end(self) -> None:
        """All ranks have ended well. Raises StateError when one has not."""
        self._group.end()


NOT_OPENED = "open it with session(group=…): ranks need it to agree on what they go on from, too"
