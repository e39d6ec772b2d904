"""Ranks of a real MPI that commit together: wherever one is killed, all go on from one step, and end as if nothing had been."""

import pytest

from tests.conformance.mpi_kit import Mpi, mpi

__all__ = ["mpi"]
STEPS = 24
PHASES = [
    "before-prepared",
    "after-prepared",
    "before-copying",
    "after-copying",
    "between",
    "before-held",
    "after-held",
]  # fmt: skip


def digest(out: str) -> str:
    (line,) = (line for line in out.splitlines() if line.startswith("digest"))
    return line


def undisturbed(mpi: Mpi) -> str:
    status, out, err = mpi.run(STEPS)
    assert (status, err) == (0, ""), err
    assert out.startswith("from nothing -1 nothing -1 nothing -1\n")
    return digest(out)


def test_a_rank_may_be_killed_at_each_phase_of_a_commit(mpi: Mpi) -> None:
    """Keepers outlive the ranks. Before the meeting a commit is nobody's; once a rank copies, it is that of all."""
    reference = undisturbed(mpi)
    mpi.start_keepers()
    expected = {("nothing", -1)}
    for number, point in enumerate(PHASES):
        sequence = 3 * number + 2
        assert mpi.goes_on(STEPS, point, number % 3, sequence) in expected, PHASES[number - 1]
        kept, lost = ("kept", sequence - 1), ("kept", sequence - 2)
        expected = {lost} if "prepared" in point else {kept, lost} if point == "before-copying" else {kept}
    status, out, err = mpi.run(STEPS)
    assert (status, err) == (0, "")
    assert out.split()[1:3] == ["kept", str(sequence - 1)]
    assert digest(out) == reference


@pytest.mark.parametrize(
    "point",
    [
        pytest.param("after-prepared", marks=pytest.mark.slow),
        "before-copying",
        pytest.param("between", marks=pytest.mark.slow),
    ],
)
def test_after_a_requeue_all_stand_at_one_step(mpi: Mpi, point: str) -> None:
    """Spilled from outside: ranks stand at HELD 4, PREPARED 5 and COPYING 5 then."""
    mpi.start_keepers()
    mpi.run(STEPS, point, 1, 5)
    mpi.spill_all()
    mpi.requeue()
    expected = {"after-prepared": {3}, "before-copying": {3, 4}, "between": {4}}[point]
    source, step = mpi.goes_on(STEPS)
    assert source == "disk"
    assert step in expected
    assert not mpi.spill.exists()


@pytest.mark.slow
def test_a_rank_whose_keeper_has_died_brings_all_back_to_what_is_on_disk(mpi: Mpi) -> None:
    reference = undisturbed(mpi)
    mpi.start_keepers()
    mpi.spill_ms = 0
    mpi.run(STEPS, "before-spill", 1, 7)
    mpi.keepers[1].kill()
    mpi.keepers[1].wait()
    mpi.start_keepers(1)
    status, out, err = mpi.run(STEPS)
    assert (status, err) == (0, "")
    assert out.split()[3:5] == ["disk", "5"]
    assert set(out.split()[2:8:2]) == {"5"}
    assert digest(out) == reference


@pytest.mark.slow
def test_a_rank_may_be_killed_while_it_spills(mpi: Mpi) -> None:
    """Each commit is spilled. A rank's file is whole or not there, and the one before is not taken away till all have the next."""
    reference = undisturbed(mpi)
    mpi.spill_ms = 0
    expected = {("nothing", -1)}
    for number, point in enumerate(["before-spill", "half-spilled", "after-spill", "full"]):
        at = 5 * number + 3
        assert mpi.goes_on(STEPS, point, number % 3, at) in expected, point
        expected = {("disk", at - 1), ("disk", at)} if point == "after-spill" else {("disk", at - 1)}
        assert all(len(list(mpi.spill.glob(f"77.ranks.{rank}.state.*"))) <= 3 for rank in range(3))
        mpi.requeue()
    status, out, err = mpi.run(STEPS)
    assert (status, err) == (0, "")
    assert out.split()[1:3] == ["disk", str(at - 1)]
    assert digest(out) == reference
    assert not mpi.spill.exists()


def test_another_number_of_ranks_is_refused_in_all(mpi: Mpi) -> None:
    mpi.spill_ms = 0
    mpi.run(STEPS, "after-spill", 0, 5)
    mpi.requeue()
    status, out, err = mpi.run(STEPS, ranks=2)
    assert (status != 0, out) == (True, "")
    assert err.count("group: the state is that of 3 ranks, not 2") == 2
    assert "start 3 ranks again" in err
