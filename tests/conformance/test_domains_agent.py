"""What epilog and agent ask of a domain: leftovers of jobs, servers in quarantine, servers anew.

The control daemon is the simulated one, in each dialect.
"""

import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from resilience.model.errors import MpsControlError
from resilience.model.ids import GpuUuid, ServerId
from resilience.model.lease import LeaseState
from resilience.model.world import ServerState
from resilience.ports import ServerOwner
from tests.conformance.domain_site import SLOW, USER, Site, color, site
from tests.gpusim.mps_harness import wait_for
from tests.unit.domain_world import ON

pytestmark = [pytest.mark.sim, pytest.mark.skipif(os.geteuid() != 0, reason="needs root, as slurmd's prolog is")]


# ---------------------------------------------------------------------------------------------------- leftovers


def test_a_leftover_of_the_job_is_ended_and_its_neighbour_is_not(here: Site) -> None:
    here.prolog(12)
    here.prolog(13)
    leftover, neighbour = here.client(job=12), here.client(job=13)
    assert here.epilog(12) == []
    assert leftover.process.wait(10) == -signal.SIGTERM
    assert neighbour.ask("look").startswith("sticky=0 ")
    assert here.mps().clients(color("a")) == (neighbour.pid,)


def test_a_process_of_the_job_that_holds_nothing_of_ours_is_left_alone(here: Site) -> None:
    here.prolog(12)
    plain = subprocess.Popen(["sleep", "60"], env={"SLURM_JOB_ID": "12"}, user=USER, group=USER, extra_groups=[])
    try:
        assert here.epilog(12) == []
        assert plain.poll() is None
    finally:
        plain.kill()
        plain.wait()


def test_what_still_holds_the_gpu_is_told(here: Site) -> None:
    here.prolog(12)
    plain = subprocess.Popen(["sleep", "60"], env={"SLURM_JOB_ID": "12"}, user=USER, group=USER, extra_groups=[])
    try:
        here.node.gpus.holders = {here.sim.gpus[0].uuid: (plain.pid,)}
        assert here.epilog(12) == [f"process {plain.pid} (sleep) holds {here.sim.gpus[0].uuid}"]
    finally:
        plain.kill()
        plain.wait()


def test_a_domain_stays_open_while_a_lease_cannot_be_read(here: Site) -> None:
    here.prolog(12)
    here.prolog(13)
    (here.base / "run/n0/jobs/13.lease").write_text("broken")
    assert "stays open, a lease cannot be read" in str(here.epilog(12))
    assert here.mps().state(color("a")) is ServerState.ACTIVE


# ---------------------------------------------------------------------------------------------------- the agent's side


@pytest.mark.parametrize("dialect", ["535", "550", "580", "595"])
def test_every_dialect_is_understood(sim_build: Path, dialect: str) -> None:
    with site(sim_build, dialect=dialect, rebuild_ms="1") as here:
        assert here.prolog(12).state is LeaseState.OPEN
        mps = here.mps()
        culprit, bystander = here.client(), here.client()
        assert set(mps.clients(color("a"))) == {culprit.pid, bystander.pid}
        assert mps.end_clients(color("a"), (1).__eq__) == ()
        assert mps.end_clients(color("a"), bystander.pid.__eq__) == (bystander.pid,)
        assert bystander.read() == "terminated"
        culprit.tell("fault 700 31")
        wait_for("FAULT", lambda: mps.state(color("a")) is ServerState.FAULT or None)
        assert mps.state(color("b")) is ServerState.ACTIVE
        for one in here.clients:
            one.end()
        wait_for("ACTIVE after the rebuild", lambda: mps.state(color("a")) is ServerState.ACTIVE or None)
        assert here.epilog(12) == []
        here.nothing_left()


def test_a_quarantine_server_goes_with_its_domain(here: Site) -> None:
    here.prolog(12)
    owner = ServerOwner(uid=USER, gid=USER, shared=False)
    uuid = GpuUuid(here.sim.gpus[0].uuid)
    here.mps().open(color("q1"), (uuid,), owner)
    assert here.client("q1").hello.startswith("attached")
    here.clients[0].end()
    assert here.epilog(12) == []
    here.nothing_left()
    with pytest.raises(MpsControlError, match="is closed"):
        here.mps().open(color("q2"), (uuid,), owner)


def test_a_server_is_replaced_while_its_pair_runs_on(here: Site) -> None:
    here.prolog(12)
    mps, on_b = here.mps(), here.client("b")
    assert mps.close(color("a")) == ()
    assert mps.close(color("a")) == ()
    assert mps.state(color("a")) is ServerState.ABSENT
    mps.open(color("a"), (GpuUuid(here.sim.gpus[0].uuid),), ServerOwner(uid=USER, gid=USER, shared=False))
    assert mps.state(color("a")) is ServerState.ACTIVE
    assert on_b.ask("look").startswith("sticky=0 ")


def test_a_prolog_that_meets_a_fault_leaves_the_domain_to_the_agent(sim_build: Path) -> None:
    """The agent has servers of their own started for those who are hit, and this one anew; then the job has both."""
    with site(sim_build, rebuild_ms=str(SLOW)) as here:
        here.prolog(12)
        mps, owner, uuid = here.mps(), ServerOwner(uid=USER, gid=USER, shared=False), GpuUuid(here.sim.gpus[0].uuid)
        here.client().tell("fault 700 31")
        wait_for("FAULT", lambda: mps.state(color("a")) is ServerState.FAULT or None)
        coming = threading.Thread(target=here.prolog, args=(13,))
        coming.start()
        wait_for("a refused lease, until all is open", lambda: (here.base / "run/n0/jobs/13.lease").exists() or None)
        mps.open(color("q1"), (uuid,), owner)
        assert coming.is_alive()
        mps.close(color("a"))
        mps.open(color("a"), (uuid,), owner)
        coming.join(20)
        assert (here.lease(13).state, here.lease(13).colors) == (LeaseState.OPEN, ("a", "b"))


def test_a_conversation_of_the_agent_is_no_residue_of_the_job(here: Site) -> None:
    """It is a process of the same name, user and pipe directory as the daemon; the agent asks whenever it likes."""
    over = threading.Event()
    wrong: list[str] = []

    def ask(server: ServerId) -> None:
        mps = here.mps()
        while not over.wait(0.02):
            try:
                mps.servers(server)
            except MpsControlError as error:
                wrong.append(str(error))

    asking = [threading.Thread(target=ask, args=(color(name),)) for name in ("a", "b")]
    for thread in asking:
        thread.start()
    try:
        for job in range(12, 18):
            assert here.prolog(job).state is LeaseState.OPEN
            assert here.epilog(job) == []
    finally:
        over.set()
        for thread in asking:
            thread.join()
    assert {line for line in wrong if "is closed" not in line} == set()
    here.nothing_left()


def test_hostile_wishes_open_nothing(here: Site) -> None:
    for asked in (f"{ON};domain=shared", "mps=on;domain=j1/../../x", "mps=on;threads=101", "mps=on\0"[:6] + ";a=b"):
        assert here.prolog(12, asked).state is LeaseState.REFUSED
    assert here.processes() == []
