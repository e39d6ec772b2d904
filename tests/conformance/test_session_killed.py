"""Sessions on the simulated GPU: whatever is killed, the results are those of an undisturbed run, to the bit."""

import random
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from resilience.state.link import KeeperLink
from tests.conformance.session_kit import HEAT_SIZE, KILLED, Solver
from tests.conformance.state_harness import HEAT, LIMIT, ROOT, Task, eventually, undisturbed
from tests.gpusim.host import SimHost

pytestmark = pytest.mark.sim


def test_the_undisturbed_run_is_that_of_numpy(task: Task) -> None:
    task.start_keeper()
    solver = Solver(task)
    program = solver.start()
    assert program.heard("session") == {"v": "1", "role": "active"}
    assert program.heard("done") == {}
    status, out, err = program.ended()
    assert (status, err) == (0, "")
    solver.check(out)
    assert not task.spill.exists()


def test_the_same_script_runs_outside_slurm(sim_host: SimHost, tmp_path: Path) -> None:
    """With a GPU and no keeper: plain device memory."""
    out = tmp_path / "out"
    environ = sim_host.env(PYTHONPATH=str(ROOT))
    command = [sys.executable, str(HEAT), *map(str, HEAT_SIZE), "--out", str(out)]
    subprocess.run(command, env=environ, check=True, timeout=LIMIT, capture_output=True)
    assert out.read_text() == undisturbed(tmp_path, *HEAT_SIZE)[1]


@pytest.mark.parametrize("seed", range(3))
def test_killed_at_any_time_it_goes_on_from_the_last_commit(task: Task, seed: int) -> None:
    chance = random.Random(seed)
    task.start_keeper()
    solver = Solver(task, "--pace", "1")
    early = range(0, HEAT_SIZE[2] - 100, 10)  # far from its end: the signal may come late
    for step in sorted(chance.sample(early, 3)):
        program = solver.start()
        if solver.reaches(program, step):
            select.select([], [], [], chance.random() / 500)
            program.kill()
    program = solver.start()
    program.heard("session")
    assert int(program.heard("stepped")["seq"]) >= 1
    program.heard("done")
    status, out, err = program.ended()
    assert (status, err) == (0, "")
    solver.check(out)


POINTS = ["before-copying", "after-copying", "between-arrays", "before-held", "after-held"]


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_each_point_of_a_commit(task: Task, point: str) -> None:
    """Commit 5 is that of step 49: whichever slot counts, the next process goes on from exactly 39 or 49."""
    task.start_keeper()
    solver = Solver(task)
    program = task.start(["-c", KILLED, point, 5, *solver.argv])
    program.heard("session")
    assert program.ended()[0] == -signal.SIGKILL
    again = solver.start()
    again.heard("session")
    assert again.heard("stepped")["seq"] == ("4" if point == "before-copying" else "5")
    again.heard("done")
    status, out, err = again.ended()
    assert (status, err) == (0, "")
    solver.check(out)


def test_keeper_and_program_may_both_be_killed_one_after_the_other(task: Task) -> None:
    task.start_keeper()
    solver = Solver(task, gates=(49, 149))
    program = solver.start()
    assert solver.reaches(program, 49)
    task.kill_keeper()
    task.start_keeper()
    eventually("the deposit at the new keeper", lambda: KeeperLink(str(task.keeper_path), task.token, "reader").first)
    solver.open(49)
    assert solver.reaches(program, 149)
    program.kill()
    solver.open(149)
    again = solver.start()
    again.heard("session")
    assert int(again.heard("stepped")["seq"]) >= 14
    again.heard("done")
    solver.check(again.ended()[1])


PRINTS = """
import os, signal, resilience
with resilience.session(arrays="device") as s:
    s.array("u", 4)
    print("before", flush=False)
    s.commit(1)
    print("after", flush=False)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_printed_before_a_commit_is_out_and_what_came_after_is_not(task: Task) -> None:
    """So a program that goes on from the commit prints each line once."""
    task.start_keeper()
    program = task.start(["-c", PRINTS])
    assert program.ended()[:2] == (-signal.SIGKILL, "before\n")


WAITS = """
import time, resilience
with resilience.session(arrays="device") as s:
    s.array("u", 4)
    s.commit(1)
    print("up", flush=True)
    time.sleep(60)
"""


def test_a_session_has_its_work_taken_off_the_gpu_before_a_signal_ends_it(task: Task) -> None:
    """Without any option: the hook is in the process."""
    task.start_keeper()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as supervisor:
        supervisor.bind(str(task.directory / "ending"))
        supervisor.listen()
        supervisor.settimeout(30)
        library = str(ROOT / "build/libmpsr-ending.so")
        program = task.start(
            ["-c", WAITS], MPSR_ENDING_SOCKET=str(task.directory / "ending"), MPSR_ENDING_LIBRARY=library
        )
        assert program.process.stdout
        assert program.process.stdout.readline() == "up\n"
        program.process.terminate()
        peer, _ = supervisor.accept()
        assert program.process.poll() is None
        peer.close()
        assert program.ended()[0] == -signal.SIGTERM
