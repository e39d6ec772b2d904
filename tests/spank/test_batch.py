"""Batch scripts on a real Slurm: the command mpsr is on their PATH, and one line tells who will not be recovered."""

from collections.abc import Callable

import pytest

from tests.spank.site import Site

pytestmark = pytest.mark.cluster

HINT = "mpsr: batch script: its programs run under MPS, but a program without resilience.session() is not recovered"
PATH = {"PATH": "/usr/bin:/bin"}


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("true", 1),
        ("# srun is not for us\n  #SBATCH srun\necho mysrun srun.sh; ls /opt/mpsr/bin\ntrue; true", 1),
        ("true\nsrun -Q true", 0),
        ("exec /usr/bin/srun -Q true", 0),
        ("type mpsr run || true", 0),
    ],
)
def test_a_script_without_steps_is_told_once(slurm: Site, script: str, told: int) -> None:
    assert slurm.cluster.batch(script, "--mps")[1].count(HINT) == told


def test_who_did_not_ask_is_told_nothing(slurm: Site) -> None:
    assert slurm.cluster.batch("true")[1] == ""
    assert slurm.cluster.batch("true", "--mps", "--mps=off")[1] == ""


def test_a_site_may_do_without(slurm: Site, plugin: Callable[..., None]) -> None:
    plugin("batch_hint=off")
    assert slurm.cluster.batch("true", "--mps")[1] == ""


def test_mpsr_comes_last_on_the_path(slurm: Site, plugin: Callable[..., None]) -> None:
    plugin("batch_hint=off", "mpsr=/opt/mpsr/bin/mpsr")
    show = "echo $PATH; srun -Q bash -c 'echo $PATH'"
    assert slurm.cluster.batch(show, "--mps", env=PATH)[1] == "/usr/bin:/bin:/opt/mpsr/bin\n" * 2
    assert slurm.cluster.batch("echo $PATH", env=PATH)[1] == "/usr/bin:/bin\n"
    plugin("batch_hint=off", "mpsr=/usr/bin/mpsr")
    assert slurm.cluster.batch("echo $PATH", "--mps", env=PATH)[1] == "/usr/bin:/bin\n"
