"""GPU time kept by recoveries in place: what counts, what does not, nothing twice."""

from typing import Any

import pytest

from resilience.metrics.saved import Savings
from resilience.model.records.journal import entry


def kept(*records: dict[str, Any]) -> dict[tuple[str, int], float]:
    """(incident, job) → GPU-seconds, of records whose `mono` is given as `at`."""
    savings = Savings()
    found: dict[tuple[str, int], float] = {}
    for record in records:
        read = entry({"wall": 0.0, "mono": record.pop("at"), **record})
        assert read is not None
        found |= {(one.incident, int(one.job)): round(one.seconds, 3) for one in savings.take(read)}
    return found


def opened(job: int, at: float, gpus: tuple[int, ...] = (0,)) -> dict[str, Any]:
    return {"event": "job.opened", "job": job, "gpus": list(gpus), "at": at}


def fault(name: str, at: float, culprit: int | None = None, **jobs: Any) -> list[dict[str, Any]]:
    """An incident; `j<job>` is the commit that its task goes on from, or an outcome."""
    tasks = {f"{word[1:]}.0.0": how for word, how in jobs.items()}
    records: list[dict[str, Any]] = [{"event": "incident.opened", "incident": name, "at": at}]
    for task, how in tasks.items():
        if isinstance(how, int):
            records.append(
                {"event": "recovered", "incident": name, "task": task, "seq": how, "ms": 500, "at": at + 0.5}
            )
    outcomes = {task: "recovered" if isinstance(how, int) else how for task, how in tasks.items()}
    parts = {task: "culprit" if task == f"{culprit}.0.0" else "bystander" for task in tasks}
    records.append({"event": "incident.closed", "incident": name, "outcomes": outcomes, "parts": parts, "at": at + 1})
    return records


def test_a_job_keeps_the_time_since_it_began_less_the_recovery() -> None:
    assert kept(opened(1, 100), *fault("i", 200, j1=7)) == {("i", 1): 99.5}


def test_of_a_gpu_that_three_jobs_hold_each_keeps_a_third() -> None:
    before = (opened(1, 100), opened(2, 100), opened(3, 150), opened(4, 0, (1,)))
    assert kept(*before, *fault("i", 250.5, j1=7, j3=0)) == {("i", 1): 50.0, ("i", 3): pytest.approx(33.333)}


def test_every_gpu_of_a_job_counts() -> None:
    assert kept(opened(1, 0, (0, 1)), opened(2, 0, (1,)), *fault("i", 100.5, j1=7)) == {("i", 1): 150.0}


def test_no_stretch_counts_twice() -> None:
    records = (opened(1, 100), *fault("i", 200.5, j1=7), *fault("k", 211, j1=9))
    assert kept(*records) == {("i", 1): 100.0, ("k", 1): 10.0}


def test_a_start_from_scratch_keeps_nothing_and_loses_what_was_before() -> None:
    records = (opened(1, 100), *fault("i", 200, j1=-1), *fault("k", 211, j1=9))
    assert kept(*records) == {("k", 1): 10.5}


@pytest.mark.parametrize(
    "records",
    [
        [opened(1, 100), *fault("i", 200, culprit=1, j1=7)],
        [opened(1, 100), *fault("i", 200, j1="requeued")],
        [opened(1, 100), *fault("i", 200, j1="failed")],
        [opened(1, 100), *fault("i", 200, j1="gone")],
        [opened(1, 100), {"event": "job.closed", "job": 1, "at": 150}, *fault("i", 200, j1=7)],
        [opened(1, 100), {"event": "agent.started", "boot": "another", "at": 5}, *fault("i", 200, j1=7)],
        fault("i", 200, j1=7),
        [opened(1, 100), fault("i", 200, j1=7)[-1]],
    ],
    ids=("culprit", "requeued", "failed", "gone", "closed", "rebooted", "not opened", "no beginning"),
)
def test_nothing_is_kept(records: list[dict[str, Any]]) -> None:
    assert kept(*records) == {}
