"""Opening and closing fault domains with a control daemon that behaves as NVIDIA's do.

The daemon is the simulated one; what is asked of it was recorded on real ones (535 to 595).
"""

import os
import re
import signal
import stat
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from resilience.model.errors import MpsControlError
from resilience.model.ids import GpuUuid
from resilience.model.lease import LeaseState
from resilience.ports import ServerOwner, ServerState
from tests.conformance.domain_site import OTHER, USER, Site, color, site
from tests.gpusim.conftest import sim_build
from tests.gpusim.mps_harness import wait_for
from tests.unit.domain_world import ON

__all__ = ["sim_build"]
pytestmark = [pytest.mark.sim, pytest.mark.skipif(os.geteuid() != 0, reason="needs root, as slurmd's prolog is")]
SLOW = 60000
"""Milliseconds: longer than any test waits."""


@pytest.fixture(name="here")
def _here(sim_build: Path) -> Iterator[Site]:
    with site(sim_build) as here:
        yield here


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


# ---------------------------------------------------------------------------------------------------- broken daemons


def test_a_dead_daemon_with_stale_sockets_is_replaced(here: Site) -> None:
    here.prolog(12)
    here.kill_daemons()
    assert (here.pipe() / "control").exists()
    assert here.client().hello == "no-daemon"
    assert here.mps().state(color("a")) is ServerState.ABSENT
    here.prolog(13)
    assert here.client().hello.startswith("attached")


def test_a_living_daemon_without_its_server_gets_one(here: Site) -> None:
    here.prolog(12)
    mps = here.mps()
    (server,) = mps.servers(color("a"))
    os.kill(server, signal.SIGKILL)
    wait_for("the server to be gone", lambda: not mps.servers(color("a")) or None)
    here.prolog(13)
    assert mps.state(color("a")) is ServerState.ACTIVE
    assert mps.servers(color("a")) != (server,)


@pytest.mark.parametrize(("deaths", "state"), [(1, "open"), (2, "refused")])
def test_a_daemon_that_is_killed_while_it_starts_is_started_once_more(here: Site, deaths: int, state: str) -> None:
    """The control program as a user meets it, with somebody who kills the daemon before its server's state is asked for."""
    left = here.base / "deaths"
    left.write_text("x" * deaths)
    left.chmod(0o666)
    pid_file = "$CUDA_MPS_PIPE_DIRECTORY/nvidia-cuda-mps-control.pid"
    program = here.base / "control"
    program.write_text(
        f"""#!/bin/sh
        text=$(cat)
        case "$1$text" in
        get_server_list*)
            if [ -s {left} ]; then kill -9 "$(cat "{pid_file}")" && truncate -s -1 {left}; fi ;;
        esac
        printf '%s\\n' "$text" | exec {here.node.settings.paths.mps_control} "$@"
        """
    )
    program.chmod(0o755)
    here.change(replace(here.node.settings, paths=replace(here.node.settings.paths, mps_control=str(program))))
    lease = here.prolog(12, "mps=on;standby=off")
    assert lease.state == state, lease.reason
    assert left.read_text() == ""
    assert here.epilog(12) == []
    here.nothing_left()


@pytest.mark.parametrize("style", [1, 2])
def test_a_daemon_that_talks_to_another_is_asked_again(here: Site, style: int) -> None:
    (here.sim.path / "inject").write_text(f"set ui_busy {style}\n")
    here.prolog(12)
    calls = here.base / "calls"
    program = here.base / "control"
    program.write_text(f"#!/bin/sh\necho x >>{calls}\nexec {here.node.settings.paths.mps_control}\n")
    program.chmod(0o755)
    calls.touch()
    calls.chmod(0o666)
    here.change(replace(here.node.settings, paths=replace(here.node.settings.paths, mps_control=str(program))))
    other = here.other_ui()
    found: list[ServerState] = []
    asking = threading.Thread(target=lambda: found.append(here.mps().state(color("a"))))
    asking.start()
    wait_for("two conversations that are turned away", lambda: calls.read_text().count("x") > 2)
    assert found == []
    other.communicate(timeout=10)
    asking.join(10)
    assert found == [ServerState.ACTIVE]


def test_a_daemon_that_stays_busy_is_an_error_not_an_empty_answer(here: Site) -> None:
    here.prolog(12)
    other = here.other_ui()
    with pytest.raises(MpsControlError, match="busy for 2 s"):
        here.mps().state(color("a"))
    other.communicate(timeout=10)
    assert here.mps().state(color("a")) is ServerState.ACTIVE


def test_a_stopped_daemon_is_cleared_by_signals(here: Site) -> None:
    here.change(replace(here.node.settings, mps=replace(here.node.settings.mps, quit_timeout=1.0)))
    here.prolog(12, "mps=on;standby=off")
    here.kill_daemons(signal.SIGSTOP)
    with pytest.raises(MpsControlError, match="does not answer within 2 s"):
        here.mps().state(color("a"))
    assert here.epilog(12) == []
    here.nothing_left()


def test_a_prolog_never_ends_a_server_that_another_job_uses(here: Site) -> None:
    here.prolog(12)
    neighbour = here.client(job=12)
    (server,) = here.mps().servers(color("a"))
    daemons = [pid for pid in here.processes() if pid != server]
    for pid in daemons:
        os.kill(pid, signal.SIGSTOP)
    lease = here.prolog(13)
    assert (lease.state, "other jobs use it" in lease.reason) == (LeaseState.REFUSED, True)
    for pid in daemons:
        os.kill(pid, signal.SIGCONT)
    assert neighbour.ask("look").startswith("sticky=0 ")
    assert here.prolog(13).state is LeaseState.OPEN
    assert here.mps().servers(color("a")) == (server,)


def test_the_colour_that_the_agent_made_active_stays(here: Site) -> None:
    here.prolog(12)
    (here.pipe().parent / "active").write_text("b\n")
    assert here.prolog(13, "mps=on;standby=off").colors == ("b",)
    assert (here.pipe().parent / "active").read_text() == "b\n"


def test_logs_of_a_jobs_own_domain_go_after_a_week(here: Site) -> None:
    old, young = here.base / "log/n0/d/j7", here.base / "log/n0/d/j8"
    for directory in (old, young):
        directory.mkdir(parents=True)
    os.utime(old, (0, 0))
    here.prolog(12, "mps=on;domain=job")
    here.epilog(12, "mps=on;domain=job")
    assert sorted(path.name for path in (here.base / "log/n0/d").iterdir()) == ["j12", "j8"]


def test_a_slow_server_is_waited_for(sim_build: Path) -> None:
    with site(sim_build, server_init_ms="400") as here:
        assert here.prolog(12).state is LeaseState.OPEN
        assert here.mps().state(color("b")) is ServerState.ACTIVE


def test_a_server_that_does_not_get_ready_is_refused_and_cleared(sim_build: Path) -> None:
    with site(sim_build, server_init_ms=str(SLOW)) as here:
        here.change(replace(here.node.settings, mps=replace(here.node.settings.mps, start_timeout=0.5, quit_timeout=1)))
        lease = here.prolog(12)
        assert lease.state is LeaseState.REFUSED
        assert "server is not ACTIVE after 0.5 s" in lease.reason
        assert here.processes() == []
        assert here.epilog(12) == []
        here.nothing_left()


def test_a_driver_without_a_gpu_is_told_from_a_missing_one(sim_build: Path) -> None:
    with site(sim_build, gpus=0) as here:
        here.node.gpus.uuids = ("GPU-0",)
        assert "the driver finds no GPU (CUDA error 100)" in here.prolog(12).reason


def test_a_directory_of_somebody_else_is_cleared_away(here: Site) -> None:
    here.prolog(12)
    here.kill_daemons()
    os.chown(here.pipe(), OTHER, OTHER)
    here.prolog(13)
    assert here.pipe().stat().st_uid == USER
    assert here.client().hello.startswith("attached")


def test_a_log_directory_that_cannot_be_written_costs_the_logs_only(
    here: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    (here.base / "log").write_text("a file in the way")
    assert here.prolog(12).state is LeaseState.OPEN
    assert "no log directory" in capsys.readouterr().err
    assert here.client().hello.startswith("attached")
    here.clients[0].end()
    assert here.epilog(12) == []
    here.nothing_left()


def test_a_standby_that_cannot_be_had_is_done_without_unless_required(
    here: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    blocker = here.base / f"run/n0/d/u{USER}/g0"
    blocker.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", _made(blocker / "b")], check=True)
    try:
        assert here.prolog(12).colors == ("a",)
        assert "no standby for job 12" in capsys.readouterr().err
        refused = here.prolog(13, "mps=on;require=standby")
        assert refused.state is LeaseState.REFUSED
        assert here.mps().state(color("a")) is ServerState.ACTIVE
    finally:
        subprocess.run(["umount", blocker / "b"], check=True)
    assert here.epilog(13) == []
    assert here.epilog(12) == []
    here.nothing_left()


def _made(path: Path) -> Path:
    path.mkdir()
    return path


# ---------------------------------------------------------------------------------------------------- leftovers


def test_a_leftover_of_the_job_is_ended_and_its_neighbour_is_not(here: Site) -> None:
    here.prolog(12)
    here.prolog(13)
    leftover, neighbour = here.client(job=12), here.client(job=13)
    assert here.epilog(12) == []
    assert leftover.process.wait(10) == -signal.SIGTERM
    assert neighbour.ask("look").startswith("sticky=0 ")
    assert here.mps().clients(color("a")) == (neighbour.pid,)


def test_a_process_of_the_job_that_holds_nothing_of_ours_is_left_alone(here: Site) -> None:
    here.prolog(12)
    plain = subprocess.Popen(["sleep", "60"], env={"SLURM_JOB_ID": "12"}, user=USER, group=USER, extra_groups=[])
    try:
        assert here.epilog(12) == []
        assert plain.poll() is None
    finally:
        plain.kill()
        plain.wait()


def test_what_still_holds_the_gpu_is_told(here: Site) -> None:
    here.prolog(12)
    plain = subprocess.Popen(["sleep", "60"], env={"SLURM_JOB_ID": "12"}, user=USER, group=USER, extra_groups=[])
    try:
        here.node.gpus.holders = {here.sim.gpus[0].uuid: (plain.pid,)}
        assert here.epilog(12) == [f"process {plain.pid} (sleep) holds {here.sim.gpus[0].uuid}"]
    finally:
        plain.kill()
        plain.wait()


def test_a_domain_stays_open_while_a_lease_cannot_be_read(here: Site) -> None:
    here.prolog(12)
    here.prolog(13)
    (here.base / "run/n0/jobs/13.lease").write_text("broken")
    assert "stays open, a lease cannot be read" in str(here.epilog(12))
    assert here.mps().state(color("a")) is ServerState.ACTIVE


# ---------------------------------------------------------------------------------------------------- the agent's side


@pytest.mark.parametrize("dialect", ["535", "550", "580", "595"])
def test_every_dialect_is_understood(sim_build: Path, dialect: str) -> None:
    with site(sim_build, dialect=dialect, rebuild_ms="1") as here:
        assert here.prolog(12).state is LeaseState.OPEN
        mps = here.mps()
        culprit, bystander = here.client(), here.client()
        assert set(mps.clients(color("a"))) == {culprit.pid, bystander.pid}
        assert mps.terminate_client(color("a"), 1) is False
        assert mps.terminate_client(color("a"), bystander.pid) is True
        assert bystander.read() == "terminated"
        culprit.tell("fault 700 31")
        wait_for("FAULT", lambda: mps.state(color("a")) is ServerState.FAULT or None)
        assert mps.state(color("b")) is ServerState.ACTIVE
        for one in here.clients:
            one.end()
        wait_for("ACTIVE after the rebuild", lambda: mps.state(color("a")) is ServerState.ACTIVE or None)
        assert here.epilog(12) == []
        here.nothing_left()


def test_a_quarantine_server_goes_with_its_domain(here: Site) -> None:
    here.prolog(12)
    owner = ServerOwner(uid=USER, gid=USER, shared=False)
    uuid = GpuUuid(here.sim.gpus[0].uuid)
    here.mps().open(color("q1"), uuid, owner)
    assert here.client("q1").hello.startswith("attached")
    here.clients[0].end()
    assert here.epilog(12) == []
    here.nothing_left()
    with pytest.raises(MpsControlError, match="is closed"):
        here.mps().open(color("q2"), uuid, owner)


def test_a_server_is_replaced_while_its_pair_runs_on(here: Site) -> None:
    here.prolog(12)
    mps, on_b = here.mps(), here.client("b")
    assert mps.close(color("a")) == ()
    assert mps.close(color("a")) == ()
    assert mps.state(color("a")) is ServerState.ABSENT
    mps.open(color("a"), GpuUuid(here.sim.gpus[0].uuid), ServerOwner(uid=USER, gid=USER, shared=False))
    assert mps.state(color("a")) is ServerState.ACTIVE
    assert on_b.ask("look").startswith("sticky=0 ")


def test_hostile_wishes_open_nothing(here: Site) -> None:
    for asked in (f"{ON};domain=shared", "mps=on;domain=j1/../../x", "mps=on;threads=101", "mps=on\0"[:6] + ";a=b"):
        assert here.prolog(12, asked).state is LeaseState.REFUSED
    assert here.processes() == []
