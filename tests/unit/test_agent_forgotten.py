"""A lease whose job is over and that no epilog has taken back: Slurm is asked, rarely, and believed when it says so twice."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from resilience.agent.forgotten import FIRST, Forgotten
from resilience.model.errors import SlurmAway
from resilience.model.ids import JobId, NodeName
from resilience.model.lease import Lease
from resilience.model.settings import MpsSettings, Recovery
from resilience.model.world import State
from tests.unit.machine_kit import Node, lease


class World:
    """Clock, worker and Slurm."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.says: list[bool | Exception] = []
        self.asked: list[float] = []
        self.ran: list[JobId] = []
        self.state = State(node=NodeName("n0"), recovery=Recovery(), mps=MpsSettings())
        self.forgotten = Forgotten(self, self, self, state=lambda: self.state)  # type: ignore[arg-type]

    def monotonic(self) -> float:
        return self.now

    def submit(self, lane: str, call: Callable[[], Any], then: Callable[[Any], None]) -> None:
        try:
            found = call()
        except SlurmAway as error:
            found = error
        then(found)

    def over(self, lease: Lease) -> bool:
        self.asked.append(self.now)
        said = self.says.pop(0) if self.says else False
        if isinstance(said, Exception):
            raise said
        return said

    def run(self, lease: Lease) -> str:
        self.ran.append(lease.job)
        return ""

    def wait(self, seconds: float) -> None:
        end = self.now + seconds
        while self.forgotten.due() <= end:
            self.now = self.forgotten.due()
            self.forgotten.run()
        self.now = end


def held(number: int = 1) -> dict[JobId, Lease]:
    return {JobId(number): lease(number)}


def test_what_slurm_says_twice_has_the_epilog_run() -> None:
    world = World()
    world.says = [True, True]
    world.forgotten.leases(held())
    world.wait(60)
    assert world.ran == [1]
    assert world.asked == [1000 + FIRST, 1000 + FIRST + 5]


def test_one_word_is_not_enough() -> None:
    world = World()
    world.says = [True, False, SlurmAway("slurmctld", "cannot be asked"), True, False]
    world.forgotten.leases(held())
    world.wait(600)
    assert len(world.asked) >= 5
    assert world.ran == []


def test_a_script_without_tasks_costs_slurm_a_few_questions_a_day() -> None:
    world = World()
    world.forgotten.leases(held())
    world.wait(24 * 3600)
    assert len(world.asked) < 40


def test_a_job_with_a_task_here_is_not_asked_about() -> None:
    world, node = World(), Node()
    node.task(1, 0)
    world.state = node.state
    world.says = [True, True]
    world.forgotten.leases(held())
    world.wait(3600)
    assert world.asked == []
    world.state = replace(node.state, tasks={})
    world.wait(60)
    assert world.ran == [1]


def test_a_lease_that_goes_or_is_written_anew_begins_again() -> None:
    world = World()
    world.says = [True, True]
    world.forgotten.leases(held())
    world.wait(FIRST)
    world.forgotten.leases({JobId(1): replace(lease(1), restart=1)})
    world.wait(6)
    world.forgotten.leases({})
    world.wait(3600)
    assert world.ran == []
