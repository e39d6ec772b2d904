"""How a keeper begins and ends, and what happens to the state when it is killed."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from resilience.state.record import HELD, Commit, CommitRecord
from tests.conformance.keeper_kit import ROOT, TOKEN, Running, connects, deposit, eventually


def test_the_writer_deposits_again_when_the_keeper_was_killed(keeper: Running) -> None:
    active = keeper.link()
    standby = keeper.link("standby")
    layout, fds, record = deposit(b"bytes")
    active.put(layout, fds)
    active.watch()
    standby.watch()
    keeper.end()
    record.write(Commit(1, HELD, 99, {}))  # the program goes on
    second = Running(keeper.path)
    try:
        taken = eventually(lambda: second.link("reader").first)
        assert taken[0] == layout
        assert os.pread(taken[1][2], 9, 0) == b"bytes"
        assert CommitRecord(taken[1][1]).latest() == Commit(1, HELD, 99, {})
        assert eventually(lambda: second.link("reader").status()["peers"] >= 3)
    finally:
        active.close()
        standby.close()
        second.end()


def test_a_promoted_standby_waits_for_the_next_keeper_and_for_who_has_the_state(keeper: Running) -> None:
    """It is not the writer before: the process that has the descriptors still has to give them."""
    active = keeper.link()
    layout, fds, _ = deposit(b"bytes")
    active.put(layout, fds)
    standby = keeper.link("standby")
    standby.watch()
    keeper.end()
    second = Running(keeper.path)
    try:
        eventually(lambda: second.link("reader").status()["peers"] >= 2)  # the standby is there, nothing is held
        threading.Timer(0.05, active.watch).start()
        held = standby.take(TOKEN, expected=True)
        assert held is not None
        assert os.pread(held[1][2], 9, 0) == b"bytes"
        standby.remember(*held)
        active.close()
        second.end()
        third = Running(keeper.path)
        assert eventually(lambda: third.link("reader").first)[0] == layout, "it is the program now"
        third.end()
    finally:
        standby.close()
        second.end()


def test_a_stopped_keeper_holds_up_a_promotion_and_no_more(keeper: Running) -> None:
    active = keeper.link()
    layout, fds, _ = deposit(b"bytes")
    active.put(layout, fds)
    standby = keeper.link("standby")
    keeper.process.send_signal(signal.SIGSTOP)
    threading.Timer(0.1, keeper.process.send_signal, [signal.SIGCONT]).start()
    held = standby.take(TOKEN, expected=True)
    assert held is not None
    assert keeper.link("reader").status()["writer"] == os.getpid()
    standby.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_its_socket(keeper: Running, number: signal.Signals) -> None:
    keeper.process.send_signal(number)
    assert keeper.process.wait(10) == 0
    assert not keeper.path.exists()


def test_it_ends_with_its_parent(tmp_path: Path) -> None:
    path = tmp_path / "k"
    code = (
        "import subprocess, sys\n"
        f"c = subprocess.Popen([sys.executable, '-E', '-m', 'resilience.state.keeper', '--socket', {str(path)!r}])\n"
        "print(c.pid, flush=True)\nsys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code]
    environ = {"MPSR_TOKEN": TOKEN}
    with subprocess.Popen(
        command, cwd=ROOT, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        eventually(lambda: connects(path))
        parent.kill()
    eventually(lambda: not path.exists())
    eventually(lambda: not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split()[2])


def test_a_dead_keepers_socket_is_cleared_and_a_living_ones_is_not(keeper: Running) -> None:
    second = Running(keeper.path)
    assert second.process.wait(10) == 2
    assert "another keeper listens there" in second.said()
    assert keeper.link().first is None
    keeper.end()
    assert keeper.path.exists()
    third = Running(keeper.path)
    assert third.link().first is None
    third.end()


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        ([], "bad arguments"),
        (["--socket"], "bad arguments"),
        (["--sockets", "x"], "bad arguments"),
        (["--socket", "x", "--limit-mib", "-1"], "--limit-mib is no whole number: -1"),
        (["--socket", "/nowhere/k"], "cannot listen at /nowhere/k"),
        (["--socket", "/tmp/" + "x" * 120], "a path has at most 107 bytes"),
    ],
)
def test_bad_arguments(arguments: list[str], wrong: str) -> None:
    command = [sys.executable, "-E", "-m", "resilience.state.keeper", *arguments]
    done = subprocess.run(command, cwd=ROOT, env={"MPSR_TOKEN": TOKEN}, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert wrong in done.stderr
    assert done.stderr.startswith("mpsr: keeper: ")


def test_without_a_token_it_does_not_start() -> None:
    command = [sys.executable, "-E", "-m", "resilience.state.keeper", "--socket", "/tmp/never"]
    done = subprocess.run(command, cwd=ROOT, env={}, capture_output=True, text=True, check=False)
    assert (done.returncode, "MPSR_TOKEN" in done.stderr) == (2, True)


def test_it_is_small(keeper: Running) -> None:
    """A bare interpreter with sockets and JSON takes 10 to 11 MiB here; 16 leaves room for other builds of Python."""
    active = keeper.link()
    layout, fds, _ = deposit()
    active.put(layout, fds)
    status = Path(f"/proc/{keeper.process.pid}/status").read_text()
    resident = int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])
    assert resident < 16 * 1024
