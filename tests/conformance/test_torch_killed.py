"""Training with resilience.torch on memory of the simulated GPU: killed anywhere in any commit, it ends as the program does without us.

Shown with torch's CPU build, whose tensors stand on the simulated GPU's bytes. Not shown without a GPU: CUDA kernels, their
random numbers, torch's CUDA allocator.
"""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.state_harness import Program, Task
from tests.gpusim.host import SimHost

pytest.importorskip("torch", reason="torch is not installed (make torch): training is not tried here")
from tests.conformance.torch_kit import OPTIMIZERS, POINTS  # it imports torch

pytestmark = [pytest.mark.sim, pytest.mark.timeout(400)]  # a hundred starts, on a machine that may be busy


CHAINS = (
    *(("vision", point) for point in POINTS),
    *(("language", point) for point in ("blob", "torn", "after")),
    *(("strided", point) for point in ("torn", "after")),
    *((which, "torn:2") for which in OPTIMIZERS),
)
"""What is killed where; one process starts all of them, since it loads torch once."""


def begun(task: Task, *words: str, **more: str) -> Program:
    """A process that starts the chains, in the words of torch_kit's command line."""
    task.start_keeper()
    program = task.start(["-m", "tests.conformance.torch_kit", *words], **more)

    def listen() -> None:
        with contextlib.suppress(OSError):
            while program.supervisor.recv(9999):
                pass

    threading.Thread(target=listen, daemon=True).start()
    return program


def rows(program: Program) -> tuple[list[dict[str, Any]], str]:
    """What the chains came to, and what was said on standard error."""
    out, err = program.process.communicate(timeout=380)
    assert program.process.returncode == 0, err
    return [json.loads(line) for line in out.splitlines()], err


def ended_well(program: Program) -> list[dict[str, Any]]:
    found, err = rows(program)
    assert {row["status"] for row in found} == {0}, err
    return found


@pytest.fixture(scope="module")
def ends(sim_build: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], dict[str, Any]]:
    """How each of CHAINS ended, and each of its programs without us."""
    plain = [(case, "plain") for case in dict.fromkeys(case for case, _ in CHAINS)]
    with SimHost(memory=256) as host, contextlib.closing(Task(host, tmp_path_factory.mktemp("torch"))) as task:
        found = ended_well(begun(task, *[word for pair in (*plain, *CHAINS) for word in pair]))
    return dict(zip((*plain, *CHAINS), found, strict=True))


def same(ends: dict[tuple[str, str], dict[str, Any]], case: str) -> list[int]:
    """Each chain's number of kills; all end as the program without us does."""
    chains = [row for (of, point), row in ends.items() if of == case and point != "plain"]
    assert [row["digest"] for row in chains] == [ends[case, "plain"]["digest"]] * len(chains), chains
    return [row["kills"] for row in chains]


def test_a_net_with_a_scaler_schedules_and_an_average_killed_in_each_commit(ends: Any) -> None:
    """Eight commits: three batches an epoch and its end."""
    assert same(ends, "vision") == [8] * len(POINTS)


def test_tied_weights_in_bfloat16_with_accumulated_gradients(ends: Any) -> None:
    """A commit at each second step: never between two backward passes of one."""
    assert same(ends, "language") == [7] * 3


def test_channels_last(ends: Any) -> None:
    assert same(ends, "strided") == [6] * 2


@pytest.mark.parametrize("which", OPTIMIZERS)
def test_every_optimizer(which: str, ends: Any) -> None:
    assert same(ends, which) == [2]


def test_every_program_ends_differently(ends: Any) -> None:
    """So the digests tell them apart."""
    plain = [row["digest"] for (_, point), row in ends.items() if point == "plain"]
    assert len(set(plain)) >= len(plain) - 3, "adam and its fused and foreach forms may agree"


@pytest.mark.slow
@pytest.mark.parametrize(("case", "point"), [("workers", "bound"), ("workers", "after-held"), ("compiled", "after:3")])
def test_more(case: str, point: str, task: Task) -> None:
    """Workers with random numbers of their own; a compiled model, which is not compiled again."""
    plain, killed = ended_well(begun(task, case, "plain", case, point))
    assert killed["kills"] == (3 if case == "compiled" else 6)
    assert killed["digest"] == plain["digest"]


# ---------------------------------------------------------------- two ranks, a task and a keeper each
@pytest.fixture
def ranks(sim_build: Path, tmp_path: Path) -> Iterator[Callable[..., list[Program]]]:
    """Starts two processes, each with its own words."""
    with contextlib.ExitStack() as stack:

        def start(*words: tuple[str, ...]) -> list[Program]:
            programs = []
            for rank, its in enumerate(words):
                directory = tmp_path / str(rank)
                directory.mkdir()
                task = stack.enter_context(
                    contextlib.closing(Task(stack.enter_context(SimHost(memory=256)), directory))
                )
                programs.append(begun(task, *its, RANK=str(rank), RENDEZVOUS=str(tmp_path / "meet")))
            return programs

        yield start


@pytest.mark.slow
def test_ranks_of_ddp_go_on_together(ranks: Any) -> None:
    words = ("parallel", "plain", "parallel", "torn", "parallel", "after")
    for program in ranks(words, words):
        plain, *killed = ended_well(program)
        assert [row["kills"] for row in killed] == [4, 4]
        assert {row["digest"] for row in killed} == {plain["digest"]}


@pytest.mark.slow
def test_ranks_at_different_commits_do_not_go_on(ranks: Any) -> None:
    """Both die in the first commit, one before and one after its record says so."""
    for program in ranks(("parallel", "after-copying:1"), ("parallel", "before-copying:1")):
        (row,), err = rows(program)
        assert (row["kills"], row["status"]) == (1, 1)
        assert "the ranks stand at commits of different steps: [0, -1]" in err
