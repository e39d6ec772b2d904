"""A clock for the adapters of the Slurm port that jumps instead of waiting."""

from types import SimpleNamespace

import pytest

from resilience.adapters.slurm import admin_comment, requeue_sequence


def stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    clock = SimpleNamespace(
        monotonic=lambda: now[0], time=lambda: now[0], sleep=lambda seconds: now.__setitem__(0, now[0] + seconds)
    )
    monkeypatch.setattr(requeue_sequence, "time", clock)
    monkeypatch.setattr(admin_comment, "time", clock)
