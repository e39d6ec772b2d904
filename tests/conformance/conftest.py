"""Fixtures of the conformance tests.

On either backend, `stage` is a place with MPS servers and GPU processes of its own. On the simulated GPU, `here` is a
node with prolog and epilog, `task` a task of a job on `sim_host`; `keeper` is a keeper alone. Each ends what it started.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.backend import Choice, environment
from tests.conformance.domain_site import Site, site
from tests.conformance.keeper_kit import Running
from tests.conformance.state_harness import Task
from tests.conftest import BACKEND
from tests.gpu.stage import Stage
from tests.gpusim.conftest import sim_build
from tests.gpusim.host import SimHost

__all__ = ["sim_build"]


@pytest.fixture(scope="session")
def backend(pytestconfig: pytest.Config) -> Choice:
    """The backend of this session."""
    return pytestconfig.stash[BACKEND]


@pytest.fixture
def stage(backend: Choice) -> Iterator[Stage]:
    """Everything that a test starts there is ended after it."""
    with environment(backend.kind) as environ, Stage(small=True, environ=environ) as made:
        yield made


@pytest.fixture
def mps_stage(stage: Stage) -> Stage:
    """A stage with MPS programs; without them the test is left out, with the reason."""
    if not stage.mps:
        pytest.skip("no nvidia-cuda-mps-control on PATH or in MPSR_TEST_MPS")
    return stage


@pytest.fixture
def here(sim_build: Path) -> Iterator[Site]:
    with site(sim_build) as here:
        yield here


@pytest.fixture
def sim_host() -> Iterator[SimHost]:
    with SimHost(memory=256) as made:
        yield made


@pytest.fixture
def task(sim_host: SimHost, tmp_path: Path) -> Iterator[Task]:
    made = Task(sim_host, tmp_path)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def keeper(tmp_path: Path) -> Iterator[Running]:
    running = Running(tmp_path / "k0.0")
    yield running
    running.end()
