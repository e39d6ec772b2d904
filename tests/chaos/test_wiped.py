"""What a cancelled job kept is zeros before its memory goes back: real Slurm, supervisor, keeper and wiper; the GPU is simulated."""

import os
from pathlib import Path

import pytest

from tests.bench.idle import pids
from tests.cluster.sandbox import wait_for
from tests.demo.stage import Stage

pytestmark = [pytest.mark.cluster, pytest.mark.sim]
_GRANULE = 2 << 20


def used(fd: int) -> bool:
    """There are bytes in it; the simulated GPU's memory has a page of its own behind it."""
    size = os.fstat(fd).st_size
    return any(os.pread(fd, size // _GRANULE * _GRANULE or size, 0))


@pytest.mark.slow
@pytest.mark.parametrize("how", ["scancel", "scontrol requeue"])
def test_nothing_of_it_is_left(stage: Stage, how: str) -> None:
    job = stage.solver("--gres=shard:1", "--requeue", steps=1_000_000)
    stage.under_way([job])
    (keeper,) = wait_for(lambda: pids(stage.sandbox, "resilience.state.keeper"), 20)
    held = Path(stage.sandbox.path(f"/proc/{keeper}/fd"))
    files = [
        fd for fd in os.listdir(held) if "/mem/" in os.readlink(held / fd) or "mpsr-record" in os.readlink(held / fd)
    ]
    kept = [os.open(held / fd, os.O_RDONLY) for fd in files]
    try:
        assert len(kept) >= 3, "a record, and what the program works on and has committed"
        assert any(used(fd) for fd in kept)
        stage.sandbox.good([*how.split(), str(job.number)])
        wait_for(lambda: not any(used(fd) for fd in kept), 30, lambda: stage.output(job))
    finally:
        for fd in kept:
            os.close(fd)
