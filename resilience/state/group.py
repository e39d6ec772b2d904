"""Ranks that commit together: what they tell each other, by the communicator that the program hands in.

Of the communicator three methods are used, as mpi4py's have them: `Get_rank()`, `Get_size()` and `allgather(value)`, which
returns the values of all ranks in their order when all have come. The values are tuples of numbers and texts.

Guarantees that an error that one rank meets here is raised in all of them: none waits for one that has gone.
"""

import secrets
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from resilience.model.errors import StateError
from resilience.state import agreement
from resilience.state.agreement import Offer
from resilience.state.record import Member

_METHODS = ("Get_rank", "Get_size", "allgather")
_APART = "each rank commits the same steps: let one ask due() and tell the others"


class Communicator(Protocol):
    """What is used of mpi4py's."""

    def Get_rank(self) -> int: ...
    def Get_size(self) -> int: ...
    def allgather(self, sendobj: Any, /) -> Sequence[Any]: ...


class Disk(NamedTuple):
    """Where a rank's spills stand: `wanted` that this commit is written, `idle` that no write is under way, `written` the
    commit that it has written last (-1: none)."""

    wanted: bool
    idle: bool
    written: int


class Decision(NamedTuple):
    """What all ranks go on from: sequence, step and start of a commit, or None; `on_disk`: the one that all have there, -1: none."""

    commit: tuple[int, int, int] | None
    on_disk: int


class Group:
    """`member`: this rank, of the start that began with `settle`."""

    def __init__(self, communicator: Communicator) -> None:
        if missing := next((name for name in _METHODS if not callable(getattr(communicator, name, None))), ""):
            hint = f"a communicator of mpi4py, or an object with {', '.join(_METHODS)}"
            raise StateError("group", f"has no method {missing}", type(communicator).__name__, hint=hint)
        self.communicator = communicator
        self.member = Member(communicator.Get_rank(), communicator.Get_size(), secrets.randbits(48))

    def settle(
        self, look: Callable[[], tuple[list[Offer], list[Offer]]], load: Callable[[tuple[int, int, int]], bool]
    ) -> Decision:
        """What all ranks go on from.

        look: what this rank has, with its keeper and on disk. load: make the decided commit ready; false when it turns out
        to be damaged, and the next best is decided. Raises StateError, in each rank when in one.
        """
        kept: list[Offer] = []
        disk: list[Offer] = []
        trouble = ""
        try:
            kept, disk = look()
        except StateError as error:
            trouble = error.lines()
        told = self._told(
            "open", self.member.start, [tuple(one) for one in kept], [tuple(one) for one in disk], trouble
        )
        for rank, one in enumerate(told):
            if one[3]:
                raise StateError("group", f"rank {rank} cannot go on", one[3].removeprefix("mpsr: "))
        self.member = self.member._replace(start=told[0][0])
        in_memory, on_disk = ([[_offer(*of) for of in one[place]] for one in told] for place in (1, 2))
        while commit := agreement.agree([_both(*of) for of in zip(in_memory, on_disk, strict=True)]):
            loaded = self._told("load", load(commit))
            if all(one[0] for one in loaded):
                break
            for rank, one in enumerate(loaded):
                if not one[0]:
                    on_disk[rank] = [of for of in on_disk[rank] if of.commit != commit]
        whole = agreement.agree(on_disk)
        return Decision(commit, whole[0] if whole else -1)

    def meet(self, sequence: int, step: int, disk: Disk) -> list[Disk]:
        """All ranks stand before the copy of this commit. Raises StateError, in all of them, when one is at another step."""
        told = self._told("commit", sequence, step, *disk)
        if len({one[:2] for one in told}) > 1:
            steps = ", ".join(f"rank {rank} step {one[1]}" for rank, one in enumerate(told[:9]))
            raise StateError("commit", "ranks are not at one step, nothing is committed", steps, hint=_APART)
        return [Disk(*one[2:]) for one in told]

    def end(self) -> None:
        """All ranks have ended well: what is kept may go. Raises StateError when another commits."""
        self._told("end")

    def _told(self, what: str, *values: Any) -> list[tuple[Any, ...]]:
        told = self.communicator.allgather((what, *values))
        if any(one[0] != what for one in told):
            does = ", ".join(f"rank {rank}: {one[0]}" for rank, one in enumerate(told[:9]))
            raise StateError("group", "ranks do not do the same", does, hint=_APART)
        return [tuple(one[1:]) for one in told]


def _offer(sequence: int, step: int, group: Any, committed: bool) -> Offer:
    return Offer(sequence, step, Member(*group) if group else None, committed)


def _both(kept: list[Offer], disk: list[Offer]) -> list[Offer]:
    """What a rank has at all. A commit that is prepared in one place and committed in the other is committed."""
    return sorted({*kept, *disk}, key=lambda one: one.committed)
