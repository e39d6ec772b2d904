"""How often a session asks for a commit: as often as its share of the time allows, measured by the last one."""

from types import SimpleNamespace

import pytest

from resilience.model.errors import StateError
from resilience.state import pace, stores
from resilience.state import session as module
from resilience.state.committed import Committed
from resilience.state.session import Session

WORK, COPY = 5.0, 0.4
"""Seconds of the program's own work that a commit waits for, and of the copy."""


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


def opened(overhead: float) -> Session:
    return Session({}, spill_seconds=None, arrays="numpy", device=0, overhead=overhead)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Time passes only in commits: WORK while they wait for the program, COPY while they copy."""
    clock = Clock()
    write = Committed.write

    def synchronize(store: object) -> None:
        clock.now += WORK

    def slow_write(self: Committed, *values: object) -> None:
        write(self, *values)  # type: ignore[arg-type]
        clock.now += COPY

    for its in (module, pace):
        monkeypatch.setattr(its, "time", SimpleNamespace(monotonic=clock.monotonic))
    monkeypatch.setattr(module, "_opened", False)
    monkeypatch.setattr(stores.OwnStore, "synchronize", synchronize)
    monkeypatch.setattr(Committed, "write", slow_write)
    return clock


def test_the_time_between_commits_is_their_cost_over_the_share(clock: Clock) -> None:
    with opened(overhead=0.01) as s:
        s.array("u", 4)
        assert s.due(), "the first tells what a commit costs"
        s.commit(0)
        clock.now += COPY / 0.01 - 0.1
        assert not s.due()
        clock.now += 0.2
        assert s.due()


def test_the_whole_time_may_go_into_commits(clock: Clock) -> None:
    with opened(overhead=1.0) as s:
        s.array("u", 4)
        s.commit(0)
        clock.now += COPY
        assert s.due()


@pytest.mark.parametrize("share", [0.0, -0.1, 1.5, float("nan")])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(StateError, match="overhead is no share of the time"):
        opened(overhead=share)
