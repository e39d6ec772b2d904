"""Nothing but bad arguments, on the real sbatch, srun and salloc: one clear line, and nothing is submitted."""

import pytest

from tests.spank.site import Site

pytestmark = pytest.mark.cluster

BAD = {
    "--mps=maybe": "mpsr: --mps: not on or off: maybe",
    "--mps=ON": "mpsr: --mps: not on or off: ON",
    "--mps-domain=world": "mpsr: --mps-domain: not one of job,user,shared: world",
    "--mps-domain=": "mpsr: --mps-domain: not one of job,user,shared: ",
    "--mps-domain=job,user": "mpsr: --mps-domain: not one of job,user,shared: job,user",
    "--mps-threads=0": "mpsr: --mps-threads: not a percentage from 1 to 100: 0",
    "--mps-threads=101": "mpsr: --mps-threads: not a percentage from 1 to 100: 101",
    "--mps-threads=25%": "mpsr: --mps-threads: not a percentage from 1 to 100: 25%",
    "--mps-threads=-5": "mpsr: --mps-threads: not a percentage from 1 to 100: -5",
    "--mps-threads=1e1": "mpsr: --mps-threads: not a percentage from 1 to 100: 1e1",
    "--mps-threads= 5": "mpsr: --mps-threads: not a percentage from 1 to 100:  5",
    "--mps-memory=0": "mpsr: --mps-memory: not a size such as 512M or 4G: 0",
    "--mps-memory=4GB": "mpsr: --mps-memory: not a size such as 512M or 4G: 4GB",
    "--mps-memory=much": "mpsr: --mps-memory: not a size such as 512M or 4G: much",
    "--mps-memory=99999999999999999999": "mpsr: --mps-memory: not a size such as 512M or 4G: 99999999999999999999",
    "--mps-state=1.5G": "mpsr: --mps-state: not a size such as 512M or 4G: 1.5G",
    "--mps-standby=no": "mpsr: --mps-standby: not on or off: no",
    "--mps-recover=": "mpsr: --mps-recover: not a list of different words out of standby,restore,relaunch,requeue: ",
    "--mps-recover=standby,standby":
        "mpsr: --mps-recover: not a list of different words out of standby,restore,relaunch,requeue: standby,standby",
    "--mps-recover=standby,pray":
        "mpsr: --mps-recover: not a list of different words out of standby,restore,relaunch,requeue: standby,pray",
    "--mps-retries=101": "mpsr: --mps-retries: not a number from 0 to 100: 101",
    "--mps-retries=-1": "mpsr: --mps-retries: not a number from 0 to 100: -1",
    "--mps-on-culprit=ignore": "mpsr: --mps-on-culprit: not one of fail,quarantine,requeue: ignore",
    "--mps-require=guard": "mpsr: --mps-require: not one of mps,standby,isolation: guard",
    "--mps-domain=$(id)": "mpsr: --mps-domain: not one of job,user,shared: $(id)",
    "--mps-domain=job\nuser": "mpsr: --mps-domain: not one of job,user,shared: job?user",
}  # fmt: skip


def ours(errors: str) -> list[str]:
    """Our lines in a command's errors, without Slurm's own prefix."""
    return [line.partition("error: ")[2] for line in errors.splitlines() if "mpsr: " in line]


@pytest.mark.parametrize("argument", BAD, ids=repr)
def test_option(slurm: Site, argument: str) -> None:
    done = slurm.cluster.run("sbatch", argument, "--wrap=true")
    assert ours(done.stderr) == [BAD[argument]]
    assert (done.returncode, done.stdout) == (255, "")


@pytest.mark.parametrize("command", [("srun", "true"), ("salloc", "true")])
def test_srun_and_salloc_refuse_alike(slurm: Site, command: tuple[str, str]) -> None:
    done = slurm.cluster.run(command[0], "--mps-threads=0", command[1])
    assert ours(done.stderr) == [BAD["--mps-threads=0"]]
    assert done.returncode == 255


def test_in_a_script(slurm: Site) -> None:
    done = slurm.cluster.run("sbatch", stdin="#!/bin/bash\n#SBATCH --mps-threads=0\ntrue\n")
    assert ours(done.stderr) == [BAD["--mps-threads=0"]]
    assert done.returncode == 255


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("MPSR_MPS", "yes", "mpsr: MPSR_MPS: not on or off: yes"),
        ("MPSR_DOMAIN", "world", "mpsr: MPSR_DOMAIN: not one of job,user,shared: world"),
        ("MPSR_THREADS", "0", "mpsr: MPSR_THREADS: not a percentage from 1 to 100: 0"),
        ("MPSR_MEMORY", "4GB", "mpsr: MPSR_MEMORY: not a size such as 512M or 4G: 4GB"),
        ("MPSR_RETRIES", "9" * 400, None),
    ],
)
def test_environment(slurm: Site, name: str, value: str, line: str | None) -> None:
    done = slurm.cluster.run("sbatch", "--mps", "--wrap=true", env={name: value})
    assert ours(done.stderr)[0].startswith(line or f"mpsr: {name}: not a number from 0 to 100: 999")
    assert done.returncode != 0
    assert done.stdout == ""


@pytest.mark.parametrize(
    "plugin_argument",
    [
        "lock=dmain",
        "default.domain=world",
        "nonsense",
        "run=relative",
        "apptainer=yes",
        "batch_hint=1",
        "mpsr=bin/mpsr",
        "forbid=domain=user",
    ],
)
def test_of_the_administrator(slurm: Site, plugin: object, plugin_argument: str) -> None:
    """Told once; who did not ask is not touched, who asked is refused."""
    slurm.plugin(plugin_argument)
    plain = slurm.cluster.run("srun", "echo", "unharmed")
    assert (plain.returncode, plain.stdout) == (0, "unharmed\n")
    assert len(ours(plain.stderr)) == 1
    assert ours(plain.stderr)[0].startswith("mpsr: plugstack.conf: ")
    asked = slurm.cluster.run("sbatch", "--mps", "--wrap=true")
    assert "mpsr: --mps: cannot be asked for while plugstack.conf is wrong" in asked.stderr
    assert asked.returncode == 255
