"""What chaos tests share: a stage on the cluster, and a queue that is empty before and after each test."""

from collections.abc import Iterator

import pytest

from tests.cluster.sandbox import Sandbox
from tests.demo.stage import Stage


@pytest.fixture
def stage(cluster: Sandbox) -> Iterator[Stage]:
    made = Stage(cluster)
    yield made
    made.clear()
