"""Tiers of the tests: which this machine can run, and one line for each at the end that says what was left out and why.

A folder is a tier: `FOLDERS` says the most that a test in it may need, and a test that is marked with more is refused. In
tests/gpusim all need the simulated GPU; elsewhere a test that needs less than its folder has fewer marks and runs on more
machines. unit runs everywhere; sim needs the built simulated GPU, cluster needs root and Debian's Slurm, guard an emulator and
kernels (make guard fetches them), gpu a real NVIDIA GPU. A tier whose needs are not met is skipped with the reason, so
that a run always says what it did not look at.

Three groups ask about GPUs. `contract`: the same assertions on both backends. `hypotheses`: on a real GPU they record what they
find, on the simulator they assert its profile. `sim`: the simulator alone. `--gpu=sim|real|auto` chooses the backend of the first two;
`auto`, the default, says what it took and why.
"""

import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.cluster.sandbox import Sandbox, what_is_missing
from tests.conformance.backend import AUTO, REAL, SIM, Choice, choose
from tests.conformance.backend import missing as missing_backend
from tests.guard.kernels import what_is_missing as what_the_guard_misses

signal.signal(
    signal.SIGINT, signal.default_int_handler
)  # a shell's background ignores them, and so would what tests start
for ignored in (signal.SIGQUIT, signal.SIGHUP):  # nohup ignores the second
    signal.signal(ignored, signal.SIG_DFL)
hypothesis.settings.register_profile(
    "mpsr",
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.function_scoped_fixture],
)
hypothesis.settings.load_profile("mpsr")  # no test depends on how fast the machine is

TIERS = ("cluster", "guard", "gpu", "sim")
"""Marks, the most demanding first: a test with several belongs to the first of them."""
FOLDERS: dict[str, frozenset[str]] = {
    "unit": frozenset(),
    "bench": frozenset(),
    "demo": frozenset(),
    "packages": frozenset(),
    "fuzz": frozenset(),
    "gpusim": frozenset({"sim"}),
    "conformance": frozenset({"sim", "gpu"}),
    "spank": frozenset({"cluster", "sim"}),
    "cluster": frozenset({"cluster", "sim"}),
    "chaos": frozenset({"cluster", "sim"}),
    "guard": frozenset({"guard"}),
}
"""Folder of tests/ → the marks of TIERS that its tests may have."""
GROUPS = {
    "contract": "the same assertions on a real and on the simulated GPU (--gpu)",
    "hypotheses": "on a real GPU: record what is so; on the simulated one: assert its profile (--gpu)",
}
BACKEND = pytest.StashKey[Choice]()
_TIERS = pytest.StashKey[dict[str, str]]()
_REASONS = pytest.StashKey[dict[str, str]]()
_SAID = "tiers"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--gpu", choices=(SIM, REAL, AUTO), default=AUTO, help="GPU of the contract and hypotheses groups")


def pytest_configure(config: pytest.Config) -> None:
    for name, text in GROUPS.items():
        config.addinivalue_line("markers", f"{name}: {text}")
    choice = config.stash[BACKEND] = choose(config.getoption("--gpu"))
    if choice.kind == REAL and (reason := missing_backend(REAL)):
        raise pytest.UsageError(f"mpsr: tests: --gpu=real finds no GPU: {reason}\n  hint: --gpu=sim needs none")


def pytest_report_header(config: pytest.Config) -> str:
    return backend_line(config)


def backend_line(config: pytest.Config) -> str:
    choice = config.stash[BACKEND]
    return f"gpu: {config.getoption('--gpu')} took {choice.kind}: {choice.why}"


def missing(tier: str) -> str:
    """What keeps this machine from running a tier, empty when nothing does."""
    if tier == "guard":
        return what_the_guard_misses()
    return what_is_missing() if tier == "cluster" else missing_backend(REAL if tier == "gpu" else SIM)


def tier_of(item: pytest.Item) -> str:
    return next((tier for tier in TIERS if item.get_closest_marker(tier)), "unit")


def misplaced(folder: str, marks: set[str]) -> str:
    """Why a test with these marks has no place in a folder of tests/, empty when it has one."""
    if folder not in FOLDERS:
        return f"tests/{folder} has no tier (FOLDERS in tests/conftest.py)"
    if more := sorted(marks - FOLDERS[folder]):
        return f"tests/{folder} has no tests that need {' and '.join(more)}"
    return ""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    choice = config.stash[BACKEND]
    for item in items:
        folder = item.path.relative_to(Path(__file__).parent).parts[0]
        if folder == "gpusim":
            item.add_marker("sim")
        marks = {tier for tier in TIERS if item.get_closest_marker(tier)}
        if wrong := misplaced(folder, marks):
            raise pytest.UsageError(f"mpsr: tests: {item.nodeid}: {wrong}")
        if any(item.get_closest_marker(group) for group in GROUPS):
            item.add_marker("gpu" if choice.kind == REAL else "sim")
    reasons = {
        tier: missing(tier) for tier in {name for item in items for name in TIERS if item.get_closest_marker(name)}
    }
    if config.getoption("--gpu") == REAL and "sim" in reasons:
        reasons["sim"] = "--gpu=real leaves out what only the simulated GPU can show"
    for item in items:
        for tier, reason in reasons.items():
            if reason and item.get_closest_marker(tier):
                item.add_marker(pytest.mark.skip(reason=f"{tier} tier: {reason}"))
    config.stash[_TIERS] = {item.nodeid: tier_of(item) for item in items}
    config.stash[_REASONS] = reasons


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker of pytest-xdist tells the process that prints the summary what it has collected."""
    if (said := getattr(session.config, "workeroutput", None)) is not None:
        said[_SAID] = (session.config.stash.get(_TIERS, {}), session.config.stash.get(_REASONS, {}))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """The other end: all workers have collected the same."""
    node.config.stash[_TIERS], node.config.stash[_REASONS] = getattr(node, "workeroutput", {}).get(_SAID, ({}, {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    tiers = config.stash.get(_TIERS, {})
    outcomes = ("passed", "failed", "error")
    reports = {report.nodeid for outcome in outcomes for report in terminalreporter.getreports(outcome)}
    ran = Counter(tiers.get(nodeid, "unit") for nodeid in reports)
    terminalreporter.section("tiers")
    terminalreporter.write_line(backend_line(config))
    for tier in ("unit", "sim", "cluster", "guard", "gpu"):
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


@pytest.fixture
def shared_path(tmp_path: Path) -> Path:
    """tmp_path, which other users may enter, too."""
    for directory in (tmp_path, *tmp_path.parents):
        if not directory.stat().st_mode & 0o001:
            directory.chmod(directory.stat().st_mode | 0o011)
    return tmp_path


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Tests wait more than they work: one process more than there are processors, each with clusters of its own, so not too
    many. A real GPU is for one test at a time."""
    if choose(config.getoption("--gpu")).kind == REAL:
        return 0
    return min(len(os.sched_getaffinity(0)) + 1, 8)
