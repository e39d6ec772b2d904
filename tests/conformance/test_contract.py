"""What the product relies on and the drivers' documents promise: the same assertions on a real and on the simulated GPU.

Nothing here is a hypothesis; an assertion that fails on hardware is an error of the product's or of the simulator's. Calls of the
driver are made by puppets (tests/gpu/puppet.py), everything above them is the product's own code.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from resilience.adapters.mps.domain_locks import DomainLocks
from resilience.adapters.mps.mps_control import ControlDaemons
from resilience.model.ids import Color, DomainKey, GpuMinor, GpuUuid, NodeName, ServerId
from resilience.model.settings import Paths, Settings
from resilience.model.world import ServerState
from resilience.ports import ServerOwner
from tests.cgroups import forget_cgroup
from tests.conformance.state_harness import HEAT, LIMIT, eventually, undisturbed
from tests.gpu.faults import MIB, commit, heard, region
from tests.gpu.ladder import PuppetProcess, PuppetTask
from tests.gpu.stage import ROOT, Puppet, Stage

pytestmark = [pytest.mark.contract, pytest.mark.timeout(120)]
SIZE = 4 * MIB
INVALID_VALUE, INVALID_HANDLE, TERMINATED, NOT_READY = 1, 400, 810, 807
A = ServerId(domain=DomainKey("u0"), gpu=GpuMinor(0), color=Color("a"))
NODE = NodeName("n0")


def started(stage: Stage, name: str, server: Any = None) -> Puppet:
    puppet = stage.puppet(name, server)
    assert heard(puppet, "start").get("code") == 0
    return puppet


# ---------------------------------------------------------------------------------------------- memory


def test_exported_memory_is_mapped_elsewhere_at_the_same_address_with_the_same_bytes(stage: Stage) -> None:
    maker, reader = started(stage, "maker"), started(stage, "reader")
    made = region(maker, SIZE)
    assert made["code"] == 0
    assert heard(maker, "fill", address=made["address"], size=SIZE, seed=5)["code"] == 0
    imported = reader.ask("import", fds=(made["fd"],))
    mapped = reader.ask("map", handle=imported["value"], size=SIZE, hint=made["address"])
    assert (imported["code"], mapped["code"], mapped["value"]) == (0, 0, made["address"])
    digests = [heard(each, "digest", address=made["address"], size=SIZE) for each in (maker, reader)]
    assert digests[0]["sha256"] == digests[1]["sha256"]
    assert heard(reader, "fill", address=made["address"], size=SIZE, seed=6)["code"] == 0
    assert heard(maker, "digest", address=made["address"], size=SIZE)["sha256"] != digests[0]["sha256"]
    os.close(made["fd"])


def test_memory_goes_with_its_last_handle_mapping_and_descriptor(stage: Stage) -> None:
    """The product counts on it: what nobody holds is free again."""
    puppet = started(stage, "p")
    before = heard(puppet, "free")["value"]
    made = region(puppet, 64 * MIB)
    taken = heard(puppet, "free")["value"]
    assert before - taken >= 64 * MIB
    assert heard(puppet, "release", handle=made["handle"])["code"] == 0
    assert heard(puppet, "free")["value"] == taken
    assert heard(puppet, "unmap", address=made["address"], size=64 * MIB)["code"] == 0
    assert heard(puppet, "free")["value"] == taken
    os.close(made["fd"])
    assert heard(puppet, "free")["value"] == before


def test_bad_arguments_are_refused_and_harm_nothing(stage: Stage) -> None:
    puppet = started(stage, "p")
    assert heard(puppet, "create", size=SIZE + 1)["code"] == INVALID_VALUE
    pipe = os.pipe()
    assert puppet.ask("import", fds=(pipe[0],))["code"] != 0
    for fd in pipe:
        os.close(fd)
    made = region(puppet, SIZE)
    assert heard(puppet, "fill", address=made["address"], size=SIZE, seed=1)["code"] == 0
    os.close(made["fd"])


# ---------------------------------------------------------------------------------------------- session


def test_a_killed_programs_committed_state_is_taken_over_to_the_bit(mps_stage: Stage, tmp_path: Path) -> None:
    """The product's session and keeper; a supervisor's part is played by the test."""
    log, out = tmp_path / "heat.log", tmp_path / "heat.out"
    arguments = (20, 24, 400, 10)
    server = mps_stage.server("one")
    task = PuppetTask(mps_stage, HEAT, *arguments, "--log", log, "--out", out, "--pace", 5)
    try:
        first = PuppetProcess(task, "active", server)
        first.wait("session", LIMIT)
        eventually("a commit", lambda: log.exists() and log.read_text().count("\n") >= 5)
        first.process.send_signal(signal.SIGKILL)
        first.process.wait(LIMIT)
        assert not out.exists()
        second = PuppetProcess(task, "active", server)
        second.wait("stepped", LIMIT)
        second.wait("done", LIMIT)
        assert second.process.wait(LIMIT) == 0
    finally:
        task.close()
    assert (log.read_text(), out.read_text()) == undisturbed(tmp_path, *arguments)[:2]


# ---------------------------------------------------------------------------------------------- MPS


@pytest.fixture(name="daemons")
def _daemons(mps_stage: Stage) -> Iterator[ControlDaemons]:
    """The product's adapter with one open server."""
    base = mps_stage.folder
    launcher, cgroup = f"{ROOT}/build/mpsr-launch", f"/{base.name}"
    paths = Paths(run=f"{base}/run", log=f"{base}/log", mps_control=mps_stage.mps, launcher=launcher, cgroup=cgroup)
    settings = Settings(paths=paths)
    locks = DomainLocks(settings.paths.run, NODE)
    mps = ControlDaemons(settings, NODE, locks, mps_stage.environ)
    with locks.domain(A.domain, timeout=LIMIT, create=True):
        mps.open(A, (_uuid(mps_stage),), ServerOwner(uid=os.getuid(), gid=os.getgid(), shared=False))
    try:
        yield mps
    finally:
        for puppet in mps_stage.puppets:
            puppet.kill()  # else the server waits for them
        left = mps.close(A)
        forget_cgroup(cgroup)
    assert left == ()


def _uuid(stage: Stage) -> GpuUuid:
    line = subprocess.run(
        ["nvidia-smi", "-L"], env=stage.environ, capture_output=True, text=True, check=True, timeout=60
    )
    return GpuUuid(line.stdout.splitlines()[0].partition("UUID: ")[2].rstrip(")"))


def client_of(stage: Stage, mps: ControlDaemons, name: str) -> Puppet:
    """A client of the adapter's server."""
    puppet = Puppet(name, {**stage.environ, "CUDA_MPS_PIPE_DIRECTORY": mps.pipe(A)})
    stage.puppets.append(puppet)
    start = heard(puppet, "start")
    assert (start["code"], start["mps"]) == (0, 1)
    return puppet


def test_the_adapter_opens_sees_and_closes_a_server(mps_stage: Stage, daemons: ControlDaemons) -> None:
    assert daemons.state(A) is ServerState.ACTIVE
    clients = [client_of(mps_stage, daemons, name) for name in ("one", "two")]
    assert set(daemons.clients(A)) == {each.process.pid for each in clients}
    for each in clients:
        each.kill()
    eventually("the clients to be gone", lambda: daemons.clients(A) == ())
    assert daemons.close(A) == ()
    assert daemons.state(A) is ServerState.ABSENT
    assert daemons.processes(A) == ()


def test_terminate_client_ends_one_client_and_only_that(mps_stage: Stage, daemons: ControlDaemons) -> None:
    target, other = (client_of(mps_stage, daemons, name) for name in ("target", "other"))
    mine = region(other, SIZE)
    assert daemons.end_clients(A, target.process.pid.__eq__) == (target.process.pid,)
    assert heard(target, "sync")["code"] == TERMINATED
    assert heard(other, "fill", address=mine["address"], size=SIZE, seed=1)["code"] == 0
    assert daemons.end_clients(A, (1).__eq__) == ()
    os.close(mine["fd"])


def test_a_faulted_server_says_807_until_its_clients_have_gone_and_then_takes_new_ones(
    mps_stage: Stage, daemons: ControlDaemons
) -> None:
    culprit, bystander = (client_of(mps_stage, daemons, name) for name in ("culprit", "bystander"))
    assert commit("trap", culprit)["code"] != 0
    eventually("FAULT", lambda: daemons.state(A) is ServerState.FAULT)
    env = {**mps_stage.environ, "CUDA_MPS_PIPE_DIRECTORY": daemons.pipe(A)}
    newcomer = Puppet("newcomer", env)
    mps_stage.puppets.append(newcomer)
    assert heard(newcomer, "start")["code"] == NOT_READY
    for each in (newcomer, culprit, bystander):
        each.kill()
    eventually("ACTIVE", lambda: daemons.state(A) is ServerState.ACTIVE)
    client_of(mps_stage, daemons, "late").kill()


def test_a_missing_pipe_directory_is_silently_no_mps(stage: Stage) -> None:
    start = heard(stage.puppet("outside"), "start")
    assert (start["code"], start["mps"]) == (0, 0)


# ---------------------------------------------------------------------------------------------- NVML

LISTING = """
import json
from resilience.adapters.gpu.nvml import NvmlGpus
gpus = NvmlGpus()
print(json.dumps([[g.minor, g.uuid, g.driver, list(gpus.plain_processes(g.uuid)), list(gpus.mps_processes(g.uuid)),
                   g.capability, g.mig]
                  for g in gpus.all()]))
"""


@pytest.fixture(name="listing")
def _listing(stage: Stage) -> Callable[[], list[Any]]:
    """The first GPU as the product's NVML adapter sees it: minor, UUID, driver, processes without and with MPS."""

    def look() -> list[Any]:
        done = subprocess.run([sys.executable, "-c", LISTING], env=stage.environ | {"PYTHONPATH": str(ROOT)}, cwd=ROOT,
                              capture_output=True, text=True, check=True, timeout=LIMIT)  # fmt: skip
        first: list[Any] = json.loads(done.stdout)[0]
        return first

    return look


def test_nvml_lists_the_gpu_that_nvidia_smi_lists(stage: Stage, listing: Callable[[], list[Any]]) -> None:
    minor, uuid, driver, _, _, capability, mig = listing()
    assert capability >= 7
    assert not mig
    assert (minor, uuid) == (0, _uuid(stage))
    assert driver.split(".")[0].isdigit()


def test_nvml_lists_processes_with_a_context_until_they_end(stage: Stage, listing: Callable[[], list[Any]]) -> None:
    plain = started(stage, "plain")
    assert plain.process.pid in listing()[3]
    plain.kill()
    eventually("its end in NVML", lambda: plain.process.pid not in listing()[3])


def test_nvml_lists_mps_clients_as_such(
    mps_stage: Stage, daemons: ControlDaemons, listing: Callable[[], list[Any]]
) -> None:
    client = client_of(mps_stage, daemons, "client")
    assert client.process.pid in listing()[4]
