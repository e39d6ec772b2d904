"""Batch jobs that no sbatch has read, as slurmrestd and job_submit.lua make them: what their environment and their script ask
for holds, on a real Slurm 22.05, or the job is refused."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.spank.node import ROOT
from tests.spank.site import Site
from tests.spank.slurm import wait_for

pytestmark = pytest.mark.cluster

SHOW = "echo ${MPSR_OPTIONS-none}; srun -Q bash -c 'echo ${MPSR_ROLE-none} ${MPSR_OPTIONS-none}'"
ON = "mps=on;domain=user;"
SPANK = "SLURM_SPANK__SLURM_SPANK_OPTION_mpsr_mps"


@pytest.fixture(scope="module")
def submit(tmp_path_factory: pytest.TempPathFactory) -> str:
    program = tmp_path_factory.mktemp("submit") / "submit"
    subprocess.run(["gcc", "-o", program, ROOT / "tests/programs/submit.c", "-lslurm"], check=True, timeout=60)
    return str(program)


@pytest.fixture
def rest(slurm: Site, submit: str, plugin: Callable[..., None]) -> Callable[..., str]:
    """Runs a script to its end, and gives its output."""
    plugin(f"prolog={slurm.cluster.dir}/prolog.hook", "batch_hint=off")

    def run(*lines: str, **environ: str) -> str:
        work = slurm.cluster.dir / "work"
        script, output = work / "rest.sh", work / "rest.out"
        script.write_text("\n".join(["#!/bin/bash", *lines, ""]))
        words = [f"{name}={value}" for name, value in ({"PATH": "/usr/bin:/bin"} | environ).items()]
        done = slurm.cluster.run(submit, str(script), str(output), *words)
        assert done.stdout, done.stderr
        job = done.stdout.strip()
        wait_for(lambda: "JobState=COMPLETED" in (now := slurm.cluster.job(int(job))) or "JobState=FAILED" in now, job)
        return Path(output).read_text()

    return run


@pytest.mark.parametrize(
    ("lines", "environ", "wanted"),
    [
        ((), {"MPSR_MPS": "on"}, ON),
        ((), {SPANK: "on"}, ON),
        ((), {"MPSR_MPS": "on", "MPSR_THREADS": "20"}, f"{ON}threads=20;"),
        (("#SBATCH --mps",), {}, ON),
        ((), {"SLURM_SPANK_MPSR": "mps=on;threads=20"}, f"{ON}threads=20;"),
        (("# a comment", "", "#SBATCH -J name --mps-threads 30 # --mps=off"), {}, f"{ON}threads=30;"),
        (
            ("#SBATCH --mps", "#SBATCH --mps-threads=40", "#SBATCH --mps-threads=30"),
            {"MPSR_THREADS": "20"},
            f"{ON}threads=30;",
        ),
    ],
)
def test_what_is_asked_for_holds(
    rest: Callable[..., str], lines: tuple[str, ...], environ: dict[str, str], wanted: str
) -> None:
    script, step = rest(*lines, SHOW, **environ).splitlines()
    assert script.startswith(wanted)
    assert step.startswith("active ")
    assert wanted.removeprefix(ON) in step


@pytest.mark.parametrize(
    ("lines", "environ"),
    [
        ((), {}),
        (("true", "#SBATCH --mps"), {}),
        (("#SBATCH hetjob", "#SBATCH --mps"), {}),
        (("##SBATCH --mps", "#SBATCH-x --mps"), {}),
        ((), {"MPSR_THREADS": "20"}),
        (("#SBATCH --mps=off",), {"MPSR_MPS": "off"}),
    ],
)
def test_who_did_not_ask_gets_nothing(
    rest: Callable[..., str], lines: tuple[str, ...], environ: dict[str, str]
) -> None:
    assert rest(*lines, SHOW, **environ) == "none\nnone none\n"


@pytest.mark.parametrize(
    ("lines", "environ", "why"),
    [
        ((), {"MPSR_MPS": "maybe"}, "mpsr: MPSR_MPS: "),
        ((), {"SLURM_SPANK_MPSR": "mps=on;threads=300"}, "mpsr: --mps-threads: "),
        ((), {"SLURM_SPANK_MPSR": "mps on"}, "mpsr: SLURM_SPANK_MPSR: not key=value: mps on"),
        (("#SBATCH --mps-threads=300",), {}, "mpsr: --mps-threads: "),
    ],
)
def test_what_cannot_be_had_is_refused(
    rest: Callable[..., str], lines: tuple[str, ...], environ: dict[str, str], why: str
) -> None:
    said = rest(*lines, SHOW, **environ)
    assert why in said
    assert "none" not in said


def test_a_node_without_a_way_to_open_it_late_refuses(
    rest: Callable[..., str], slurm: Site, plugin: Callable[..., None]
) -> None:
    plugin()
    assert "cannot have MPS on n0" in rest(SHOW, MPSR_MPS="on")
