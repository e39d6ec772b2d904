"""Standbys on the simulated GPU: they take over where the other stood, and are not seen before."""

import time

import pytest

from tests.conformance.session_kit import DECLARES, Solver
from tests.conformance.state_harness import Program, Task

pytestmark = pytest.mark.sim


def promoted(solver: Solver, *, kind: str, at: int) -> tuple[Program, Program]:
    """Active on a, standby on b, a fault on a at a step: both programs after the verdict is given."""
    active = solver.start()
    active.heard("session")
    standby = solver.start("standby", "b")
    assert standby.heard("session") == {"v": "1", "role": "standby"}
    assert standby.heard("ready") == {}
    assert solver.reaches(active, at)
    solver.task.fault(kind)
    fault = active.heard("fault")
    assert int(fault["seq"]) == at // 10 + 1
    solver.open(at)
    assert fault["cuda"] in ("700", "719")
    standby.tell("promote", incident="i1", token=solver.task.token)
    active.tell("retire")
    return active, standby


@pytest.mark.parametrize("kind", ["trap", "illegal-address"])
def test_a_standby_takes_over(task: Task, kind: str) -> None:
    task.start_keeper()
    solver = Solver(task, gates=(99,))
    active, standby = promoted(solver, kind=kind, at=99)
    before = time.monotonic()
    stepped = standby.heard("stepped")
    assert stepped["seq"] == "10"
    assert before - 10 < float(stepped["at"]) <= time.monotonic()
    assert active.ended()[0] == 0
    standby.heard("done")
    status, out, err = standby.ended()
    assert (status, err) == (0, "")
    solver.check(out)
    assert (task.directory / "standby.err").read_text() == ""


def test_promotions_follow_one_another(task: Task) -> None:
    """The next standby attaches to what the promoted one commits; server a was rebuilt meanwhile."""
    task.start_keeper()
    solver = Solver(task, gates=(49, 199))
    active, second = promoted(solver, kind="trap", at=49)
    assert active.ended()[0] == 0
    second.heard("stepped")
    third = solver.start("standby", "a")
    third.heard("session")
    third.heard("ready")
    assert solver.reaches(second, 199)
    task.fault("trap", "b")
    second.heard("fault")
    second.tell("retire")
    solver.open(199)
    third.tell("promote", incident="i2", token=task.token)
    third.heard("stepped")
    assert second.ended()[0] == 0
    third.heard("done")
    status, out, _ = third.ended()
    assert status == 0
    solver.check(out)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_promotion_outlives_the_keepers_death(task: Task, when: str) -> None:
    """The program that met the fault gives the state to the next keeper, and the standby takes it from there."""
    task.start_keeper()
    solver = Solver(task, gates=(99,))
    active = solver.start()
    active.heard("session")
    standby = solver.start("standby", "b")
    standby.heard("session")
    standby.heard("ready")
    assert solver.reaches(active, 99)
    task.kill_keeper()
    task.fault()
    active.heard("fault")
    solver.open(99)
    if when == "before":
        task.start_keeper()
    standby.tell("promote", incident="i", token=task.token)
    if when == "after":
        task.start_keeper()
    standby.heard("stepped")
    active.tell("retire")
    standby.heard("done")
    status, out, _ = standby.ended()
    assert status == 0
    solver.check(out)


def test_what_nobody_holds_any_more_is_not_waited_for_for_ever(task: Task) -> None:
    task.start_keeper()
    solver = Solver(task, gates=(99,))
    active = solver.start()
    active.heard("session")
    standby = solver.start("standby", "b")
    standby.heard("session")
    standby.heard("ready")
    assert solver.reaches(active, 99)
    active.kill()
    task.kill_keeper()
    task.start_keeper()
    standby.tell("promote", incident="i", token=task.token)
    status, _, err = standby.ended()
    assert status == 1
    assert "keeper: nobody has given it the kept state anew" in err


def test_a_standby_of_a_program_that_never_settles_ends_with_it(task: Task) -> None:
    task.start_keeper()
    standby = task.start(["-c", DECLARES, "s.array('u', 4)"], role="standby")
    standby.heard("session")
    standby.tell("retire")
    assert standby.ended()[:2] == (0, "")
    orphan = task.start(["-c", DECLARES, "s.array('u', 4)"], role="standby")
    orphan.heard("session")
    orphan.supervisor.close()
    assert orphan.ended()[:2] == (0, "")


def test_a_program_that_never_waits_cannot_stand_by(task: Task) -> None:
    task.start_keeper()
    body = "import resilience\nwith resilience.session(arrays='device'):\n    pass\nprint('ran')"
    standby = task.start(["-c", body], role="standby")
    standby.heard("session")
    assert standby.ended()[:2] == (1, "")
    assert "ended without session.steps" in (task.directory / "standby.err").read_text()


def test_a_standby_that_is_promoted_before_there_is_state_starts_afresh(task: Task) -> None:
    task.start_keeper()
    standby = task.start(["-c", DECLARES, "s.array('u', 4)"], role="standby")
    standby.heard("session")
    standby.tell("promote", incident="i", token=task.token)
    standby.heard("done")
    status, out, _ = standby.ended()
    assert (status, out) == (0, " 1 {'why': \"s.array('u', 4)\"}\n")


def test_a_standby_waits_through_a_keepers_death(task: Task) -> None:
    task.start_keeper()
    standby = task.start(["-c", DECLARES, "s.array('u', 4)"], role="standby")
    standby.heard("session")
    task.kill_keeper()
    task.start_keeper()
    task.start(["-c", DECLARES, "s.array('u', 4)", "die"]).ended()
    assert standby.heard("ready") == {}
    standby.tell("promote", incident="i", token=task.token)
    assert standby.heard("stepped")["seq"] == "1"
    standby.heard("done")
    assert "standby" in standby.ended()[1]


def test_what_a_standby_prints_before_its_promotion_is_not_seen(task: Task) -> None:
    task.start_keeper()
    script = "print('begins'); " + "s.array('u', 4)"
    active = task.start(["-c", DECLARES.replace("    s.commit", "    s.wait(); input()\n    s.commit"), script])
    active.heard("session")
    standby = task.start(["-c", DECLARES, script], role="standby", color="b")
    standby.heard("session")
    standby.heard("ready")
    active.kill()
    standby.tell("promote", incident="i", token=task.token)
    standby.heard("stepped")
    standby.heard("done")
    assert standby.ended()[1].startswith("standby 1 ")
