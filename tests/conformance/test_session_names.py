"""Programs that run one after the other under one supervisor, as a shell script starts them: nobody goes on from another's state."""

import pytest

from tests.conformance.session_kit import DECLARES
from tests.conformance.state_harness import Task

pytestmark = pytest.mark.sim


def run(task: Task, declares: str, *, name: str = "", die: bool = False, **environ: str) -> str:
    """What it went on from; it commits once, and ends well or is killed."""
    script = DECLARES.replace("session(", f"session(name={name!r}, ")
    program = task.start(["-c", script, declares, *(["die"] if die else [])], **environ)
    _, out, err = program.ended()
    assert out, err
    return out.split(" ")[0]


U = "s.array('u', 4)"


def test_a_program_that_ended_well_leaves_nothing_to_the_next(task: Task) -> None:
    """Of the same command, too: in a loop of a shell script."""
    task.start_keeper()
    assert [run(task, U) for _ in range(3)] == ["", "", ""]
    assert not task.spill.exists()


def test_a_program_that_failed_leaves_its_state_to_itself_alone(task: Task) -> None:
    task.start_keeper()
    assert run(task, U, name="first", die=True) == ""
    assert run(task, U, name="second", die=True) == ""
    assert run(task, U, name="second") == "kept"
    assert run(task, U, name="second") == ""


def test_commands_below_one_supervisor_are_told_apart_by_their_own_arguments(task: Task) -> None:
    task.start_keeper()
    program = {"MPSR_PROGRAM": "0123456789abcdef"}
    assert run(task, U, die=True, **program) == ""
    assert run(task, f"{U};", die=True, **program) == ""
    assert run(task, f"{U};", die=True, **program) == "kept"


def test_a_standby_of_another_program_stands_down(task: Task) -> None:
    task.start_keeper()
    assert run(task, U, name="first", die=True) == ""
    standby = task.start(["-c", DECLARES.replace("session(", "session(name='second', "), U], role="standby", color="b")
    standby.heard("session")
    assert standby.ended()[0] == 1
    assert "the state that is kept is another program's: first" in (task.directory / "standby.err").read_text()
