"""Jobs that open and close fault domains: one, several of a user, and prologs and epilogs that are killed.

The control daemon is the simulated one; what is asked of it was recorded on real ones (535 to 595).
"""

import os
import re
import signal
import stat
import subprocess
import tempfile
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from resilience.model.lease import LeaseState
from resilience.model.world import ServerState
from tests.conformance.domain_site import OTHER, SLOW, USER, Site, color, site
from tests.gpusim.mps_harness import wait_for

pytestmark = [pytest.mark.sim, pytest.mark.skipif(os.geteuid() != 0, reason="needs root, as slurmd's prolog is")]


# ---------------------------------------------------------------------------------------------------- one job


def test_a_job_gets_a_pair_of_servers_and_gives_them_back(here: Site) -> None:
    lease = here.prolog(12)
    assert (lease.state, lease.domain, lease.colors, lease.isolation) == (
        LeaseState.OPEN,
        f"u{USER}",
        ("a", "b"),
        "domains",
    )
    assert lease.gpus == ((0, here.sim.gpus[0].uuid),)
    for name in "ab":
        assert here.mps().state(color(name)) is ServerState.ACTIVE
        assert here.client(name).hello.startswith("attached")
    assert (here.pipe().parent / "active").read_text() == "a\n"
    for one in here.clients:
        one.end()
    assert here.epilog(12) == []
    here.nothing_left()
    assert (here.base / f"log/n0/d/u{USER}/g0/a/control.log").exists()
    assert [event for event, _ in here.node.journal.rows].count("domain.opened") == 2


def test_daemons_are_the_users_and_know_nothing_of_the_job(here: Site) -> None:
    here.prolog(12, more={"CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": "25", "SLURM_JOB_COMMENT": "x"})
    assert len(here.processes()) == 4
    for pid in here.processes():
        words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        names = {word.partition(b"=")[0] for word in words}
        assert not [name for name in names if name.startswith((b"SLURM", b"SPANK", b"MPSR"))]
        assert b"CUDA_MPS_ACTIVE_THREAD_PERCENTAGE" not in names
        assert f"CUDA_VISIBLE_DEVICES={here.sim.gpus[0].uuid}".encode() in words
        assert os.stat(f"/proc/{pid}").st_uid == USER
    for path in (here.pipe(), here.base / f"log/n0/d/u{USER}/g0/a"):
        info = path.stat()
        assert (info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode)) == (USER, USER, 0o700)
    for lock in ("../../lock", "../.a.talk"):
        assert (here.pipe() / lock).stat().st_mode & 0o077 == 0


def test_the_server_is_found_though_the_prologs_path_is_short(here: Site) -> None:
    """The daemon looks on its PATH alone; the control program's own directory is put there."""
    assert here.node.prolog(here.environ(12) | {"PATH": "/usr/bin:/bin"}) == 0
    assert here.lease(12).state is LeaseState.OPEN


def test_a_machine_without_the_server_program_says_so(here: Site, sim_build: Path) -> None:
    alone = here.base / "nvidia-cuda-mps-control"
    text = (sim_build / "bin/nvidia-cuda-mps-control").read_text()
    alone.write_text(re.sub(r"sys\.path\.insert.*", f"sys.path.insert(0, {str(sim_build / 'lib')!r})", text))
    alone.chmod(0o755)
    here.change(replace(here.node.settings, paths=replace(here.node.settings.paths, mps_control=str(alone))))
    assert here.node.prolog(here.environ(12) | {"PATH": "/usr/bin:/bin"}) == 0
    lease = here.lease(12)
    assert lease.state is LeaseState.REFUSED
    assert "finds no nvidia-cuda-mps-server on its PATH" in lease.reason
    here.epilog(12)
    here.nothing_left()


def test_a_second_user_cannot_enter(here: Site) -> None:
    here.prolog(12)
    tried = subprocess.run(
        ["ls", here.pipe()], user=OTHER, group=OTHER, extra_groups=[], capture_output=True, check=False
    )
    assert b"Permission denied" in tried.stderr
    assert here.client(uid=OTHER).hello == "no-daemon"


def test_nothing_stays_attached_to_the_prolog(here: Site) -> None:
    process = here.start_prolog(12, output=subprocess.PIPE)
    assert process.communicate(timeout=20) == (b"", b"")
    assert here.lease(12).state is LeaseState.OPEN
    daemon = here.processes()[0]
    assert os.getsid(daemon) != os.getsid(0)


@pytest.mark.parametrize("dialect", ["550", "580"])
def test_the_shared_domain_takes_every_user(here: Site, dialect: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The option is written differently: what one program knows makes the other print its help, with status 0."""
    monkeypatch.setenv("SIMGPU_MPS_DIALECT", dialect)
    here.allow_shared()
    lease = here.prolog(12, "mps=on;domain=shared")
    assert lease.domain == "shared"
    assert stat.S_IMODE(here.pipe(key="shared").stat().st_mode) == 0o755
    assert {os.stat(f"/proc/{pid}").st_uid for pid in here.processes()} == {0}
    for uid in (USER, OTHER):
        assert here.client(key="shared", uid=uid).hello.startswith("attached")


def test_a_job_without_a_standby_has_one_server(here: Site) -> None:
    assert here.prolog(12, "mps=on;standby=off").colors == ("a",)
    assert here.mps().state(color("b")) is ServerState.ABSENT
    assert not here.pipe("b").exists()


def test_every_gpu_has_daemons_of_its_own(sim_build: Path) -> None:
    with site(sim_build, gpus=2) as here:
        both = {"SLURM_JOB_GPUS": "0,1", "CUDA_VISIBLE_DEVICES": "1,0"}
        assert [minor for minor, _ in here.prolog(12, "mps=on;standby=off", both).gpus] == [1, 0]
        assert here.prolog(13, "mps=on;standby=off").gpus == ((0, here.sim.gpus[0].uuid),)
        assert here.epilog(12) == []
        assert here.mps().state(color("a", 0)) is ServerState.ACTIVE
        assert not here.pipe("a", 1).parent.exists()
        assert here.epilog(13) == []
        here.nothing_left()


# ---------------------------------------------------------------------------------------------------- several jobs


def test_dcgm_exporter_is_told_which_job_is_on_which_gpu(
    sim_build: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with site(sim_build, gpus=2) as here, tempfile.TemporaryDirectory(dir="/run") as name:
        directory = Path(name)
        here.change(replace(here.node.settings, paths=replace(here.node.settings.paths, job_mapping=name)))

        def told() -> dict[str, str]:
            return {file.name: file.read_text() for file in directory.iterdir() if file.name != ".lock"}

        (directory / "1").write_text("4711\n")  # the site's own, of a job without MPS
        here.prolog(12, more={"SLURM_JOB_GPUS": "0,1"})
        here.prolog(13, more={"SLURM_JOB_GPUS": "1"})
        here.prolog(13, more={"SLURM_JOB_GPUS": "1"})
        assert told() == {"0": "12\n", "1": "4711\n12\n13\n"}
        assert here.epilog(12) == here.epilog(12) == []
        assert told() == {"1": "4711\n13\n"}
        here.epilog(13)
        assert told() == {"1": "4711\n"}
        directory.chmod(0o777)
        here.prolog(14)
        assert told() == {"1": "4711\n"}
        assert "job 14 cannot be written" in capsys.readouterr().err
        here.epilog(14)
        here.nothing_left()


def test_jobs_of_one_user_share_servers_until_the_last_ends(here: Site) -> None:
    here.prolog(12)
    before = sorted(here.processes())
    here.prolog(13)
    assert sorted(here.processes()) == before
    assert here.epilog(12) == []
    assert sorted(here.processes()) == before
    assert here.epilog(12) == []
    assert here.epilog(13) == []
    here.nothing_left()


def test_two_prologs_at_once_open_one_pair(here: Site) -> None:
    processes = [here.start_prolog(job) for job in (12, 13, 14)]
    assert [process.wait(30) for process in processes] == [0, 0, 0]
    assert [here.lease(job).state for job in (12, 13, 14)] == [LeaseState.OPEN] * 3
    assert len(here.processes()) == 4


def test_two_epilogs_at_once_close_everything_once(here: Site) -> None:
    here.prolog(12)
    here.prolog(13)
    residues: list[list[object]] = []
    threads = [threading.Thread(target=lambda job=job: residues.append(here.epilog(job))) for job in (12, 13)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert residues == [[], []]
    here.nothing_left()


def test_a_prolog_beside_the_epilog_of_the_last_job_ends_with_servers(here: Site) -> None:
    here.prolog(12)
    thread = threading.Thread(target=lambda: here.epilog(12))
    thread.start()
    lease = here.prolog(13)
    thread.join(30)
    assert lease.state is LeaseState.OPEN
    assert here.mps().state(color("a")) is ServerState.ACTIVE
    assert here.epilog(13) == []
    here.nothing_left()


def test_a_prolog_killed_in_the_middle_leaves_a_refusal_and_the_next_one_heals(here: Site) -> None:
    inject = here.sim.path / "inject"
    inject.write_text(f"set server_init_ms {SLOW}\n")
    process = here.start_prolog(12)
    wait_for("servers that start", lambda: len(here.processes()) >= 4 or None)
    process.kill()
    process.wait(10)
    assert here.lease(12).state is LeaseState.REFUSED
    assert "did not finish" in here.lease(12).reason
    inject.write_text("")
    here.kill_daemons(signal.SIGKILL)
    assert here.prolog(12).state is LeaseState.OPEN
    assert here.epilog(12) == []
    here.nothing_left()


def test_the_epilog_of_a_killed_prolog_closes_what_it_opened(here: Site) -> None:
    (here.sim.path / "inject").write_text(f"set server_init_ms {SLOW}\n")
    process = here.start_prolog(12)
    wait_for("servers that start", lambda: len(here.processes()) >= 4 or None)
    process.kill()
    process.wait(10)
    assert here.epilog(12) == []
    here.nothing_left()


def test_the_next_epilog_sweeps_what_a_killed_epilog_left(here: Site) -> None:
    here.prolog(12, uid=OTHER)
    (here.base / "run/n0/jobs/12.lease").unlink()
    here.prolog(13)
    assert here.epilog(13) == []
    assert here.node.domains() == []
    assert here.processes() == []
