"""Orders have numbers and answers are theirs; a process that died or hangs is Gone, never an error of the run."""

from collections.abc import Iterator

import pytest

from tests.conformance.backend import MEMORY_MIB
from tests.gpu.faults import heard, region
from tests.gpu.rows import row
from tests.gpu.stage import Stage, Unhealthy
from tests.gpu.strings import PuppetGone
from tests.gpusim.host import SimHost

pytestmark = pytest.mark.sim


@pytest.fixture(name="there")
def _there() -> Iterator[Stage]:
    with SimHost(memory=MEMORY_MIB) as host, Stage(small=True, environ=host.env()) as stage:
        yield stage


def test_a_late_answer_is_not_taken_for_the_next_questions(there: Stage) -> None:
    puppet = there.cast(one=None)["one"]
    mine = region(puppet, 2 << 20)
    puppet.send("burst", address=mine["address"], size=2 << 20, seconds=1.0)
    with pytest.raises(PuppetGone, match="no answer"):
        puppet.hear(0.01)
    answer = puppet.ask("digest", address=mine["address"], size=4096)
    assert "sha256" in answer
    assert "rounds" not in answer


def test_asking_a_dead_process_says_how_it_ended(there: Stage) -> None:
    puppet = there.cast(one=None)["one"]
    puppet.process.kill()
    puppet.process.wait()
    for _ in range(2):
        with pytest.raises(PuppetGone, match="ended with status -9"):
            puppet.ask("sync")
    assert heard(puppet, "sync") == {"gone": "ended with status -9"}


def test_a_process_that_cannot_use_a_gpu_ends_a_row_and_not_the_experiment() -> None:
    with Stage(small=True, environ={"PATH": "/usr/bin:/bin"}) as stage:
        found: dict[str, object] = {}

        class KeptByPuppet(dict[str, object]):
            def save(self) -> None:
                found.update(self)

        rows = KeptByPuppet()
        with row(stage, rows, "first"):  # type: ignore[arg-type]
            stage.cast(one=None)
        assert "one: ended with status 1" in str(rows["first"])
        assert all(puppet.process.poll() is not None for puppet in stage.puppets)


def test_a_process_outside_mps_is_no_client_of_a_server_that_is_not_there(there: Stage) -> None:
    server = there.server("one")
    server.close()
    with pytest.raises(Unhealthy, match="attribute 133 is 0"):
        there.cast(one=server)
