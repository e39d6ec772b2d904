"""Ranks in threads, whose communicator is one of ours: what they tell each other, and errors that all of them meet."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from resilience.model.errors import StateError
from resilience.state import generations, spillfile
from resilience.state.agreement import Offer
from resilience.state.group import Decision, Disk, Group
from resilience.state.record import HELD, Commit, Member
from resilience.state.session import Session
from resilience.state.spills import Spills
from tests.unit.test_state_spill import U, where

ENVIRON = {"SLURM_JOB_ID": "12", "SLURM_PROCID": "1", "MPSR_TOKEN": "t"}


class Ranks:
    """Threads that meet."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.barrier = threading.Barrier(size, timeout=60)
        self.values: list[Any] = [None] * size

    def each(self, work: Callable[["Rank"], Any]) -> list[Any]:
        """What each rank's work returns, or the error that it raises."""

        def one(rank: int) -> Any:
            try:
                return work(Rank(self, rank))
            except StateError as error:
                return error

        with ThreadPoolExecutor(self.size) as pool:
            return list(pool.map(one, range(self.size)))


class Rank:
    def __init__(self, ranks: Ranks, number: int) -> None:
        self.ranks, self.number = ranks, number

    def Get_rank(self) -> int:
        return self.number

    def Get_size(self) -> int:
        return self.ranks.size

    def allgather(self, sendobj: Any, /) -> Sequence[Any]:
        self.ranks.values[self.number] = sendobj
        self.ranks.barrier.wait()
        told = list(self.ranks.values)
        self.ranks.barrier.wait()
        return told


def offer(sequence: int, rank: int, size: int = 2) -> Offer:
    return Offer(sequence, sequence, Member(rank, size, 7), True)


def test_all_have_the_number_of_this_start(tmp_path: Path) -> None:
    def settled(rank: Rank) -> tuple[Decision, Member]:
        group = Group(rank)
        return group.settle(lambda: ([], []), lambda _: True), group.member

    found = Ranks(3).each(settled)
    assert {decision for decision, _ in found} == {Decision(None, -1)}
    assert [member.rank for _, member in found] == [0, 1, 2]
    assert len({member.start for _, member in found}) == 1


def test_the_next_best_is_decided_when_one_turns_out_to_be_damaged() -> None:
    def settled(rank: Rank) -> Decision:
        offers = [offer(5, rank.number), offer(3, rank.number)]
        return Group(rank).settle(lambda: ([], offers), lambda commit: commit[0] != 5 or rank.number != 1)

    assert Ranks(2).each(settled) == [Decision((3, 3, 7), 3)] * 2


def test_one_that_cannot_go_on_stops_all() -> None:
    def settled(rank: Rank) -> Decision:
        def look() -> tuple[list[Offer], list[Offer]]:
            if rank.number:
                raise StateError("spill", "cannot read it")
            return [], []

        return Group(rank).settle(look, lambda _: True)

    assert [str(error) for error in Ranks(2).each(settled)] == ["group: rank 1 cannot go on: spill: cannot read it"] * 2


def test_ranks_at_different_steps_commit_nothing() -> None:
    def commits(rank: Rank) -> list[Disk]:
        return Group(rank).meet(4, 10 + rank.number, Disk(False, True, -1))

    for error in Ranks(2).each(commits):
        assert str(error) == "commit: ranks are not at one step, nothing is committed: rank 0 step 10, rank 1 step 11"
        assert "let one ask due()" in error.hint


def test_one_that_ends_while_another_commits_is_told() -> None:
    def work(rank: Rank) -> Any:
        group = Group(rank)
        return group.meet(4, 10, Disk(False, True, -1)) if rank.number else group.end()

    assert [str(error) for error in Ranks(2).each(work)] == [
        "group: ranks do not do the same: rank 0: end, rank 1: commit"
    ] * 2


def test_a_communicator_needs_three_methods() -> None:
    with pytest.raises(StateError, match="group: has no method Get_rank: object") as caught:
        Group(object())  # type: ignore[arg-type]
    assert "mpi4py" in caught.value.hint


def test_a_group_is_named_when_the_session_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    def session(group: Rank | None) -> Session:
        monkeypatch.setattr("resilience.state.session._opened", False)
        made = Session({}, spill_seconds=None, arrays="numpy", device=0, overhead=1.0, group=group)
        return made.__enter__()

    one, other = Rank(Ranks(1), 0), Rank(Ranks(1), 0)
    with pytest.raises(StateError, match="the session was opened without a group") as caught:
        session(None).commit(1, group=one)
    assert "session(group=" in caught.value.hint
    with pytest.raises(StateError, match="opened with another group"):
        session(one).commit(1, group=other)
    assert session(one).commit(1, group=one) == 0


def put(directory: Path, sequence: int, **environ: str) -> None:
    commit = Commit(sequence, HELD, sequence, {}, group=Member(1, 2, 7))
    spillfile.write(where(directory, **environ), commit, filled={}, content=[(U, bytes(48))])


def test_each_commit_has_a_file_and_the_last_ones_stay(tmp_path: Path) -> None:
    for sequence in (3, 9, 12):
        put(tmp_path, sequence)
    place = where(tmp_path)
    assert [one.sequence for one in generations.offers(place)] == [12, 9, 3]
    generations.keep(place, {12, 9})
    assert sorted(file.name for file in tmp_path.iterdir()) == ["12.solve.1.state.12", "12.solve.1.state.9"]


def test_a_damaged_file_is_told_and_the_others_count(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    put(tmp_path, 3)
    put(tmp_path, 9)
    (tmp_path / "12.solve.1.state.9").write_bytes(b"mpsr-spill-3\nno")
    assert [one.sequence for one in generations.offers(where(tmp_path))] == [3]
    assert "12.solve.1.state.9 is damaged" in capfd.readouterr().err


def test_files_of_an_older_job_with_this_number_are_taken_away(tmp_path: Path) -> None:
    put(tmp_path / "spills", 3, MPSR_TOKEN="older")
    assert generations.offers(where(tmp_path / "spills")) == []
    assert not (tmp_path / "spills").exists()


def test_a_session_without_a_group_says_that_there_is_a_groups_state(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path, 3)
    spills = Spills(ENVIRON | {"MPSR_SPILL": str(tmp_path)}, 0, "solve")
    assert spills.found() is None
    assert "12.solve.1.state.3 is of a session that was opened with group=" in capfd.readouterr().err


def test_what_the_supervisor_asks_for_is_wanted_until_it_is_written(tmp_path: Path) -> None:
    spills = Spills(ENVIRON | {"MPSR_SPILL": str(tmp_path / "spills")}, 3600, "solve")
    spills.begin()
    assert not spills.stands(asked=False).wanted
    commit = Commit(4, HELD, 4, {}, group=Member(1, 2, 7))
    for others, wanted in ((Disk(False, False, -1), True), (Disk(False, True, -1), False)):
        mine = spills.stands(asked=not others.idle)
        assert mine.wanted
        spills.agreed([mine, others])
        spills.committed_together(commit, {}, lambda: [(U, bytearray(48))])
        spills.finish()
        assert spills.stands(asked=False).wanted == wanted
    assert [one.sequence for one in spills.offers()] == [4]


def said(*ranks: Disk) -> tuple[bool, int | None]:
    spills = Spills({}, 0)
    spills.agreed(list(ranks))
    return spills._together, spills._whole


def test_all_write_the_same_commit_and_keep_what_all_have() -> None:
    assert said(Disk(True, True, 5), Disk(False, True, 5)) == (True, 5)
    assert said(Disk(True, True, 5), Disk(True, False, 5)) == (False, None)  # still writing
    assert said(Disk(True, True, 9), Disk(True, True, 5)) == (True, None)  # one could not write 9
    assert said(Disk(False, True, 5), Disk(False, True, 5)) == (False, 5)
