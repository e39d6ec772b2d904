"""The statistics of the bench against values that are known."""

import pytest

from tests.bench.figures import figures, interval


def test_median_and_nearest_rank() -> None:
    assert figures([3, 1, 2]) == {"p50": 2, "p99": 3, "n": 3}
    assert figures([float(value) for value in range(1, 201)]) == {"p50": 100.5, "p99": 198.0, "n": 200}
    assert figures([]) == {"n": 0}


@pytest.mark.parametrize(("count", "low", "high"), [(6, 1, 6), (10, 2, 9), (20, 6, 15), (25, 8, 18)])
def test_interval_has_the_textbook_ranks(count: int, low: int, high: int) -> None:
    """Ranks of the 95 % interval of a median, e.g. Conover, Practical Nonparametric Statistics, table A3."""
    assert interval(list(range(count, 0, -1))) == (low, high)
