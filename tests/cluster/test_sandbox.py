"""The private cluster itself, without mpsr: it runs jobs of two users, answers, and leaves nothing behind."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.plan import USERS
from tests.cluster.sandbox import ROOT, Sandbox, wait_for

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def plain() -> Iterator[Sandbox]:
    with Sandbox(nodes=2, gpus=2, plugin=False) as sandbox:
        yield sandbox


def test_jobs_of_two_users_run_as_themselves(plain: Sandbox) -> None:
    for user, uid in USERS.items():
        assert plain.srun("id", "-u", user=user).out == f"{uid}\n"


def test_steps_see_the_gpus_they_asked_for(plain: Sandbox) -> None:
    done = plain.srun("-wn0", "--gres=gpu:2", "printenv", "CUDA_VISIBLE_DEVICES", "SIMGPU_DIR")
    assert done.out.split() == ["0,1", "/run/simgpu/n0"]


def test_every_kind_of_gres_is_granted_and_too_much_refused(plain: Sandbox) -> None:
    for gres in ("shard:8", "mps:100", "gpu:1"):
        assert plain.srun(f"--gres={gres}", "true").status == 0
    assert plain.srun("--gres=gpu:3", "true").status != 0


def test_batch_job_says_how_it_ended(plain: Sandbox) -> None:
    job = plain.sbatch("-w", "n1", script="echo on $SLURMD_NODENAME; exit 7")
    fields = plain.wait(job)
    assert (fields["JobState"], fields["ExitCode"], fields["Restarts"]) == ("FAILED", "7:0", "0")
    assert plain.output(job) == "on n1\n"


def test_a_command_that_hangs_is_ended(plain: Sandbox) -> None:
    assert plain.run(["sleep", "60"], timeout=0.2).status == 124


def test_the_host_sees_nothing_of_it(plain: Sandbox) -> None:
    plain.good(["touch", "/tmp/mpsr-sandbox-mark", "/etc/slurm/mark", "/run/mark"])
    assert not any(Path(path).exists() for path in ("/tmp/mpsr-sandbox-mark", "/etc/slurm/mark", "/run/mark"))
    assert "alice:x:64101" not in Path("/etc/passwd").read_text()
    assert plain.run(["touch", "/opt/mpsr/mark"]).status != 0


def test_nothing_survives_the_death_of_its_starter() -> None:
    code = "from tests.cluster.sandbox import *; s = Sandbox(nodes=1, plugin=False); print(s.init, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as starter:
        assert starter.stdout is not None
        init = int(starter.stdout.readline())
        namespace = os.readlink(f"/proc/{init}/ns/pid")
        inside = [pid for pid in os.listdir("/proc") if pid.isdigit() and member(pid, namespace)]
        assert len(inside) >= 4  # init, munged, slurmctld, slurmd
        starter.send_signal(signal.SIGKILL)
        wait_for(lambda: not any(member(pid, namespace) for pid in inside), 10)


def member(pid: str, namespace: str) -> bool:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid") == namespace
    except OSError:
        return False
