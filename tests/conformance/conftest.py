"""Fixtures of the tests that run on either backend: `stage` is a place with MPS servers and GPU processes of its own."""

from collections.abc import Iterator

import pytest

from tests.conformance.backend import Choice, environment
from tests.conftest import BACKEND
from tests.gpu.stage import Stage


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
