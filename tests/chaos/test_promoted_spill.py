"""A standby that was promoted is the program in every respect: it spills, goes on from disk, and takes its file away."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.session_kit import Solver
from tests.conformance.state_harness import Task, eventually, spilled
from tests.gpusim.host import SimHost

pytestmark = pytest.mark.sim


@pytest.fixture
def task(tmp_path: Path) -> Iterator[Task]:
    with SimHost(memory=256) as host:
        made = Task(host, tmp_path)
        try:
            made.start_keeper()
            yield made
        finally:
            made.close()


def test_it_spills_and_its_file_goes_with_its_end(task: Task) -> None:
    solver = Solver(task, "--spill-seconds", "0", gates=(99, 199))
    file = spilled(task)
    active = solver.start()
    active.heard("session")
    standby = solver.start("standby", "b")
    standby.heard("session")
    standby.heard("ready")
    assert solver.reaches(active, 99)
    eventually("the spill of the first", file.exists)
    before = file.stat().st_mtime_ns
    active.kill()
    solver.open(99)
    standby.tell("promote", incident="i", token=task.token)
    standby.heard("stepped")
    assert solver.reaches(standby, 199)
    eventually("a spill of the second", lambda: file.stat().st_mtime_ns > before)
    solver.open(199)
    standby.heard("done")
    status, out, err = standby.ended()
    assert (status, err) == (0, "")
    solver.check(out)
    assert not task.spill.exists()


def test_one_that_finds_no_kept_state_goes_on_from_disk(task: Task) -> None:
    """Its task was requeued, and the process that went on from disk died before it could hand anything on."""
    solver = Solver(task, "--spill-seconds", "0", gates=(99,))
    first = solver.start()
    first.heard("session")
    assert solver.reaches(first, 99)
    eventually("the spill", spilled(task).exists)
    first.kill()
    solver.open(99)
    task.kill_keeper()
    task.token = "a new supervisor's"
    task.start_keeper()
    standby = solver.start("standby", "b", SLURM_RESTART_COUNT="1")
    standby.heard("session")
    standby.tell("promote", incident="i", token=task.token)
    assert int(standby.heard("stepped")["seq"]) >= 8
    standby.heard("done")
    solver.check(standby.ended()[1])
    assert not task.spill.exists()
