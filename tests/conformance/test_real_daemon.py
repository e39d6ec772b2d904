"""NVIDIA's own control daemon under our adapter, with or without a GPU: runs where the driver's program is on PATH.

Without a GPU the daemon starts (535 to 555) or says 100 (580 and newer), and no server lives: the job must be refused
with the driver's words and nothing may stay. With a GPU the pair must answer ACTIVE.
"""

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from resilience.adapters.mps.domain_locks import DomainLocks
from resilience.adapters.mps.mps_control import ControlDaemons
from resilience.model.errors import MpsControlError
from resilience.model.lease import LeaseState
from resilience.model.world import ServerState
from resilience.parse import lease as text
from resilience.ports import ServerOwner
from tests.conformance.domain_site import color
from tests.unit.domain_world import NODE, World, world

PROGRAM = shutil.which("nvidia-cuda-mps-control") or ""
USER = 65534


def _is_nvidias() -> bool:
    if not PROGRAM:
        return False
    with open(PROGRAM, "rb") as file:
        return file.read(4) == b"\x7fELF"


def _uuid() -> str:
    """A GPU of this machine, or a UUID that no machine has."""
    found = list(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    lines = found[0].read_text().splitlines() if found else []
    named = [line.split()[-1] for line in lines if line.startswith("GPU UUID")]
    return named[0] if named else "GPU-00000000-0000-4000-8000-000000000000"


pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not _is_nvidias(), reason="needs root and NVIDIA's nvidia-cuda-mps-control on PATH"
)


@pytest.fixture(name="node")
def _node() -> Iterator[World]:
    with world() as node:
        node.settings = replace(node.settings, paths=replace(node.settings.paths, mps_control=PROGRAM))
        node.gpus.uuids = (_uuid(),)
        yield node


def test_a_job_gets_servers_or_the_drivers_reason(node: World) -> None:
    environ = node.environ(12, uid=USER) | {"SLURM_JOB_GID": str(USER)}
    assert node.prolog(environ) == 0
    lease = text.parse(node.lease(12))
    if lease.state is LeaseState.REFUSED:
        assert "no CUDA-capable device" in lease.reason or "finds no GPU" in lease.reason
        assert node.domains() == []
    else:
        mps = ControlDaemons(node.settings, NODE, DomainLocks(node.settings.paths.run, NODE), os.environ)
        assert {mps.state(color(name, key=f"u{USER}")) for name in "ab"} == {ServerState.ACTIVE}
    assert node.epilog(environ) == 0
    assert node.domains() == []
    assert node.journal.of("job.closed")[0]["residue"] == []


def test_a_daemon_is_started_talked_to_and_ended(node: World) -> None:
    """The daemon alone, without a server: what works on a machine without a GPU, up to driver 555."""
    server = color("a", key=f"u{USER}")
    locks = DomainLocks(node.settings.paths.run, NODE)
    mps = ControlDaemons(node.settings, NODE, locks, os.environ)
    with locks.domain(server.domain, timeout=1, create=True):
        try:
            mps._start(server, (node.gpus.all()[0].uuid,), ServerOwner(uid=USER, gid=USER, shared=False))
        except MpsControlError as error:
            if "status 100" not in str(error):
                raise
            pytest.skip("this driver's daemon does not start without a GPU")
        assert mps.state(server) is ServerState.ABSENT
        assert [seen.uid for seen in mps.processes(server)] == [USER]
        assert mps.clients(server) == ()
        assert mps.close(server) == ()
        assert mps.processes(server) == ()
        assert not os.path.exists(mps.pipe(server))
