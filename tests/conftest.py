"""Tiers of the tests: which this machine can run, and one line for each at the end that says what was left out and why.

unit runs everywhere; sim needs the built simulated GPU, cluster needs root and Debian's Slurm, gpu a real NVIDIA GPU. A
tier whose needs are not met is skipped with the reason, so that a run always says what it did not look at.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.sandbox import Sandbox, real_gpu, what_is_missing

ROOT = Path(__file__).resolve().parents[1]
TIERS = ("cluster", "gpu", "sim")
"""Marks, the most demanding first: a test with several belongs to the first of them."""


def missing(tier: str) -> str:
    """What keeps this machine from running a tier, empty when nothing does."""
    if tier == "cluster":
        return what_is_missing()
    if tier == "gpu":
        return "" if real_gpu()[0] else "no NVIDIA driver with MPS on this machine"
    library = ROOT / "build" / "gpusim" / "libcuda.so.1"
    return "" if library.exists() else f"the simulated GPU is not built (make build): {library.relative_to(ROOT)}"


def tier_of(item: pytest.Item) -> str:
    return next((tier for tier in TIERS if item.get_closest_marker(tier)), "unit")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    reasons = {
        tier: missing(tier) for tier in {name for item in items for name in TIERS if item.get_closest_marker(name)}
    }
    for item in items:
        for tier, reason in reasons.items():
            if reason and item.get_closest_marker(tier):
                item.add_marker(pytest.mark.skip(reason=f"{tier} tier: {reason}"))
    config.stash[_TIERS] = {item.nodeid: tier_of(item) for item in items}
    config.stash[_REASONS] = reasons


_TIERS = pytest.StashKey[dict[str, str]]()
_REASONS = pytest.StashKey[dict[str, str]]()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    tiers = config.stash.get(_TIERS, {})
    outcomes = ("passed", "failed", "error")
    reports = {report.nodeid for outcome in outcomes for report in terminalreporter.getreports(outcome)}
    ran = Counter(tiers.get(nodeid, "unit") for nodeid in reports)
    terminalreporter.section("tiers")
    for tier in ("unit", "sim", "cluster", "gpu"):
        total = sum(1 for value in tiers.values() if value == tier)
        reason = config.stash.get(_REASONS, {}).get(tier, "")
        if reason:
            terminalreporter.write_line(f"{tier}: left out, {total} tests: {reason}")
        else:
            terminalreporter.write_line(f"{tier}: {ran[tier]} of {total} tests ran")


@pytest.fixture(scope="session")
def cluster() -> Iterator[Sandbox]:
    """One cluster of two nodes with mpsr for all tests that leave it as they found it."""
    with Sandbox(nodes=2, plugin=True) as sandbox:
        yield sandbox
