"""From the command line to Prolog, script and step, on a real Slurm: what is asked for, by whom, and what arrives."""

import re

import pytest

from tests.spank.site import Site
from tests.spank.slurm import wait_for

pytestmark = pytest.mark.cluster


def submitted(slurm: Site, *options: str, env: dict[str, str] | None = None) -> dict[str, str]:
    """The options that a job's Prolog sees, by key; empty when it sees none."""
    done = slurm.cluster.run("srun", "-Q", *options, "bash", "-c", "echo $SLURM_JOB_ID", env=env)
    job = int(done.stdout)
    text = (slurm.cluster.dir / f"prolog.env.{job}").read_text()
    found = re.search(r"^SPANK_MPSR=(.*)$", text, re.MULTILINE)
    return dict(pair.split("=", 1) for pair in found[1].split(";")) if found else {}


@pytest.mark.parametrize("command", ["sbatch", "srun", "salloc"])
def test_help_shows_every_option_tagged(slurm: Site, command: str) -> None:
    shown = slurm.cluster.run(command, "--help").stdout
    for option in "mps domain threads memory state standby recover retries on-culprit ranks require".split():
        name = "mps" if option == "mps" else f"mps-{option}"
        assert re.search(rf"--{name}=\S+\s+\[mpsr\] ", shown), name


def test_the_canonical_string_reaches_prolog_and_epilog(slurm: Site) -> None:
    job, _ = slurm.cluster.batch("true", "--mps-threads=025", "--mps-memory=4g", "--mps-recover=requeue,restore")
    line = "SPANK_MPSR=mps=on;threads=25;memory=4096;recover=restore,requeue\n"
    assert line in (slurm.cluster.dir / f"prolog.env.{job}").read_text()
    epilog = slurm.cluster.dir / f"epilog.env.{job}"
    wait_for(epilog.exists, "the epilog")
    wait_for(lambda: line in epilog.read_text(), "the epilog's environment")


@pytest.mark.parametrize(
    ("arguments", "env", "options", "expected"),
    [
        ("", {}, ["--mps"], {"mps": "on"}),
        ("", {}, ["--mps-standby=off"], {"mps": "on", "standby": "off"}),
        ("", {"MPSR_DOMAIN": "job"}, ["--mps"], {"domain": "job"}),
        ("", {"MPSR_MPS": "on", "MPSR_THREADS": "5"}, [], {"mps": "on", "threads": "5"}),
        ("", {"MPSR_DOMAIN": "job"}, ["--mps-domain=user"], {"domain": "user"}),
        ("", {"MPSR_MPS": "off"}, ["--mps"], {"mps": "on"}),
        ("", {"MPSR_MPS": ""}, ["--mps"], {"mps": "on"}),
        ("default.domain=job default.threads=7", {}, ["--mps-threads=8"], {"mps": "on", "threads": "8"}),
        ("default.domain=job", {"MPSR_DOMAIN": "user"}, ["--mps"], {"domain": "user"}),
        ("default.mps=on", {}, [], {"mps": "on"}),
        ("lock=domain", {}, ["--mps-domain=user"], {"domain": "user"}),
    ],
)
def test_precedence(
    slurm: Site, plugin: object, arguments: str, env: dict[str, str], options: list[str], expected: dict[str, str]
) -> None:
    slurm.plugin(*arguments.split())
    assert submitted(slurm, *options, env=env) == {"mps": "on", **expected}


@pytest.mark.parametrize(
    ("arguments", "env", "options"),
    [
        ("", {}, []),
        ("", {"MPSR_DOMAIN": "job"}, []),  # a twin alone asks for nothing
        ("", {"MPSR_MPS": "on"}, ["--mps=off"]),
        ("", {}, ["--mps-threads=5", "--mps=off"]),
        ("default.mps=on", {}, ["--mps=off"]),
        ("default.mps=on", {"MPSR_MPS": "off"}, []),
        ("partition=other default.mps=on", {}, []),
    ],
)
def test_off_hands_nothing_to_the_prolog(
    slurm: Site, plugin: object, arguments: str, env: dict[str, str], options: list[str]
) -> None:
    slurm.plugin(*arguments.split())
    assert submitted(slurm, *options, env=env) == {}


def test_a_no_is_handed_on_where_a_partition_says_yes(slurm: Site, plugin: object) -> None:
    slurm.plugin("partition=main default.mps=on")
    assert submitted(slurm, "--mps=off") == {"mps": "off"}


@pytest.mark.parametrize(
    ("arguments", "options", "env", "line"),
    [
        ("lock=domain", ["--mps-domain=job"], {}, "mpsr: --mps-domain: fixed by the administrator at user: job"),
        (
            "lock=domain",
            ["--mps"],
            {"MPSR_DOMAIN": "job"},
            "mpsr: MPSR_DOMAIN: fixed by the administrator at user: job",
        ),
        ("forbid=domain=shared", ["--mps-domain=shared"], {}, "shared is forbidden by the administrator: shared"),
    ],
)
def test_locked_and_forbidden(
    slurm: Site, plugin: object, arguments: str, options: list[str], env: dict[str, str], line: str
) -> None:
    slurm.plugin(*arguments.split())
    done = slurm.cluster.run("sbatch", *options, "--wrap=true", env=env)
    assert line in done.stderr
    assert done.returncode != 0
    assert done.stdout == ""


def test_steps_inherit_and_override(slurm: Site) -> None:
    script = """
    show() { echo "$1:$(srun "${@:2}" bash -c 'echo "${MPSR_OPTIONS:-off}"')"; }
    show job
    show threads --mps-threads=9
    MPSR_RETRIES=1 show twin
    show off --mps=off
    """
    _, out = slurm.cluster.batch(script, "--mps-threads=30", "--mps-retries=2")
    got = dict(line.split(":", 1) for line in out.splitlines())
    assert "threads=30;" in got["job"]
    assert "threads=9;" in got["threads"]
    assert "retries=2;" in got["twin"]  # the job's command line beats a twin in its script
    assert got["off"] == "off"


def test_twins_survive_a_clean_environment(slurm: Site) -> None:
    script = 'echo "$MPSR_OPTIONS"; /usr/bin/srun /usr/bin/env'
    _, out = slurm.cluster.batch(script, "--mps", "--export=NONE", env={"MPSR_THREADS": "11"})
    assert out.splitlines()[0].split(";")[2] == "threads=11"
    assert any(line.startswith("MPSR_OPTIONS=") and "threads=11" in line for line in out.splitlines())


def test_salloc_hands_its_options_to_srun(slurm: Site) -> None:
    done = slurm.cluster.run("salloc", "--mps-threads=12", "srun", "env")
    assert "threads=12;" in done.stdout


VOLATILE = re.compile(
    r"^(SLURM_JOB_?ID|SLURM_JOB_(START_TIME|END_TIME|SLUID)|SLURM_TASK_PID|SLURM_.*PORT|SLURM_WORKING_CLUSTER|SLURM_TOPOLOGY.*|_|SHLVL)=",
    re.M,
)


def seen(slurm: Site, *, batch: bool) -> list[str]:
    """What a task sees of the world: its environment, and the chain of its parents' names up to slurmstepd."""
    look = (
        "env | sort; p=$$; "
        "while read -r _ n _ q _ </proc/$p/stat; echo parent:$n; [ $n != '(slurmstepd)' ]; do p=$q; done; "
        "ulimit -a; grep -E '^Sig[^Q]|^NoNewPrivs' /proc/self/status; "
        "set -- /proc/$$/fd/*; echo fds $#"
    )
    text = slurm.cluster.batch(look)[1] if batch else slurm.cluster.run("srun", "bash", "-c", look).stdout
    return [line for line in text.splitlines() if not VOLATILE.match(line)]


@pytest.mark.parametrize("batch", [True, False])
def test_who_did_not_ask_cannot_tell(slurm: Site, plugin: object, batch: bool) -> None:
    slurm.cluster.plugstack("")
    without = seen(slurm, batch=batch)
    slurm.plugin()
    assert seen(slurm, batch=batch) == without
    slurm.plugin(mode="required")
    assert seen(slurm, batch=batch) == without
    assert any(line.startswith("parent:") for line in without)
    assert not [line for line in without if re.match(r"MPSR|CUDA_MPS|\w*SPANK", line)]
