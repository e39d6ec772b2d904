"""What a program with a session is refused, and how it hears of it: faults, drivers, layouts, mistakes."""

import pytest

from tests.conformance.session_kit import DECLARES, Solver
from tests.conformance.state_harness import Task
from tests.gpusim.host import SimHost

pytestmark = pytest.mark.sim


def test_a_fault_that_is_not_recovered_fails_and_leaves_the_reason_to_the_supervisor(task: Task) -> None:
    task.start_keeper()
    solver = Solver(task, gates=(19,))
    program = solver.start()
    program.heard("session")
    assert solver.reaches(program, 19)
    task.fault()
    assert program.heard("fault")["text"] == "CUDA_ERROR_LAUNCH_FAILED"
    program.tell("fail", reason="no rung is left")
    status, _, err = program.ended()
    assert status == 1
    assert "no rung is left" not in err  # else a user would read it twice
    assert "CUDA_ERROR_LAUNCH_FAILED" in err


def test_without_a_supervisor_to_ask_the_fault_is_the_programs_own(task: Task) -> None:
    task.start_keeper()
    solver = Solver(task, gates=(19,))
    program = solver.start()
    assert solver.reaches(program, 19)
    program.supervisor.close()
    task.fault()
    status, _, err = program.ended()
    assert status == 1
    assert "GpuFault" in err


IGNORES = """
import resilience
with resilience.session(arrays="device") as s:
    u = s.array("u", 4)
    s.wait()
    print("ready", flush=True)
    while True:
        try:
            s.gpu.synchronize()
        except Exception:
            break
print("not reached")
"""


def test_a_program_that_swallows_the_error_does_not_end_well(task: Task) -> None:
    task.start_keeper()
    program = task.start(["-c", IGNORES])
    program.heard("session")
    assert program.process.stdout is not None
    assert program.process.stdout.readline() == "ready\n"
    task.fault()
    program.heard("fault")
    program.tell("fail", reason="x")
    status, out, err = program.ended()
    assert (status, out) == (1, "")
    assert "GpuFault" in err


def test_outside_mps_it_is_refused(task: Task) -> None:
    """The daemon is gone: the driver runs without MPS and says nothing (mps-facts §1.6)."""
    task.start_keeper()
    program = task.start(Solver(task).argv, CUDA_MPS_PIPE_DIRECTORY=str(task.directory / "nowhere"))
    status, out, err = program.ended()
    assert (status, out) == (3, "")
    assert "mpsr: session: the job asked for MPS, but this process runs outside it: pipe directory" in err


@pytest.mark.parametrize(
    ("codes", "status"), [((805, 807, 805), 0), ((805,) * 60, 3)], ids=["for a moment", "for good"]
)
def test_a_server_that_is_being_replaced_is_waited_for(
    task: Task, sim_host: SimHost, codes: tuple[int, ...], status: int
) -> None:
    """805 may be a daemon between two servers; one that stays is an answer, and the job must not wait for it for long."""
    task.start_keeper()
    rules = [f"fail cuInit {number} {code}" for number, code in enumerate(codes, 1)]
    (sim_host.path / "inject").write_text("\n".join(rules) + "\n")
    sooner = "import resilience.state.driver as driver; driver._CONNECT_SECONDS = 1.0\n"
    program = task.start(["-c", sooner + DECLARES, "s.array('u', 4)"])
    ended, _, err = program.ended()
    assert ended == status, err
    assert ("MPS_CONNECTION_FAILED" in err) is bool(status)


def test_without_a_driver_it_is_refused(task: Task) -> None:
    program = task.start(Solver(task).argv, LD_LIBRARY_PATH="")
    status, _, err = program.ended()
    assert status == 3
    assert "libcuda.so.1" in err


@pytest.mark.parametrize(
    ("second", "wrong"),
    [
        ("s.array('u', (3, 2))", "array u: does not fit the state held by the keeper: declared u float64[3, 2], there"),
        ("s.array('u', (2, 3), 'float32')", "declared u float32[2, 3], there: u float64[2, 3]"),
        ("s.array('v', (2, 3))", "array v: does not fit the state held by the keeper: declared v float64[2, 3]"),
        ("pass", "array u: is in the state to go on from, but was not declared"),
    ],
)
def test_another_layout_is_refused_naming_both(task: Task, second: str, wrong: str) -> None:
    task.start_keeper()
    task.start(["-c", DECLARES, "s.array('u', (2, 3))", "die"]).ended()
    status, _, err = task.start(["-c", DECLARES, second]).ended()
    assert status == 1
    assert wrong in err


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ("s.array('u', 4); s.array('u', 4)", "array u: declared twice"),
        ("s.array('u', 4); s.wait(); s.array('w', 4)", "array w: declared after the first step or commit"),
        ("s.array('u', 4).copy_from(b'short')", "array u: host memory is not 32 contiguous bytes: 5 bytes"),
        ("s.array('u', 4); s.commit(1, x=object())", "commit: a value cannot be kept: x: object is neither"),
        ("resilience.session().__enter__()", "session: a program can open only one"),
        ("s.array('u', 1 << 30)", "array u float64[1073741824] needs 16384 MiB of device memory"),
        ("[s.array(f'u{n}', 1 << 18) for n in range(9)]; s.wait()", "over the limit of 32 MiB (--mps-state)"),
    ],
)
def test_mistakes_of_a_program_are_named(task: Task, body: str, wrong: str) -> None:
    task.start_keeper("--limit-mib", "32")
    status, _, err = task.start(["-c", DECLARES, body]).ended()
    assert status == 1
    assert wrong in err


def test_two_users_of_one_host_cannot_take_each_others_state(task: Task) -> None:
    """The token is right, the user is not: root at an ordinary user's keeper is covered in test_keeper_peers."""
    task.start_keeper()
    program = task.start(["-c", DECLARES, "s.array('u', 4)"], MPSR_TOKEN="guessed")
    status, _, err = program.ended()
    assert status == 1
    assert "keeper: refused: wrong token" in err
