"""SM partitions through prolog and epilog, with a control daemon as documented for driver 610: made, given, kept, removed.

The daemon is the simulated one; that partitions isolate is its assumption `partition_isolates`, which no hardware has
confirmed (question E2).
"""

import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from resilience.model.ids import GpuUuid, ServerId
from resilience.model.lease import Isolation, LeaseState
from resilience.model.world import ServerState
from resilience.ports import ServerOwner
from tests.conformance.domain_site import USER, Site, color, site
from tests.gpusim.mps_harness import Client, wait_for

pytestmark = [pytest.mark.sim, pytest.mark.skipif(os.geteuid() != 0, reason="needs root, as slurmd's prolog is")]
KEY = f"u{USER}-sm"
OWNER = ServerOwner(uid=USER, gid=USER, shared=False)


def auto(here: Site, driver: str = "610.43.02") -> Site:
    here.change(replace(here.node.settings, mps=replace(here.node.settings.mps, sm_partitions="auto")))
    here.node.gpus.driver = driver
    return here


@pytest.fixture(name="here")
def _here(sim_build: Path) -> Iterator[Site]:
    with site(sim_build, dialect="610", partition_isolates="1") as here:
        yield auto(here)


def at(name: str) -> ServerId:
    return color(name, key=KEY)


def values(here: Site, name: str) -> list[str]:
    """What stands beside a server for those who join its partitions."""
    return (here.pipe(name, key=KEY).parent / f"{name}.sm").read_text().splitlines()


def join(here: Site, name: str, slot: int) -> Client:
    """A process of the job whose lease has this slot."""
    return here.client(name, key=KEY, partition=values(here, name)[slot - 1])


def listed(here: Site, name: str) -> list[str]:
    """The partitions that a daemon knows."""
    env = here.sim.env(CUDA_MPS_PIPE_DIRECTORY=str(here.pipe(name, key=KEY)))
    said = subprocess.run(
        [here.sim.build / "bin/nvidia-cuda-mps-control"],
        input="lspart\n",
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    return [row.split()[1] for row in said.stdout.splitlines()[2:] if row.split()[1] != "-"]


# ---------------------------------------------------------------------------------------------------- given


def test_jobs_get_a_partition_each_on_both_servers(here: Site) -> None:
    first, second = here.prolog(12), here.prolog(13)
    assert (first.state, first.domain, first.isolation, first.colors) == (
        LeaseState.OPEN,
        KEY,
        Isolation.SM,
        ("a", "b"),
    )
    assert (first.slots, second.slots) == (((0, 1),), ((0, 2),))
    for name in "ab":
        assert len(values(here, name)) == 4  # 16 chunks of 8 SMs; a quarter each
        assert [value.partition("/")[2] for value in values(here, name)] == listed(here, name)
        assert join(here, name, 1).hello.startswith("attached")
        assert here.mps().state(at(name)) is ServerState.ACTIVE
    assert here.node.journal.of("job.opened")[-1]["slots"] == [2]
    for one in here.clients:
        one.end()
    assert here.epilog(12) == []
    assert here.prolog(14).slots == ((0, 1),)
    assert here.epilog(13) == []
    assert here.epilog(14) == []
    here.nothing_left()
    assert "Cmd:sm_partition rm" in (here.base / f"log/n0/d/{KEY}/g0/a/control.log").read_text()


@pytest.mark.parametrize(
    ("asked", "slurm", "count"), [("mps=on;threads=50", "", 2), ("mps=on", "33", 3), ("mps=on;threads=100", "25", 1)]
)
def test_the_first_job_decides_the_size(here: Site, asked: str, slurm: str, count: int) -> None:
    here.prolog(12, asked, {"CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": slurm} if slurm else {})
    assert len(values(here, "a")) == len(values(here, "b")) == count


def test_a_domain_that_is_idle_is_cut_anew(here: Site) -> None:
    here.prolog(12, "mps=on;threads=50")
    here.node.leases_of(12).unlink()  # as a killed epilog leaves it
    assert here.prolog(13, "mps=on;threads=10").slots == ((0, 1),)
    assert len(values(here, "a")) == 16
    assert len(listed(here, "b")) == 16


def test_a_prolog_that_runs_twice_changes_nothing(here: Site) -> None:
    lease, before = here.prolog(12), values(here, "a")
    again = here.prolog(12)
    assert (again.slots, values(here, "a")) == (lease.slots, before)
    assert here.epilog(12) == []
    assert here.epilog(12) == []
    here.nothing_left()


def test_two_prologs_at_once_share_no_partition(here: Site) -> None:
    processes = [here.start_prolog(job) for job in (12, 13, 14)]
    assert [process.wait(30) for process in processes] == [0, 0, 0]
    assert {here.lease(job).slots for job in (12, 13, 14)} == {((0, 1),), ((0, 2),), ((0, 3),)}


def test_a_job_of_its_own_domain_needs_none(here: Site) -> None:
    lease = here.prolog(12, "mps=on;domain=job")
    assert (lease.domain, lease.isolation, lease.slots, lease.reason) == ("j12", Isolation.DOMAINS, (), "")


# ---------------------------------------------------------------------------------------------------- not given


def test_who_comes_too_late_runs_in_the_domain_without(here: Site) -> None:
    here.prolog(12, "mps=on;threads=50")
    here.prolog(13, "mps=on;threads=50")
    third = here.prolog(14, "mps=on;threads=50")
    assert (third.state, third.domain, third.isolation, third.slots) == (
        LeaseState.OPEN,
        f"u{USER}",
        Isolation.DOMAINS,
        (),
    )
    assert third.reason == "SM partition: none of 2 is free: GPU 0"
    assert here.client().hello.startswith("attached")
    refused = here.prolog(15, "mps=on;threads=50;require=isolation")
    assert refused.state is LeaseState.REFUSED
    assert "none of 2 is free: GPU 0" in refused.reason
    assert "--mps-domain=job" in refused.reason
    for job in (12, 13, 14, 15):
        assert here.epilog(job) == []
    here.nothing_left()


def test_who_wants_more_than_a_partition_has(here: Site) -> None:
    here.prolog(12)
    big = here.prolog(13, "mps=on;threads=50")
    assert big.isolation is Isolation.DOMAINS
    assert "were made for 25 percent: 50 percent wanted (--mps-threads=25 takes one of them)" in big.reason
    assert here.prolog(14, "mps=on;threads=20;require=isolation").slots == ((0, 2),)


@pytest.mark.parametrize(
    ("dialect", "driver", "reason"),
    [
        ("610", "595.99.02", "isolates from driver 610 on: 595.99.02"),
        ("580", "610.43.02", "has no static SM partitions"),
        ("550", "610.43.02", "control daemon did not start"),
    ],
)
def test_a_driver_that_cannot(sim_build: Path, dialect: str, driver: str, reason: str) -> None:
    """The version is not trusted alone, nor are the commands: partitions of 590 to 609 keep no fault back."""
    with site(sim_build, dialect=dialect) as here:
        auto(here, driver)
        lease = here.prolog(12)
        assert (lease.state, lease.domain, lease.isolation) == (LeaseState.OPEN, f"u{USER}", Isolation.DOMAINS)
        assert reason in lease.reason
        refused = here.prolog(13, "mps=on;require=isolation")
        assert refused.state is LeaseState.REFUSED
        assert reason in refused.reason
        assert here.node.domains() == [f"u{USER}"]
        assert here.epilog(12) == []
        assert here.epilog(13) == []
        here.nothing_left()


def test_a_site_that_does_not_want_them(here: Site) -> None:
    here.change(replace(here.node.settings, mps=replace(here.node.settings.mps, sm_partitions="off")))
    lease = here.prolog(12)
    assert (lease.domain, lease.slots, lease.reason) == (f"u{USER}", (), "")


# ---------------------------------------------------------------------------------------------------- kept


def test_a_trap_in_one_partition_leaves_the_other_and_the_server_alone(here: Site) -> None:
    slots = [here.prolog(job).slot(0) for job in (12, 13)]  # type: ignore[arg-type]
    culprit, neighbour = (join(here, "a", slot) for slot in slots)
    culprit.tell("fault 719 13")
    wait_for("the mark", lambda: culprit.ask("look").startswith("sticky=719") or None)
    assert here.mps().state(at("a")) is ServerState.ACTIVE
    assert neighbour.ask("look").startswith("sticky=0")
    assert join(here, "a", slots[1]).hello.startswith("attached")
    culprit.kill()
    assert here.epilog(12) == []
    assert neighbour.ask("look").startswith("sticky=0")


def test_a_replaced_server_has_its_partitions_before_it_is_active(here: Site) -> None:
    here.prolog(12)
    mps, uuid = here.mps(), GpuUuid(here.sim.gpus[0].uuid)
    here.kill_daemons()
    assert mps.state(at("a")) is ServerState.ABSENT
    assert mps.close(at("a")) == ()
    assert not (here.pipe(key=KEY).parent / "a.sm").exists()
    mps.open(at("a"), (uuid,), OWNER)
    assert listed(here, "a") == [value.partition("/")[2] for value in values(here, "a")]
    assert join(here, "a", 1).hello.startswith("attached")


def test_a_server_that_lost_its_partitions_counts_as_absent_and_is_made_anew(here: Site) -> None:
    here.prolog(12)
    env = here.sim.env(CUDA_MPS_PIPE_DIRECTORY=str(here.pipe(key=KEY)))
    line = f"sm_partition rm {values(here, 'a')[0]}\n"
    subprocess.run([here.sim.build / "bin/nvidia-cuda-mps-control"], input=line, env=env, text=True, check=True)
    assert here.mps().state(at("a")) is ServerState.ABSENT
    assert here.mps().state(at("b")) is ServerState.ACTIVE
    assert here.lease(12).state is LeaseState.OPEN
    other = here.prolog(13)  # others hold leases on a: the agent's business
    assert (other.isolation, other.colors, other.slots) == (Isolation.SM, ("b",), ((0, 2),))
    here.mps().close(at("a"))
    here.mps().open(at("a"), (GpuUuid(here.sim.gpus[0].uuid),), OWNER)
    assert here.prolog(14).slots == ((0, 3),)


def test_a_quarantine_server_has_none(here: Site) -> None:
    here.prolog(12)
    here.mps().open(at("q1"), (GpuUuid(here.sim.gpus[0].uuid),), OWNER)
    assert here.client("q1", key=KEY).hello.startswith("attached")
    assert here.mps().close(at("q1")) == ()


def test_an_epilog_without_a_lease_ends_what_the_job_left_in_a_partition(here: Site) -> None:
    here.prolog(12)
    left = here.client(key=KEY, job=12, partition=values(here, "a")[0])
    here.node.leases_of(12).unlink()
    assert here.epilog(12) == []
    assert left.process.wait(5) is not None
    here.nothing_left()


def test_a_prolog_that_is_killed_in_the_middle_leaves_nothing_for_long(sim_build: Path) -> None:
    with site(sim_build, dialect="610", partition_isolates="1", server_init_ms="60000") as here:
        auto(here)
        process = here.start_prolog(12)
        wait_for("the partitions", lambda: (here.pipe(key=KEY).parent / "a.sm").exists() or None)
        process.kill()
        process.wait(5)
        assert here.lease(12).state is LeaseState.REFUSED
        assert here.epilog(12) == []
        here.nothing_left()


def test_a_user_cannot_write_what_his_tasks_join(here: Site) -> None:
    here.prolog(12)
    for name in ("cut", "a.sm", "b.sm"):
        info = (here.pipe(key=KEY).parent / name).stat()
        assert (info.st_uid, info.st_mode & 0o777) == (0, 0o644)
