"""Which commit ranks go on from together: decided from what each of them could go on from. Pure.

A commit of a group has a phase more than that of one process: PREPARED n, while `work` is the state n and `kept` the
state n-1, both whole. A rank leaves it when every rank stands there. So a rank that has begun to copy, COPYING n or HELD n,
proves that all others can go on from n; while none has, all still have n-1. One that stands at PREPARED n offers
both, and n as not yet committed: it is taken only when another rank has committed it.

Ranks are started together and share a number, `start`. A commit is told by sequence, step and that number, since a state that
was left behind when the ranks went back to an earlier one has the sequence of its successor.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from resilience.model.errors import StateError
from resilience.state.record import PREPARED, Commit, Member


class Offer(NamedTuple):
    """A commit that a rank could go on from. `committed`: it is known that every rank has it."""

    sequence: int
    step: int
    group: Member | None
    committed: bool

    @property
    def commit(self) -> tuple[int, int, int]:
        """The same in each rank that has this commit: sequence, step, start."""
        return self.sequence, self.step, self.group.start if self.group else -1


def kept(entries: Sequence[Commit]) -> list[Offer]:
    """What a commit record offers, whose entries are given with the one that counts first."""
    before = entries[1:2] if entries and entries[0].phase == PREPARED else []
    return [Offer(one.sequence, one.step, one.group, one.phase != PREPARED) for one in (*entries[:1], *before)]


def agree(offers: Sequence[Iterable[Offer]]) -> tuple[int, int, int] | None:
    """The commit that each rank has and one at least has committed, the latest of them; None: there is none.

    offers: those of each rank, in the order of the ranks. Raises StateError, in each rank the same, when a state is another
    group's: of another number of ranks, or another rank's.
    """
    sets = []
    for rank, its in enumerate(map(list, offers)):
        for one in its:
            if one.group is None:
                hint = "open the session without group=, or give it another name to start afresh"
                raise StateError("group", f"the state of rank {rank} was committed without a group", hint=hint)
            if one.group.size != len(offers):
                hint = f"start {one.group.size} ranks again, or give the session another name to start afresh"
                raise StateError("group", f"the state is that of {one.group.size} ranks, not {len(offers)}", hint=hint)
            if one.group.rank != rank:
                hint = "ranks must be numbered as they were: order the communicator by SLURM_PROCID"
                raise StateError("group", f"rank {rank} has the state of rank {one.group.rank}", hint=hint)
        sets.append({one.commit: one.committed for one in its})
    common = [commit for commit in sets[0] if all(commit in its for its in sets)]
    return max((commit for commit in common if any(its[commit] for its in sets)), default=None)
