"""State that is spilled to disk: by the program, by the spiller after its death, and gone on from after a requeue."""

import os
import subprocess
import sys

import pytest

from tests.conformance.session_kit import KILLED, Solver
from tests.conformance.state_harness import LIMIT, ROOT, Task, spilled

pytestmark = pytest.mark.sim


def test_a_requeued_job_goes_on_from_disk(task: Task) -> None:
    task.start_keeper()
    solver = Solver(task, "--spill-seconds", "0", gates=(99,))
    program = solver.start()
    assert solver.reaches(program, 99)
    program.kill()
    solver.open(99)
    task.kill_keeper()
    assert [file.name for file in task.spill.iterdir() if not file.name.startswith(".")] == [spilled(task).name]
    task.token = "a new supervisor's"
    task.start_keeper()
    again = solver.start(SLURM_RESTART_COUNT="1")
    again.heard("session")
    assert int(again.heard("stepped")["seq"]) >= 8
    again.heard("done")
    status, out, err = again.ended()
    assert (status, err) == (0, "")
    solver.check(out)
    assert not task.spill.exists()


def test_a_leftover_of_another_job_is_not_gone_on_from(task: Task) -> None:
    task.start_keeper()
    solver = Solver(task, "--spill-seconds", "0", gates=(99,))
    program = solver.start()
    assert solver.reaches(program, 99)
    program.kill()
    solver.open(99)
    task.kill_keeper()
    task.token = "another job's with the same number"
    task.start_keeper()
    again = solver.start()
    again.heard("session")
    again.heard("done")
    solver.check(again.ended()[1])


@pytest.mark.parametrize("squatted", ["another's directory", "a directory that others may write", "a link", "a file"])
def test_a_place_that_is_not_ours_costs_the_spills_and_not_the_job(task: Task, squatted: str) -> None:
    match squatted:
        case "a link":
            task.spill.symlink_to(task.directory)
        case "a file":
            task.spill.touch()
        case _:
            task.spill.mkdir(mode=0o755)
            task.spill.chmod(0o777 if squatted == "a directory that others may write" else 0o755)
    if squatted == "another's directory":
        if os.geteuid() != 0:
            pytest.skip("only root gives directories away")
        os.chown(task.spill, 65534, 65534)
    before = sorted(task.directory.rglob("*.state*"))
    task.start_keeper()
    solver = Solver(task, "--spill-seconds", "0")
    program = solver.start()
    program.heard("session")
    program.heard("done")
    status, out, err = program.ended()
    assert status == 0
    assert [line.startswith("mpsr: spill: ") for line in err.splitlines() if line.startswith("mpsr: ")] == [True]
    assert str(task.spill) in err
    solver.check(out)
    assert sorted(task.directory.rglob("*.state*")) == before == []


def spill(task: Task, color: str = "b", **more: str) -> tuple[int, str, str]:
    command = [sys.executable, "-E", "-m", "resilience.state.spill"]
    done = subprocess.run(
        command, cwd=ROOT, env=task.environ(color, **more), capture_output=True, text=True, timeout=LIMIT, check=False
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("point", ["before-copying", "between-arrays", "after-held"])
def test_the_spiller_writes_the_committed_state(task: Task, point: str) -> None:
    """Also when the writer died in the middle of a commit: then the state is in the regions it worked on."""
    task.start_keeper()
    solver = Solver(task)
    task.start(["-c", KILLED, point, 5, *solver.argv]).ended()
    expected = 4 if point == "before-copying" else 5
    assert spill(task) == (0, f"seq={expected}\n", "")
    assert spill(task) == (0, f"seq={expected}\n", ""), "once more changes nothing"
    task.kill_keeper()
    task.token = "a new supervisor's"
    task.start_keeper()
    again = solver.start(color="b", SLURM_RESTART_COUNT="1")
    again.heard("session")
    assert again.heard("stepped")["seq"] == str(expected)
    again.heard("done")
    solver.check(again.ended()[1])


def test_the_spiller_says_what_it_could_not_do(task: Task) -> None:
    status, out, err = spill(task)
    assert (status, out) == (1, "seq=-1\n")
    assert "mpsr: keeper: does not answer" in err
    task.start_keeper()
    assert spill(task) == (0, "seq=-1\n", "")
    assert spill(task, MPSR_TOKEN="wrong")[0] == 1
    assert spill(task, MPSR_SPILL="")[0] == 2
    solver = Solver(task)
    task.start(["-c", KILLED, "after-held", 5, *solver.argv]).ended()
    task.spill.write_text("a file where the directory should be")
    status, out, err = spill(task)
    assert (status, out) == (1, "seq=-1\n")
    assert f"{task.spill}" in err


def test_a_full_disk_costs_the_spill_and_nothing_else(task: Task) -> None:
    task.start_keeper()
    task.spill.write_text("a file where the directory should be")
    solver = Solver(task, "--spill-seconds", "0")
    program = solver.start()
    program.heard("session")
    program.heard("done")
    status, out, err = program.ended()
    assert status == 0
    assert err.count("mpsr: spill: cannot write") == 1
    solver.check(out)
