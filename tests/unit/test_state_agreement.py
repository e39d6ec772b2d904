"""Commits of a group: wherever ranks are killed, each can go on from the one commit that is decided.

The model walks every state that one to four ranks can reach, and asks the product's decision in each: computing, PREPARED, the
meeting, COPYING, a copy half done, HELD; then the way back to the decided commit, killed anywhere too.
"""

import os
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from resilience.model.errors import StateError
from resilience.state import agreement, record
from resilience.state.agreement import Offer
from resilience.state.record import COPYING, HELD, PREPARED, Commit, CommitRecord, Member

LAST = 2
"""Commits of a start: enough for one rank to stand a whole commit before another."""
Label = tuple[int, int]
"""Sequence and start of a content."""
TORN: Label = (-1, -1)


class Rank(NamedTuple):
    """`slots` has the label that each phase was written with; `at` what the rank does next; `met` its meetings."""

    at: str
    met: int
    slots: tuple[Label, Label, Label]
    work: Label
    kept: Label

    def wrote(self, phase: int, label: Label, at: str) -> "Rank":
        copying, held, prepared = (label if number == phase else there for number, there in enumerate(self.slots))
        return self._replace(slots=(copying, held, prepared), at=at)

    def entries(self, rank: int, size: int) -> list[Commit]:
        found = [
            Commit(label[0], phase, label[0], {}, group=Member(rank, size, label[1]))
            for phase, label in enumerate(self.slots)
            if label != TORN
        ]
        return sorted(found, key=lambda one: one.order, reverse=True)


World = tuple[Rank, ...]
BEGIN = Rank("compute", 0, (TORN, (0, 0), TORN), (0, 0), (0, 0))


def moves(world: World, rank: int, start: int, meet: bool) -> Iterator[Rank]:
    """What a rank may do next in this start."""
    one = world[rank]
    next_one = (one.slots[HELD][0] + 1, start)
    match one.at:
        case "compute" if one.slots[HELD][0] < LAST:
            yield one._replace(work=TORN)
            yield one._replace(work=next_one, at="prepare")
        case "prepare":
            yield one.wrote(PREPARED, one.work, "enter")
        case "enter":
            yield one._replace(met=one.met + 1, at="meet")
        case "meet" if not meet or all(other.met >= one.met for other in world):
            yield one._replace(at="copying")
        case "copying":
            yield one.wrote(COPYING, one.work, "save")
        case "save":
            yield one._replace(kept=TORN, at="saving")
        case "saving":
            yield one._replace(kept=one.work, at="held")
        case "held":
            yield one.wrote(HELD, one.work, "compute")
        case "load":
            yield one._replace(work=TORN, at="loading")
        case "loading":
            yield one._replace(work=one.kept, at="compute")
        case "withdraw":
            yield one.wrote(PREPARED, TORN, "load")


def back(world: World) -> World:
    """All ranks at the beginning of the way to the decided commit; AssertionError where one has it no more."""
    size = len(world)
    entries = [one.entries(rank, size) for rank, one in enumerate(world)]
    decided = agreement.agree([agreement.kept(its) for its in entries])
    assert decided is not None
    label = decided[0], decided[2]
    found = []
    for one, its in zip(world, entries, strict=True):
        if (its[0].sequence, its[0].group.start) == label and its[0].phase != HELD:  # type: ignore[union-attr]
            assert one.work == label
            found.append(one._replace(at="copying" if its[0].phase == PREPARED else "save", met=0))
        else:
            assert one.kept == label
            found.append(one._replace(at="load" if its[0].phase == HELD else "withdraw", met=0))
    return tuple(found)


def walk(begin: set[World], start: int, *, meet: bool = True) -> set[World]:
    """Every state that can be reached; ranks that stand alike are one state, whatever their numbers."""
    seen, todo = set(begin), list(begin)
    while todo:
        world = todo.pop()
        for rank in range(len(world)):
            for moved in moves(world, rank, start, meet):
                reached = tuple(sorted((*world[:rank], moved, *world[rank + 1 :])))
                if reached not in seen:
                    seen.add(reached)
                    todo.append(reached)
    return seen


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_wherever_ranks_are_killed_all_have_the_decided_commit(size: int) -> None:
    reached = walk({(BEGIN,) * size}, 0)
    again = {tuple(sorted(back(world))) for world in reached}
    for world in walk(again, 1):  # killed once more, on the way back or after it
        back(world)


@pytest.mark.parametrize("size", [2, 3, 4])
def test_without_the_meeting_some_have_it_no_more(size: int) -> None:
    def good(world: World) -> bool:
        try:
            back(world)
        except AssertionError:
            return False
        return True

    assert not all(map(good, walk({(BEGIN,) * size}, 0, meet=False)))


def offer(sequence: int, *, start: int = 7, rank: int = 0, size: int = 2, committed: bool = True) -> Offer:
    return Offer(sequence, 10 * sequence, Member(rank, size, start), committed)


@pytest.mark.parametrize(
    ("first", "second", "decided"),
    [
        ([offer(5)], [offer(5, rank=1)], (5, 50, 7)),
        ([offer(5), offer(3)], [offer(3, rank=1)], (3, 30, 7)),
        ([offer(6, committed=False), offer(5)], [offer(6, rank=1)], (6, 60, 7)),
        ([offer(6, committed=False), offer(5)], [offer(6, rank=1, committed=False), offer(5, rank=1)], (5, 50, 7)),
        ([offer(5), offer(3)], [offer(5, rank=1, start=8), offer(3, rank=1)], (3, 30, 7)),
        ([offer(5)], [offer(4, rank=1)], None),
        ([offer(5)], [], None),
        ([], [], None),
    ],
)
def test_the_latest_commit_of_all(
    first: list[Offer], second: list[Offer], decided: tuple[int, int, int] | None
) -> None:
    assert agreement.agree([first, second]) == decided


@pytest.mark.parametrize(
    ("second", "wrong"),
    [
        ([offer(5, rank=1, size=3)], "that of 3 ranks, not 2"),
        ([offer(5, rank=0)], "rank 1 has the state of rank 0"),
        ([Offer(5, 50, None, True)], "rank 1 was committed without a group"),
    ],
)
def test_another_groups_state_is_refused(second: list[Offer], wrong: str) -> None:
    with pytest.raises(StateError, match=wrong) as caught:
        agreement.agree([[offer(5)], second])
    assert caught.value.hint


def test_a_record_offers_what_is_prepared_and_what_is_held() -> None:
    member, page = Member(0, 2, 7), CommitRecord.create()
    page.write(Commit(4, HELD, 40, {}, group=member))
    page.write(Commit(5, PREPARED, 50, {}, group=member))
    assert agreement.kept(page.entries()) == [offer(5, committed=False), offer(4)]
    page.withdraw()
    assert agreement.kept(page.entries()) == [offer(4)]
    page.write(Commit(5, PREPARED, 50, {}, group=member))
    page.write(Commit(5, COPYING, 50, {}, group=member))
    assert agreement.kept(page.entries()) == [offer(5)]


def test_a_record_of_two_slots_is_read_and_takes_no_commit_of_a_group() -> None:
    fd = os.memfd_create("old")
    os.ftruncate(fd, record.SMALLEST)
    old = CommitRecord(fd)
    old.write(Commit(4, HELD, 40, {"a": 1}))
    assert old.latest() == record.read_fd(fd)[0] == Commit(4, HELD, 40, {"a": 1})
    old.withdraw()
    with pytest.raises(StateError, match="knows no commits of a group"):
        old.write(Commit(5, PREPARED, 50, {}))
