"""Decisions about domains, and the locks that keep them whole."""

import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience.adapters.mps.domain_locks import DomainLocks
from resilience.contract import contract
from resilience.model.errors import ConfigError, MpsControlError
from resilience.model.ids import Color, DomainKey, GpuMinor, GpuUuid, JobId, NodeName, ServerId
from resilience.model.lease import LeaseState
from resilience.model.options import Domain, JobOptions, Require, Rung, Servers
from resilience.model.settings import Options as Rules
from resilience.parse.job_environment import job_environment, job_gpus, process_job
from resilience.parse.options import serialize
from resilience.placement import domain_plan
from tests.unit.test_leases import LEASE
from tests.unit.test_options import TABLE, option, site_of

KEY = DomainKey("u1001")
GPUS = ((GpuMinor(0), GpuUuid("GPU-0")), (GpuMinor(1), GpuUuid("GPU-1")))
A, B = domain_plan.PAIR


def at(gpu: int, color: str = "a", key: str = KEY) -> ServerId:
    return ServerId(domain=DomainKey(key), gpu=GpuMinor(gpu), color=Color(color))


# ---------------------------------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("asked", "rules", "expected"),
    [
        ("mps=on", Rules(), JobOptions(mps=True)),
        ("mps=on;threads=;domain=", Rules(), JobOptions(mps=True)),
        ("mps=on;threads=", Rules(defaults={"threads": "25"}), JobOptions(mps=True, threads=25)),
        ("mps=on;threads=50", Rules(defaults={"threads": "25"}), JobOptions(mps=True, threads=50)),
        ("mps=on;threads=50", Rules(defaults={"threads": "25"}, locked=("threads",)), JobOptions(mps=True, threads=25)),
        ("mps=on;domain=job", Rules(locked=("domain",)), JobOptions(mps=True)),
        ("mps=on;domain=shared", Rules(forbidden=()), JobOptions(mps=True, domain=Domain.SHARED)),
        ("", Rules(), JobOptions()),
    ],
)
def test_what_is_in_force(asked: str, rules: Rules, expected: JobOptions) -> None:
    assert domain_plan.in_force(asked, rules) == expected


@pytest.mark.parametrize("row", [row for row in TABLE["sites"] if "refused" in row], ids=lambda row: str(row["asked"]))
def test_a_prolog_refuses_what_the_plugin_refuses(row: dict[str, Any]) -> None:
    """But for what is locked: there the site's value holds, since the job's string may be older than the lock."""
    asked, site = row["asked"].lower(), site_of(row)
    asked = asked if asked.startswith("mps=") else f"mps=on;{asked}"
    if row.get("lock"):
        assert domain_plan.in_force(asked, site) == domain_plan.in_force("mps=on", site)
        return
    with pytest.raises(ConfigError) as caught:
        domain_plan.in_force(asked, site)
    assert (caught.value.subject, caught.value.wrong) == (option(row["refused"][0]), row["refused"][1])


def test_what_the_site_forbids_is_refused_also_as_its_own_default() -> None:
    with pytest.raises(ConfigError, match="--mps-domain: shared is forbidden by the administrator"):
        domain_plan.in_force("mps=on;domain=shared", Rules())
    with pytest.raises(ConfigError, match="--mps-state: 1024 is forbidden"):
        domain_plan.in_force("mps=on;state=1024", Rules(forbidden=("state=1024",)))
    with pytest.raises(ConfigError, match="shared"):
        domain_plan.in_force("mps=on", Rules(defaults={"domain": "shared"}))


@pytest.mark.parametrize(
    "asked",
    [
        "$(id) evil value",
        "mps=on;domain=../../etc",
        "mps=on;mps=off",
        "mps=on;colour=",
        "mps=on;threads=0",
        "mps=on\ndomain=user",
        "mps=on;" + "x" * 600,
        ";".join(["threads="] * 80),
        "mps",
    ],
)
def test_hostile_wishes_are_refused(asked: str) -> None:
    with pytest.raises(ConfigError):
        domain_plan.in_force(asked, Rules())


@given(st.one_of(st.text(), st.text(alphabet=contract()["wire"]["charset"], max_size=600)))
def test_any_wish_is_options_or_a_clear_refusal(asked: str) -> None:
    rules = Rules()
    try:
        options = domain_plan.in_force(asked, rules)
    except ConfigError:
        pass
    else:
        assert domain_plan.in_force(serialize(options), rules) == options
        assert domain_plan.domain_key(options, JobId(7), 1001) in ("j7", "u1001")


# ---------------------------------------------------------------------------------------------------- GPUs


@pytest.mark.parametrize(
    ("slurm", "cuda", "expected"),
    [
        ("0", "0", ("0",)),
        ("0,1", "1,0", ("1", "0")),
        ("2,3", "0,1", ("2", "3")),
        ("", "1", ("1",)),
        ("0-2", "", ("0", "1", "2")),
        ("", "NoDevFiles", ()),
        ("", "", ()),
        ("", "GPU-abc", ("GPU-abc",)),
        ("0,0", "0", ("0",)),
        ("$(id)", "`id`", ()),
        ("", "0-99999999", ()),
        ("1", "MIG-5a5a5a5a-0001", ("MIG-5a5a5a5a-0001",)),
        ("0,1", "MIG-a,MIG-GPU-b/1/0", ("MIG-a", "MIG-GPU-b/1/0")),
    ],
)
def test_the_gpus_of_a_job(slurm: str, cuda: str, expected: tuple[str, ...]) -> None:
    assert job_gpus(slurm, cuda) == expected


def test_gpus_keep_the_jobs_order_and_unknown_ones_are_named() -> None:
    assert domain_plan.pick_gpus(("1", "0"), GPUS) == (GPUS[1], GPUS[0])
    assert domain_plan.pick_gpus(("GPU-1",), GPUS) == (GPUS[1],)
    with pytest.raises(ConfigError, match="no GPU in this allocation") as caught:
        domain_plan.pick_gpus((), GPUS)
    assert "--gres=" in caught.value.hint
    with pytest.raises(ConfigError, match="the driver does not show: 7"):
        domain_plan.pick_gpus(("7",), GPUS)


@pytest.mark.parametrize(
    ("word", "files", "picked"),
    [
        ("MIG-5a5a5a5a-0001-0203-0405-060708090a0b", (), None),
        ("MIG-GPU-1/1/0", (), None),
        ("0", (), None),  # the first instance of GPU 0, or the GPU after its instances
        ("1", (), None),
        ("GPU-0", (), None),
        ("GPU-1", (), "GPU-1"),
        ("1", ("/dev/nvidia0", "/dev/nvidia1"), "GPU-1"),
        ("0", ("/dev/nvidia0", "/dev/nvidia1"), None),
    ],
)
def test_an_instance_of_mig_is_never_taken_for_a_gpu(word: str, files: tuple[str, ...], picked: str | None) -> None:
    cut = (GpuUuid("GPU-0"),)
    if picked:
        assert [uuid for _, uuid in domain_plan.pick_gpus((word,), GPUS, files, cut)] == [picked]
        return
    with pytest.raises(ConfigError, match="MIG") as caught:
        domain_plan.pick_gpus((word,), GPUS, files, cut)
    assert "--mps=off" in caught.value.hint


ODD = ((GpuMinor(3), GpuUuid("GPU-3")), (GpuMinor(0), GpuUuid("GPU-0")))
"""In the driver's order, which is that of the bus."""


@pytest.mark.parametrize(
    ("files", "word", "expected"),
    [
        ((), "0", "GPU-3"),
        ((), "1", "GPU-0"),
        (("/dev/nvidia0", "/dev/nvidia3"), "0", "GPU-0"),
        (("/dev/nvidia0", "/dev/nvidia3"), "1", "GPU-3"),
        (("/dev/nvidia0", "/dev/nvidia3"), "GPU-3", "GPU-3"),
        (("/dev/nvidia3",), "0", "GPU-3"),
    ],
)
def test_slurms_number_is_a_place_in_gres_conf(files: tuple[str, ...], word: str, expected: str) -> None:
    """Seen with slurmd 22.05: a node with File=/dev/nvidia5 alone gives its jobs SLURM_JOB_GPUS=0."""
    assert [uuid for _, uuid in domain_plan.pick_gpus((word,), ODD, files)] == [expected]


@pytest.mark.parametrize(
    ("files", "word"), [((), "3"), (("/dev/nvidia3",), "1"), (("/dev/gpu",), "0"), (("/dev/nvidia9",), "0")]
)
def test_a_place_that_is_nobodys_is_refused(files: tuple[str, ...], word: str) -> None:
    with pytest.raises(ConfigError, match="the driver does not show"):
        domain_plan.pick_gpus((word,), ODD, files)


BASE = {"SLURM_JOB_ID": "12", "SLURM_JOB_UID": "1001", "SLURMD_NODENAME": "n0"}


def test_the_environment_of_a_prolog() -> None:
    job = job_environment(BASE | {"SPANK_MPSR": "mps=on", "SLURM_JOB_GPUS": "1"})
    assert (job.job, job.uid, job.gid, job.node, job.restart, job.gpus) == (12, 1001, None, "n0", 0, ("1",))


@pytest.mark.parametrize(
    ("gres", "held"),
    [
        ("gpu:sandbox:2(IDX:0-1)", ("0", "1")),  # these four as 22.05 and 24.11 were seen to print them
        ("shard:2(IDX:1)", ("1",)),
        ("shard:2(0/8,2/8)", ("1",)),
        ("mps:120(100/100,20/100)", ("0", "1")),
        ("gpu:a:1(IDX:2),shard:a:2(0/8,0/8,2/8)", ("2",)),
        ("fpga:1(IDX:0),gpu:1(IDX:3)", ("3",)),
        ("gpu:1(IDX:3),shard:2", ("3",)),
        ("shard:2", ()),
        ("gpu:1(IDX:0)x", ()),
        ("x\n     Nodes=n0 GRES=gpu:2(IDX:0-1)", ()),
        ("", ()),
    ],
)
def test_a_late_prologs_gpus_are_those_of_slurmctld_alone(gres: str, held: tuple[str, ...]) -> None:
    late = {"MPSR_LATE": "1", "MPSR_LATE_GRES": gres, "SLURM_JOB_GPUS": "7", "CUDA_VISIBLE_DEVICES": "7"}
    assert job_environment(BASE | late).gpus == held
    assert job_environment(BASE | late | {"MPSR_LATE": ""}).gpus == ("7",)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"SLURM_JOB_ID": ""}, "SLURM_JOB_ID"),
        ({"SLURM_JOB_ID": "../1"}, "SLURM_JOB_ID"),
        ({"SLURM_JOB_UID": ""}, "SLURM_JOB_UID"),
        ({"SLURM_JOB_UID": "-1"}, "SLURM_JOB_UID"),
        ({"SLURM_JOB_UID": "99999999999999"}, "SLURM_JOB_UID"),
        ({"SLURMD_NODENAME": "../etc"}, "SLURMD_NODENAME"),
        ({"SLURMD_NODENAME": ""}, "SLURMD_NODENAME"),
    ],
)
def test_a_prolog_without_its_environment_says_what_is_wrong(change: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        job_environment(BASE | change)


@pytest.mark.parametrize(
    ("environ", "job"),
    [
        ({"SLURM_JOB_ID": "12"}, 12),
        ({"SLURM_JOB_ID": "12", "MPSR_LEASE": "/run/mpsr/n0/jobs/13.lease"}, 13),
        ({"SLURM_JOB_ID": "12", "MPSR_LEASE": "/run/mpsr/n0/jobs/x.lease"}, 12),
        ({"SLURM_JOB_ID": "12 13"}, None),
        ({}, None),
    ],
)
def test_the_job_of_a_process(environ: dict[str, str], job: int | None) -> None:
    assert process_job(environ) == job


@given(st.dictionaries(st.sampled_from([*BASE, "SLURM_JOB_GPUS", "SPANK_MPSR", "SLURM_JOB_USER"]), st.text()))
def test_any_environment_is_a_job_or_a_clear_error(change: dict[str, str]) -> None:
    try:
        job = job_environment(BASE | change)
    except ConfigError:
        return
    assert "/" not in job.node
    assert job.job > 0
    assert not set("/ \n") & set(job.user)


# ---------------------------------------------------------------------------------------------------- opening, closing


def test_a_pair_of_servers_or_the_active_one() -> None:
    both = domain_plan.opening(JobOptions(mps=True), KEY, GPUS, lambda _: None)
    assert both.colors == (A, B)
    assert both.servers() == {
        at(0): ("GPU-0",), at(0, "b"): ("GPU-0",), at(1): ("GPU-1",), at(1, "b"): ("GPU-1",)
    }  # fmt: skip
    assert both.active == {0: A, 1: A}
    alone = domain_plan.opening(JobOptions(mps=True, standby=False), KEY, GPUS[:1], lambda _: B)
    assert (alone.colors, alone.active) == ((B,), {0: B})
    exclusive = domain_plan.opening(JobOptions(mps=True), KEY, GPUS[:1], lambda _: None, pair=False)
    assert exclusive.colors == (A,)
    with pytest.raises(ConfigError, match="one server at a time"):
        domain_plan.opening(JobOptions(mps=True, require=Require.STANDBY), KEY, GPUS, lambda _: None, pair=False)
    no_rung = JobOptions(mps=True, recover=(Rung.RELAUNCH,))
    assert domain_plan.opening(no_rung, KEY, GPUS[:1], lambda _: None).colors == (A,)


def test_one_pair_over_all_gpus_of_a_job() -> None:
    """The first GPU names it, whatever the order is."""
    plan = domain_plan.opening(JobOptions(mps=True, servers=Servers.JOB), KEY, GPUS[::-1], lambda _: None)
    assert plan.servers() == {at(1): ("GPU-1", "GPU-0"), at(1, "b"): ("GPU-1", "GPU-0")}
    assert plan.active == {1: A}
    assert plan.servers([B]) == {at(1, "b"): ("GPU-1", "GPU-0")}


def test_slurms_numbers_are_places_in_gres_conf() -> None:
    assert domain_plan.slurm_numbers(GPUS[::-1], GPUS) == (1, 0)
    assert domain_plan.slurm_numbers(GPUS, GPUS, ("/dev/nvidia7", "/dev/nvidia1", "/dev/nvidia0")) == (2, 1)
    assert domain_plan.slurm_numbers(GPUS, GPUS, ("/dev/nvidia1",)) == (), "one that gres.conf does not have"


def test_what_cannot_be_had_is_refused() -> None:
    for options, word in (
        (JobOptions(mps=True, require=Require.STANDBY, standby=False), "standby"),
        (JobOptions(mps=True, require=Require.ISOLATION), "isolation"),
    ):
        with pytest.raises(ConfigError, match=word):
            domain_plan.opening(options, KEY, GPUS, lambda _: None)


def test_a_server_is_unused_when_no_open_lease_names_its_domain_and_gpu() -> None:
    servers = (at(0), at(0, "b"), at(0, "q1"), at(1), at(0, "a", "u7"))
    assert domain_plan.unused(servers, (LEASE,)) == (at(1), at(0, "a", "u7"))
    assert domain_plan.unused(servers, (replace(LEASE, state=LeaseState.REFUSED),)) == servers


# ---------------------------------------------------------------------------------------------------- locks


def locks(run: Path) -> DomainLocks:
    return DomainLocks(str(run), NodeName("n0"))


def test_a_domain_is_held_by_one_process_at_a_time(tmp_path: Path) -> None:
    first, second = locks(tmp_path), locks(tmp_path)
    with first.domain(KEY, timeout=1, create=True):
        with pytest.raises(MpsControlError, match="is locked by another process"), second.domain(KEY, timeout=0.01):
            pass
        with first.domain(KEY, timeout=0.01):
            pass
        with pytest.raises(MpsControlError), second.domain(KEY, timeout=0):
            pass
    with second.domain(KEY, timeout=0):
        pass
    assert os.stat(tmp_path / "n0/d/u1001/lock").st_mode & 0o077 == 0


def test_threads_of_one_process_share_a_held_domain_until_the_last_leaves(tmp_path: Path) -> None:
    ours, other = locks(tmp_path), locks(tmp_path)
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with ours.domain(KEY, timeout=1):
            inside.set()
            assert leave.wait(10)

    with ours.domain(KEY, timeout=1, create=True):
        thread = threading.Thread(target=hold)
        thread.start()
        assert inside.wait(10)
    with pytest.raises(MpsControlError), other.domain(KEY, timeout=0):
        pass
    leave.set()
    thread.join(10)
    with other.domain(KEY, timeout=0):
        pass


def test_a_closed_domain_is_only_opened_by_who_may_create_it(tmp_path: Path) -> None:
    with pytest.raises(MpsControlError, match="is closed: u1001"), locks(tmp_path).domain(KEY, timeout=0):
        pass
    with locks(tmp_path).domain(KEY, timeout=0, create=True):
        pass


def test_who_waits_for_a_domain_that_is_removed_gets_the_new_one(tmp_path: Path) -> None:
    ours, other = locks(tmp_path), locks(tmp_path)
    got = threading.Event()
    lock = tmp_path / "n0/d/u1001/lock"

    def wait() -> None:
        with other.domain(KEY, timeout=10, create=True):
            assert lock.exists()
            got.set()

    with ours.domain(KEY, timeout=1, create=True):
        waiter = threading.Thread(target=wait)
        waiter.start()
        assert not got.wait(0.02)
        lock.unlink()
        lock.parent.rmdir()
    waiter.join(10)
    assert got.is_set()
