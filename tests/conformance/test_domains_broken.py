"""Opening and closing fault domains when something is broken: control daemons that die, hang or lie, and what was left.

The daemon is the simulated one, which can be told to behave so.
"""

import fcntl
import os
import signal
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from resilience.model.errors import MpsControlError
from resilience.model.lease import LeaseState
from resilience.model.world import ServerState
from tests.conformance.domain_site import OTHER, SLOW, USER, Site, color, site
from tests.gpusim.mps_harness import wait_for

pytestmark = [pytest.mark.sim, pytest.mark.skipif(os.geteuid() != 0, reason="needs root, as slurmd's prolog is")]


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


@pytest.mark.parametrize("asked", ["mps=on", "mps=on;standby=off"])
def test_a_daemon_whose_directory_was_emptied_has_others_joined_elsewhere(here: Site, asked: str) -> None:
    """A job's script has removed it, while another job of the user computes there."""
    here.prolog(12, asked)
    client = here.client()
    assert client.hello.startswith("attached")
    for entry in here.pipe().iterdir():
        entry.unlink()
    lease = here.prolog(13, asked)
    assert (lease.state, lease.colors) == (LeaseState.OPEN, ("b",)), lease.reason
    assert here.client(color="b").hello.startswith("attached")
    assert (here.pipe().parent / "active").read_text() == "b\n"
    assert client.process.poll() is None
    here.epilog(13, asked)


def test_where_a_gpu_takes_one_server_it_is_refused_with_the_reason(here: Site) -> None:
    here.change(replace(here.node.settings, mps=replace(here.node.settings.mps, compute_mode="exclusive")))
    here.prolog(12)
    here.client()
    for entry in here.pipe().iterdir():
        entry.unlink()
    lease = here.prolog(13)
    assert lease.state is LeaseState.REFUSED
    assert "is not ACTIVE, and other jobs use it" in lease.reason


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
    with (blocker / ".b.talk").open("w") as talk:
        fcntl.flock(talk, fcntl.LOCK_EX)
        assert here.prolog(12).colors == ("a",)
        assert "no standby for job 12" in capsys.readouterr().err
        refused = here.prolog(13, "mps=on;require=standby")
        assert refused.state is LeaseState.REFUSED
        assert here.mps().state(color("a")) is ServerState.ACTIVE
    assert here.epilog(13) == []
    assert here.epilog(12) == []
    here.nothing_left()
