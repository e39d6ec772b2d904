"""Figures of a measurement: median, 99th percentile, number of runs. Nothing is reported without its n."""

import math
import statistics
from collections.abc import Sequence


def figures(values: Sequence[float], digits: int = 3) -> dict[str, float]:
    """p50, p99 (nearest rank, so the maximum below 100 runs), n."""
    if not values:
        return {"n": 0}
    ordered = sorted(values)
    rank = math.ceil(0.99 * len(ordered)) - 1
    return {"p50": round(statistics.median(ordered), digits), "p99": round(ordered[rank], digits), "n": len(ordered)}


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Distribution-free 95 % confidence interval of the median (order statistics of the binomial); needs 6 values."""
    ordered = sorted(values)
    count = len(ordered)
    chance, low = 0.5**count, 0
    below = chance
    while below + chance * (count - low) / (low + 1) <= 0.025:
        chance *= (count - low) / (low + 1)
        low += 1
        below += chance
    return ordered[low], ordered[count - 1 - low]


def shown(name: str, values: dict[str, float], unit: str) -> str:
    """One line of the table."""
    if not values.get("n"):
        return f"{name:34} not measured"
    return f"{name:34} p50 {values['p50']:>9.2f}  p99 {values['p99']:>9.2f} {unit:3}  n {values['n']:.0f}"
