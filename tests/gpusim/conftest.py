"""Fixtures of the simulated GPU: a host per test, on /dev/shm, so that tests run side by side.

`sim_build` is the folder with the executables (installed once a session, into build/gpusim, where the C libraries lie
too); `sim_host` a simulated host with one GPU; `mps` an MPS control daemon's private place on it; `v3` one where a daemon with
protocol 3 runs. For the driver, `sim` is a host with two GPUs and `program` a process there that calls as told.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gpusim import host
from tests.gpusim.driver_harness import MEMORY, MIB, Program, built
from tests.gpusim.mps_harness import Mps
from tests.gpusim.mps_v3_harness import place_of


@pytest.fixture(scope="session")
def sim_build() -> Iterator[Path]:
    """The executables in a folder that every user can read, beside the C libraries where those are built."""
    build = Path(tempfile.mkdtemp(prefix="gpusim-build-"))
    build.chmod(0o755)
    host.install(build)
    for library in host.BUILD.glob("*.so*"):
        shutil.copy(library, build / library.name)
    yield build
    shutil.rmtree(build)


@pytest.fixture
def sim_host(sim_build: Path) -> Iterator[host.SimHost]:
    """A simulated host with one GPU of 256 MiB."""
    with host.SimHost(memory=256, build=sim_build, values={"ui_busy": "1"}) as made:
        yield made


@pytest.fixture
def mps(sim_host: host.SimHost) -> Iterator[Mps]:
    """Private pipe and log directories on that host; whatever was started there is gone afterwards."""
    place = Mps(sim_host)
    yield place
    place.close()


@pytest.fixture
def v3(sim_host: host.SimHost) -> Iterator[Mps]:
    """A daemon of driver 615 with protocol 3, which runs."""
    with place_of(sim_host) as place:
        yield place


@pytest.fixture
def sim() -> Iterator[host.SimHost]:
    """Two GPUs of 64 MiB."""
    with host.SimHost(gpus=2, memory=MEMORY // MIB, build=built()) as made:
        yield made


@pytest.fixture
def program(sim: host.SimHost) -> Iterator[Program]:
    with Program(sim) as made:
        yield made
