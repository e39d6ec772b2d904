"""`options.partitions` on a real Slurm, and jobs that come by a real slurmrestd: plugin, prolog and check decide alike."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster import rest
from tests.cluster.sandbox import Sandbox, wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.sim]

OPTIONS = """\
    partitions:
      shared:
        defaults: {mps: on, domain: job}
        locked: [domain]
      alone: {locked: [mps]}
"""
CONF = ("PartitionName=shared Nodes=ALL State=UP", "PartitionName=alone Nodes=ALL State=UP")
SHOW = "echo ${MPSR_OPTIONS-none}; srun -Q bash -c 'echo ${MPSR_ROLE-none}'"
GPU = "--gres=shard:1"
SPANK = "SLURM_SPANK__SLURM_SPANK_OPTION_mpsr_mps"


def slow(*values: object) -> Any:
    """Left out where time is short: each job takes about a second."""
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.fixture(scope="module")
def site() -> Iterator[Sandbox]:
    with Sandbox(nodes=1, options=OPTIONS, conf=CONF) as it:
        yield it


@pytest.fixture(autouse=True)
def _nothing_stays(site: Sandbox) -> Iterator[None]:
    yield
    wait_for(lambda: not site.residue(), 20, lambda: str(site.residue()))


def ended(site: Sandbox, job: int) -> tuple[str, list[str]]:
    """State and output of a batch job, without the hint on batch scripts."""
    state = site.wait(job)["JobState"]
    return state, site.output(job).splitlines()


@pytest.mark.parametrize(
    ("options", "script", "role"),
    [
        (("-pshared",), "mps=on;domain=job;", "active"),
        (("-pshared,main", "--mps-threads=20"), "mps=on;domain=job;threads=20;", "active"),
        (("-pshared", "--mps=off"), "none", "none"),
        (("-palone",), "none", "none"),
        slow((), "none", "none"),
        slow(("--mps",), "mps=on;domain=user;", "active"),
    ],
)
def test_a_batch_job_has_what_its_partition_says(
    site: Sandbox, options: tuple[str, ...], script: str, role: str
) -> None:
    state, lines = ended(site, site.sbatch(GPU, *options, script=SHOW))
    assert (state, lines[0][: len(script)], lines[1]) == ("COMPLETED", script, role)


def test_a_job_without_a_gpu_has_no_mps_by_default(site: Sandbox) -> None:
    assert ended(site, site.sbatch("-pshared", script=SHOW)) == ("COMPLETED", ["none", "none"])
    state, lines = ended(site, site.sbatch("-pshared", "--mps", script=SHOW))
    assert (state, "no GPU in this allocation" in "\n".join(lines)) == ("FAILED", True), lines
    assert site.srun("-Q", "-pshared", "bash", "-c", "echo ${MPSR_ROLE-none}").out == "none\n"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("-pshared", "--mps-domain=user"), "mpsr: --mps-domain: fixed by the administrator at job: user"),
        (("-palone", "--mps"), "mpsr: --mps: fixed by the administrator at off: on"),
        slow(("-palone", "--mps-threads=20"), "mpsr: --mps-threads: fixed by the administrator at off: 20"),
    ],
)
def test_what_a_partition_does_not_have_is_refused(site: Sandbox, options: tuple[str, ...], why: str) -> None:
    state, lines = ended(site, site.sbatch(GPU, *options, script=SHOW))
    assert (state, why in "\n".join(lines)) == ("FAILED", True), lines
    assert set(site.good(["sinfo", "-hN", "-o", "%T"]).split()) <= {"idle", "mixed"}
    step = site.srun(GPU, *options, "true")
    assert (step.status != 0, why in step.err) == (True, True), step


def test_an_srun_of_its_own_too(site: Sandbox) -> None:
    assert site.srun("-Q", GPU, "-pshared", "bash", "-c", "echo $MPSR_ROLE; grep ^partition= $MPSR_LEASE").out == (
        "active\npartition=shared\n"
    )


def test_check_finds_both_files_alike(site: Sandbox) -> None:
    said = site.run(["mpsr", "check", "--config", "/etc/slurm/mpsr-n0.yaml"], node="n0")
    assert "agree with mpsr.yaml" in said.out + said.err
    file = site.path("/etc/slurm/plugstack.conf.d/mpsr.conf")
    before = file.read_text()
    try:
        file.write_text(before.replace("default.domain=job lock=domain", "default.domain=job"))
        said = site.run(["mpsr", "check", "--config", "/etc/slurm/mpsr-n0.yaml"], node="n0")
        assert "partition=shared" in said.out + said.err
    finally:
        file.write_text(before)


needs_rest = pytest.mark.skipif(bool(rest.missing()), reason=rest.missing())


@needs_rest
@pytest.mark.parametrize(
    ("line", "environ", "partition", "script"),
    [
        ("", {"MPSR_MPS": "on"}, "main", "mps=on;domain=user;"),
        ("#SBATCH --mps --mps-threads=20", {}, "main", "mps=on;domain=user;threads=20;"),
        slow("", {SPANK: "on"}, "main", "mps=on;domain=user;"),
        ("", {}, "shared", "mps=on;domain=job;"),
    ],
)
def test_a_job_that_comes_by_slurmrestd(
    site: Sandbox, line: str, environ: dict[str, str], partition: str, script: str
) -> None:
    state, lines = ended(
        site, rest.submit(site, f"#!/bin/bash\n{line}\n{SHOW}\n", environ=environ, partition=partition)
    )
    assert (state, lines[0][: len(script)], lines[1]) == ("COMPLETED", script, "active")


@needs_rest
@pytest.mark.parametrize(
    ("line", "environ", "partition", "why"),
    [
        ("", {"MPSR_MPS": "maybe"}, "main", "mpsr: MPSR_MPS: not on or off: maybe"),
        ("#SBATCH --mps", {}, "alone", "mpsr: --mps: fixed by the administrator at off: on"),
        slow("#SBATCH --mps-domain=user", {}, "shared", "mpsr: --mps-domain: fixed by the administrator at job: user"),
    ],
)
def test_what_slurmrestd_does_not_refuse_the_node_does(
    site: Sandbox, line: str, environ: dict[str, str], partition: str, why: str
) -> None:
    job = rest.submit(site, f"#!/bin/bash\n{line}\n{SHOW}\n", environ=environ, partition=partition)
    state, lines = ended(site, job)
    assert (state, why in "\n".join(lines)) == ("FAILED", True), lines
