"""Steps under the supervisor on a real Slurm: exit codes, signals, streams and limits are what Slurm users know."""

import os
import pty
import re
import signal
import subprocess
from pathlib import Path

import pytest

from resilience.model.lease import LeaseState
from resilience.model.options import JobOptions
from tests.spank.node import GPUS
from tests.spank.site import Site
from tests.spank.slurm import wait_for

pytestmark = pytest.mark.cluster


def shell(slurm: Site, script: str, *options: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return slurm.cluster.run("srun", "-Q", "--mps", *options, "bash", "-c", script, stdin=stdin)


def test_the_supervisor_stands_before_the_task(slurm: Site) -> None:
    done = shell(
        slurm, "tr '\\0' ' ' </proc/$PPID/cmdline; echo $CUDA_MPS_PIPE_DIRECTORY $CUDA_VISIBLE_DEVICES ${MPSR_ARGV0-x}"
    )
    assert re.match(r"/proc/self/fd/\d+/mpsr-launch -c ", done.stdout)
    assert done.stdout.endswith("/pipes/a GPU-aaaa x\n")
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("script", "status"),
    [
        ("exit 0", 0),
        ("exit 42", 42),
        ("kill -SEGV $$", 139),
        ("kill -ABRT $$", 134),
        ("kill -TERM $$", 143),
        ("exit 139", 139),
    ],
)
def test_exit_status(slurm: Site, script: str, status: int) -> None:
    assert shell(slurm, script).returncode == status


def test_unknown_command(slurm: Site) -> None:
    done = slurm.cluster.run("srun", "-Q", "--mps", "no-such-command")
    assert done.returncode == 127
    assert "mpsr: no-such-command: cannot be run: No such file or directory" in done.stderr


def test_standard_input_and_labels(slurm: Site) -> None:
    assert shell(slurm, "cat; echo end", stdin="one\ntwo\n").stdout == "one\ntwo\nend\n"
    done = shell(slurm, "echo $SLURM_PROCID on $CUDA_VISIBLE_DEVICES", "-n2", "--label")
    assert sorted(done.stdout.splitlines()) == ["0: 0 on GPU-aaaa", "1: 1 on GPU-bbbb"]


def test_one_failing_task_of_two(slurm: Site) -> None:
    assert shell(slurm, "exit $((SLURM_PROCID * 7))", "-n2").returncode == 7


def test_limits_and_directory(slurm: Site) -> None:
    done = slurm.cluster.run(
        "bash", "-c", "ulimit -n 333; ulimit -c 0; srun -Q --mps bash -c 'ulimit -n; ulimit -c; pwd'"
    )
    assert done.stdout.split() == ["333", "0", str(slurm.cluster.dir / "work")]


def test_pty(slurm: Site) -> None:
    control, terminal = pty.openpty()
    command = ["srun", "-Q", "--mps", "--pty", "bash", "-c", "tty; read x; echo got $x; stty size; exit 5"]
    process = subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, env=slurm.cluster.environment)
    os.close(terminal)
    os.write(control, b"word\n")
    shown = b""
    try:
        while chunk := os.read(control, 4096):
            shown += chunk
    except OSError:
        pass  # the terminal's last user has gone
    assert process.wait(20) == 5
    assert b"/dev/pts/" in shown
    assert b"got word" in shown


def running_step(slurm: Site, script: str, *options: str) -> tuple[subprocess.Popen[str], str]:
    """A step that has said `up <job>`; its srun, and the job."""
    process = subprocess.Popen(
        ["srun", "-Q", "-u", "--mps", *options, "bash", "-c", f"echo up $SLURM_JOB_ID; {script}"],
        env=slurm.cluster.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout
    line = process.stdout.readline()
    assert line.startswith("up "), line
    return process, line.split()[1]


def test_scancel_signal_reaches_the_task_once(slurm: Site) -> None:
    script = "n=0; trap 'n=$((n+1)); echo usr1 $n' USR1; trap 'echo end $n; exit 3' USR2; while :; do sleep 0.1; done"
    process, job = running_step(slurm, script)
    assert process.stdout
    slurm.cluster.run("scancel", "--signal=USR1", f"{job}.0")
    assert process.stdout.readline() == "usr1 1\n"
    slurm.cluster.run("scancel", "--signal=USR2", f"{job}.0")
    out, _ = process.communicate(timeout=20)
    assert out == "end 1\n"
    assert process.returncode == 3


def test_scancel(slurm: Site) -> None:
    process, job = running_step(slurm, "sleep 600")
    slurm.cluster.run("scancel", job)
    process.communicate(timeout=20)
    assert process.returncode != 0
    wait_for(lambda: "JobState=CANCELLED" in slurm.cluster.job(int(job)), "the job's end")


def test_scancel_of_a_task_that_ignores_sigterm(slurm: Site) -> None:
    process, job = running_step(slurm, "trap '' TERM; while :; do sleep 0.2; done")
    slurm.cluster.run("scancel", job)
    process.communicate(timeout=25)  # KillWait is 2 s here
    wait_for(lambda: slurm.cluster.node_state() == "idle", "an idle node", 20)
    assert not slurm.cluster.run("bash", "-c", f"grep -l SLURM_JOB_ID={job} /proc/[0-9]*/environ 2>/dev/null").stdout


def test_user_gives_the_launcher_by_hand(slurm: Site) -> None:
    launcher = str(slurm.built / "mpsr-launch")
    done = slurm.cluster.run("srun", "-Q", "--mps", launcher, "bash", "-c", "echo $MPSR_ROLE; exit 4")
    assert (done.stdout, done.returncode) == ("active\n", 4)


def test_several_programs_run_under_mps_and_are_told_that_nobody_supervises_them(slurm: Site) -> None:
    conf = slurm.cluster.dir / "work/several.conf"
    show = "bash -c 'echo $SLURM_PROCID $CUDA_MPS_PIPE_DIRECTORY $CUDA_VISIBLE_DEVICES ${MPSR_ARGV0-x}'"
    launcher = slurm.built / "mpsr-launch"
    conf.write_text(f"# by rank\n0-1 {show}\n\n2 {launcher} bash -c 'echo supervised $MPSR_ROLE; exit 6'\n")
    done = slurm.cluster.run("srun", "-Q", "--mps", "-n3", "--multi-prog", str(conf))
    gpus = f"{slurm.run}/n0/d/u0"
    expected = [f"0 {gpus}/g0/a GPU-aaaa x", f"1 {gpus}/g3/a GPU-bbbb x", "supervised active"]
    assert sorted(done.stdout.splitlines()) == expected
    assert done.stderr.count("mpsr: --multi-prog: under MPS, but without recovery") == 1
    assert done.returncode == 6


def test_so_are_those_whose_file_is_not_on_the_node(slurm: Site) -> None:
    """srun has sent its text along; here it is gone when the task starts."""
    conf = slurm.cluster.dir / "work/gone.conf"
    conf.write_text("0 bash -c 'echo $CUDA_MPS_PIPE_DIRECTORY'\n")
    prolog = slurm.cluster.dir / "work/remove"
    prolog.write_text(f"#!/bin/sh\nrm {conf}\n")
    prolog.chmod(0o755)
    done = slurm.cluster.run("srun", "-Q", "--mps", f"--prolog={prolog}", "--multi-prog", "gone.conf")
    assert done.stdout == f"{slurm.run}/n0/d/u0/g0/a\n", done.stderr
    assert "mpsr: --multi-prog" in done.stderr


@pytest.mark.parametrize("word", ["1 a\n2 b\n", "x", "0"])
def test_a_program_with_one_argument_is_not_taken_for_several(slurm: Site, word: str) -> None:
    done = slurm.cluster.run("srun", "-Q", "--mps", "printf", word)
    assert (done.stdout, done.stderr) == (word, GPUS)
    assert "MPSR" not in done.stdout


def test_an_ordinary_user(slurm: Site) -> None:
    done = slurm.cluster.run("srun", "-Q", "--mps", "id", "-un", user="daemon", env={"HOME": "/"})
    assert (done.stdout, done.returncode) == ("daemon\n", 0), done.stderr


# ---------------------------------------------------------------- batch scripts


def test_a_batch_script_gets_the_environment_but_no_supervisor(slurm: Site) -> None:
    script = (
        "tr '\\0' ' ' </proc/$PPID/cmdline; echo; echo $CUDA_MPS_PIPE_DIRECTORY $CUDA_VISIBLE_DEVICES ${MPSR_ARGV0-x}"
    )
    _, out = slurm.cluster.batch(script, "--mps")
    hint, gpus, parent, environment = out.splitlines()
    assert "mpsr: batch script: " in hint
    assert "mpsr: batch script: its programs see one of the job's 2 GPUs" in gpus
    assert parent.startswith("slurmstepd: [")
    assert environment == f"{slurm.run}/n0/d/u0/g0/a GPU-aaaa x"


def test_a_step_that_is_off_in_a_job_that_is_on(slurm: Site) -> None:
    _, out = slurm.cluster.batch("srun --mps=off env", "--mps", "--mps-threads=9")
    assert not re.findall(r"^(?:CUDA_MPS|MPSR)_.*", out, re.MULTILINE)


# ---------------------------------------------------------------- refusals at run time


def last_state(slurm: Site, job: int) -> str:
    shown = slurm.cluster.job(job)
    found = re.search(r"JobState=(\S+).*ExitCode=(\S+)", shown)
    assert found, shown
    return f"{found[1]} {found[2]}"


@pytest.mark.parametrize("mode", ["optional", "required"])
@pytest.mark.parametrize("case", ["refused", "missing", "untrusted", "broken"])
def test_no_lease_fails_the_job_and_not_the_node(
    slurm: Site, plugin: object, mode: str, case: str, tmp_path: Path
) -> None:
    slurm.plugin(mode=mode)
    hook = slurm.cluster.dir / "prolog.hook"
    kept = hook.read_text()
    leases = f"{slurm.run}/n0/jobs/$SLURM_JOB_ID.lease"
    try:
        match case:
            case "refused":
                slurm.lease_template(state=LeaseState.REFUSED, reason="no server of GPU 0 answers")
            case "missing":
                hook.write_text("#!/bin/bash\n")
            case "untrusted":
                hook.write_text(f"{kept}\nchmod 666 {leases}\n")
            case "broken":
                hook.write_text(f"{kept}\nsed -i s/^state=.*/state=ajar/ {leases}\n")
        job, out = slurm.cluster.batch("echo ran", "--mps")
        step = slurm.cluster.run("srun", "-Q", "--mps", "echo", "ran")
    finally:
        hook.write_text(kept)
        slurm.lease_template()
    word = {
        "refused": "no server of GPU 0 answers",
        "missing": "no lease",
        "untrusted": "only root may write",
        "broken": "ajar",
    }
    for text in (out, step.stderr):
        assert "ran" not in text.split()
        assert word[case] in text
    assert "ran" not in step.stdout
    assert last_state(slurm, job) == "FAILED 1:0"
    assert step.returncode == 1
    wait_for(lambda: slurm.cluster.node_state() == "idle", "an idle node")


def test_the_node_can_take_the_standby_away(slurm: Site) -> None:
    slurm.lease_template(options=JobOptions(mps=True, standby=False))
    try:
        done = shell(slurm, "echo $MPSR_OPTIONS")
    finally:
        slurm.lease_template()
    assert "standby=off" in done.stdout


def test_options_are_checked_again_on_the_node(slurm: Site, plugin: object) -> None:
    """A user with an own plugstack.conf gets past the checks at submission, not past those on the node."""
    slurm.plugin("forbid=domain=shared")
    own = slurm.cluster.dir / "own"
    own.mkdir(exist_ok=True)
    (own / "plugstack.conf").write_text(f"optional {slurm.built}/mpsr.so run={slurm.run}\n")
    conf = (slurm.cluster.dir / "slurm.conf").read_text()
    (own / "slurm.conf").write_text(conf.replace(f"{slurm.cluster.dir}/plugstack.conf", f"{own}/plugstack.conf"))
    done = slurm.cluster.run(
        "srun", "-Q", "--mps-domain=shared", "echo", "ran", env={"SLURM_CONF": str(own / "slurm.conf")}
    )
    assert "ran" not in done.stdout
    assert "mpsr: --mps-domain: shared is forbidden by the administrator: shared" in done.stderr
    assert done.returncode == 1
    wait_for(lambda: slurm.cluster.node_state() == "idle", "an idle node")


def test_the_agent_heard_of_every_task(slurm: Site) -> None:
    before = len(slurm.heard)
    shell(slurm, "kill -SEGV $$")
    heard = slurm.heard[before:]
    assert [verb for verb, _ in heard] == ["hello", "started", "exit"]
    assert int(heard[2][1]["status"]) & 0x7F == signal.SIGSEGV
