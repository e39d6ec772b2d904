"""A control daemon, its server, two clients and a fatal fault: the sequence that NVIDIA documents, in the words of
driver 580."""

from __future__ import annotations

import os
import signal
import time

from tests.gpusim.mps_harness import Mps, wait_for


def status(mps: Mps, server: int) -> list[str]:
    return mps.command(f"get_server_status {server}")


def test_two_clients_share_one_server(mps: Mps) -> None:
    assert mps.start().returncode == 0
    first, second = mps.client(), mps.client()
    assert first.hello.startswith("attached context=1 minor=0")
    assert second.hello.startswith("attached context=1 minor=0")
    server = mps.server()
    assert mps.command(f"get_client_list {server}") == [str(first.pid), str(second.pid)]
    assert status(mps, server) == ["ACTIVE"]
    rows = mps.command("ps")
    assert rows[0].split() == ["PID", "ID", "SERVER", "DEVICE", "NAMESPACE", "COMMAND"]
    assert [row.split()[0] for row in rows[1:]] == [str(first.pid), str(second.pid)]


def test_fault_reaches_every_client_and_the_log_names_the_culprit(mps: Mps) -> None:
    mps.start()
    culprit, bystander = mps.client(), mps.client()
    server = mps.server()
    culprit.tell("fault 700 31")
    wait_for("FAULT", lambda: status(mps, server) == ["FAULT"] or None)
    assert bystander.ask("look") == f"sticky=700 culprit={culprit.pid} generation=1"
    log = mps.log("server.log")
    assert f"Client {{PID: {culprit.pid}, Context: 1}} encountered a fatal GPU error." in log
    assert "Server is handling a fatal GPU error." in log
    assert f"Status of client {{PID: {bystander.pid}, Context ID: 1}} is ACTIVE" in log
    sticky = log.index("The following client process have a sticky error set:")
    assert log[sticky + 1 : sticky + 3] == [str(culprit.pid), str(bystander.pid)]


def test_newcomers_get_807_until_every_affected_client_has_left(mps: Mps) -> None:
    mps.start()
    culprit, bystander = mps.client(), mps.client()
    server = mps.server()
    culprit.tell("fault 719 13")
    wait_for("FAULT", lambda: status(mps, server) == ["FAULT"] or None)
    assert mps.client().hello == "error code=807"
    culprit.kill()
    assert status(mps, server) == ["FAULT"]
    assert mps.client().hello == "error code=807"
    bystander.end()
    wait_for("ACTIVE", lambda: status(mps, server) == ["ACTIVE"] or None)
    late = mps.client()
    assert late.hello.startswith("attached context=1")
    assert late.ask("look") == "sticky=0 culprit=0 generation=2"
    log = mps.log("server.log")
    left = f"Client {{PID: {bystander.pid}, Context ID: 1}} exiting. Number of active client contexts is 0."
    destroyed = log.index("Destroy server context on device 0 (NVIDIA H200)")
    assert log.index(left) < destroyed
    assert "Creating server context on device 0 (NVIDIA H200)" in log[destroyed:]


def test_rebuild_takes_as_long_as_the_profile_says(mps: Mps) -> None:
    (mps.sim.path / "inject").write_text("set rebuild_ms 300\n")
    mps.start()
    only = mps.client()
    server = mps.server()
    only.tell("fault 700 31")
    wait_for("FAULT", lambda: status(mps, server) == ["FAULT"] or None)
    before = time.monotonic()
    only.end()
    wait_for("ACTIVE", lambda: status(mps, server) == ["ACTIVE"] or None)
    assert time.monotonic() - before >= 0.3


def test_culprit_that_dies_before_it_reports_is_still_named(mps: Mps) -> None:
    mps.start()
    culprit, bystander = mps.client(), mps.client()
    server = mps.server()
    culprit.tell("silent 700")
    wait_for("the mark", lambda: bystander.ask("look").startswith("sticky=700") or None)
    culprit.kill()
    wait_for("FAULT", lambda: status(mps, server) == ["FAULT"] or None)
    assert f"Client {{PID: {culprit.pid}, Context: 1}} encountered a fatal GPU error." in mps.log("server.log")


def test_guard_keeps_an_mmu_fault_from_the_server(mps: Mps) -> None:
    (mps.sim.path / "inject").write_text("set guard 1\n")
    mps.start()
    client = mps.client()
    server = mps.server()
    mps_report = f"terminate_client {server} {client.pid}"
    client.tell("report 700 31")
    assert mps.command(mps_report) == ["0"]
    assert status(mps, server) == ["ACTIVE"]
    assert not [line for line in mps.log("server.log") if "fatal" in line]


def test_terminate_client_leaves_the_other_alone(mps: Mps) -> None:
    mps.start()
    target, other = mps.client(), mps.client()
    server = mps.server()
    assert mps.command(f"terminate_client {server} {target.pid}") == ["0"]
    assert target.read() == "terminated"
    assert mps.command(f"get_client_list {server}") == [str(other.pid)]
    assert other.ask("look") == "sticky=0 culprit=0 generation=1"
    assert mps.command(f"terminate_client {server} 1") == ["1"]


def test_killed_server_is_seen_by_clients_and_replaced(mps: Mps) -> None:
    mps.start()
    client = mps.client()
    server = mps.server()
    os.kill(server, signal.SIGKILL)
    assert client.read() == "lost"
    mps.wait_log("control.log", f"Server {server} exited with status 9")
    assert mps.client().hello.startswith("attached")
    assert mps.server() != server


def test_killed_control_daemon_leaves_clients_and_a_new_one_starts_over_it(mps: Mps) -> None:
    mps.start()
    client = mps.client()
    server = mps.server()
    daemon = mps.daemon()
    assert daemon is not None
    os.kill(daemon, signal.SIGKILL)
    wait_for("the daemon's end", lambda: mps.daemon() is None or None)
    assert client.ask("look") == "sticky=0 culprit=0 generation=1"
    assert mps.client().hello == "no-daemon"
    assert mps.start().returncode == 0
    assert mps.client().hello.startswith("attached")
    assert mps.server() != server


def test_one_more_client_than_the_limit_gets_808(mps: Mps) -> None:
    (mps.sim.path / "inject").write_text("set client_limit 2\n")
    mps.start()
    hellos = [mps.client().hello for _ in range(3)]
    assert [hello.split()[0] for hello in hellos[:2]] == ["attached", "attached"]
    assert hellos[2] == "error code=808"


def test_quit_waits_for_clients_and_quit_t_forces(mps: Mps) -> None:
    mps.start()
    client = mps.client()
    assert mps.command("quit -t 0") == []
    assert client.read() == "lost"
    assert mps.daemon() is None
    assert mps.log("control.log")[-1] == "Exit with status 0"
