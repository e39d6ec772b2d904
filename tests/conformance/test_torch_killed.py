"""Training with resilience.torch on memory of the simulated GPU: killed anywhere in any commit, it ends as the program does without us.

Shown with torch's CPU build, whose tensors stand on the simulated GPU's bytes. Not shown without a GPU: CUDA kernels, their
random numbers, torch's CUDA allocator.
"""

import contextlib
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.state_harness import Task
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


def rows(task: Task, *words: str) -> list[dict[str, Any]]:
    """What the chains came to, in the words of torch_kit's command line."""
    task.start_keeper()
    program = task.start(["-m", "tests.conformance.torch_kit", *words])

    def listen() -> None:
        with contextlib.suppress(OSError):
            while program.supervisor.recv(9999):
                pass

    threading.Thread(target=listen, daemon=True).start()
    out, err = program.process.communicate(timeout=380)
    assert program.process.returncode == 0, err
    found: list[dict[str, Any]] = [json.loads(line) for line in out.splitlines()]
    assert [row["status"] for row in found] == [0] * (len(words) // 2), err
    return found


@pytest.fixture(scope="module")
def ends(sim_build: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], dict[str, Any]]:
    """How each of CHAINS ended, and each of its programs without us."""
    plain = [(case, "plain") for case in dict.fromkeys(case for case, _ in CHAINS)]
    with SimHost(memory=256) as host, contextlib.closing(Task(host, tmp_path_factory.mktemp("torch"))) as task:
        found = rows(task, *[word for pair in (*plain, *CHAINS) for word in pair])
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
    plain, killed = rows(task, case, "plain", case, point)
    assert killed["kills"] == (3 if case == "compiled" else 6)
    assert killed["digest"] == plain["digest"]
