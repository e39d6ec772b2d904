"""Who may do what: other users at root's daemon, one active uid, the multi-user server, an ordinary user's own
daemon."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest

from tests.gpusim import mps_wire
from tests.gpusim.host import SimHost
from tests.gpusim.mps_harness import Mps, wait_for

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become other users")
ALICE, BOB = 64001, 64002


def test_server_of_root_daemon_runs_as_the_clients_user(mps: Mps) -> None:
    mps.start()
    assert mps.client(user=ALICE).hello.startswith("attached")
    assert Path(f"/proc/{mps.server()}").stat().st_uid == ALICE


def test_second_user_gets_807_and_has_the_server_once_the_first_has_left(mps: Mps) -> None:
    mps.start()
    first = mps.client(user=ALICE)
    server = mps.server()
    assert mps.client(user=BOB).hello == "error code=807"
    first.end()
    wait_for("the end of the first server", lambda: str(server) not in mps.command("get_server_list") or None)
    assert mps.client(user=BOB).hello.startswith("attached")
    assert Path(f"/proc/{mps.server()}").stat().st_uid == BOB


def test_idle_server_of_another_user_makes_room_at_once(mps: Mps) -> None:
    mps.start()
    mps.client(user=ALICE).end()
    empty = f"get_client_list {mps.server()}"
    wait_for("the client's end", lambda: mps.command(empty) == [] or None)
    assert mps.client(user=BOB).hello.startswith("attached")


def test_multiuser_server_takes_everybody(mps: Mps) -> None:
    assert mps.start("--multiuser-server").returncode == 0
    assert mps.client(user=ALICE).hello.startswith("attached")
    assert mps.client(user=BOB).hello.startswith("attached")
    assert len(mps.command("get_server_list")) == 1


def test_start_server_for_a_user(mps: Mps) -> None:
    mps.start()
    assert mps.command(f"start_server -uid {ALICE}") == []
    assert Path(f"/proc/{mps.server()}").stat().st_uid == ALICE
    assert mps.client(user=ALICE).hello.startswith("attached")


def test_ordinary_users_daemon_in_a_directory_of_their_own(mps: Mps) -> None:
    for folder in (mps.pipe, mps.logs):
        folder.mkdir(mode=0o700)
        shutil.chown(folder, ALICE)
    assert mps.start(user=ALICE).returncode == 0
    assert mps.client(user=ALICE).hello.startswith("attached")
    assert mps.client().hello == "error code=807"
    assert mps.command("quit -t 0", user=ALICE) == []


def test_root_daemon_serves_a_user_from_a_directory_that_the_user_cannot_write(mps: Mps) -> None:
    mps.pipe.mkdir(mode=0o755)
    mps.start()
    assert mps.client(user=ALICE).hello.startswith("attached")


def test_minimal_environment_and_read_only_build(mps: Mps) -> None:
    for where, _, names in os.walk(mps.sim.build):
        for name in [*names, "."]:
            path = Path(where) / name
            if not path.is_symlink():
                path.chmod(path.stat().st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
    mps.pipe.mkdir()
    mps.logs.mkdir()
    for folder in (mps.pipe, mps.logs):
        shutil.chown(folder, ALICE)
    assert mps.start(user=ALICE).returncode == 0
    mps.command("quit", user=ALICE)


def test_two_daemons_on_one_gpu_do_not_share_a_fault(sim_host: SimHost) -> None:
    left, right = Mps(sim_host, "left"), Mps(sim_host, "right")
    try:
        left.start()
        right.start()
        culprit, bystander = left.client(), right.client()
        culprit.tell("fault 700 31")
        server = left.server()
        wait_for("FAULT", lambda: left.command(f"get_server_status {server}") == ["FAULT"] or None)
        assert bystander.ask("look") == "sticky=0 culprit=0 generation=1"
        assert right.command(f"get_server_status {right.server()}") == ["ACTIVE"]
    finally:
        left.close()
        right.close()


def test_server_itself_refuses_another_uid_that_found_its_socket(mps: Mps) -> None:
    mps.start()
    assert mps.client(user=ALICE).hello.startswith("attached")
    sock = mps_wire.connect(str(mps.pipe / f"server.{mps.server()}.sock"))
    assert mps_wire.send(sock, mps_wire.words("attach", v=1, pid=os.getpid()))
    assert mps_wire.receive(sock) == b"error code=807"
    sock.close()
