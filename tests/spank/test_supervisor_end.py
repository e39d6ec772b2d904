"""How mpsr-launch ends: with its task's status, and not before Slurm has taken the job's account."""

import os
import signal
import subprocess
import time

import pytest

from tests.spank.slurm import wait_for
from tests.spank.supervisor_kit import PROGRAM, Node, shell, wait_for_keeper

# ---------------------------------------------------------------- a task that ends


def test_status_zero_is_not_asked_about(node: Node) -> None:
    supervised, agent = node.both(*shell("cat; echo done >&2"))
    assert supervised.end(stdin="hello\n") == (0, "hello\n", "done\n")
    agent.expect("exit", status="0", role="active")


@pytest.mark.parametrize("status", [1, 42, 255])
def test_exit_status(node: Node, status: int) -> None:
    supervised, agent = node.both(*shell(f"exit {status}"))
    agent.expect("exit", status=str(status << 8))
    agent.verdict("none")
    assert supervised.end() == (status, "", "")


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1])
def test_death_by_signal(node: Node, number: signal.Signals) -> None:
    supervised, agent = node.both(*shell(f"kill -{int(number)} $$"))
    status = int(agent.expect("exit")["status"])
    assert os.WTERMSIG(status) == number
    agent.verdict("none")
    assert supervised.end()[0] == -number


def test_a_signal_that_slurm_sent_to_all_is_not_asked_about(node: Node) -> None:
    supervised, agent = node.both(*shell("echo up; exec sleep 30"))
    pid = int(agent.expect("started")["pid"])
    assert supervised.process.stdout
    assert supervised.process.stdout.readline() == "up\n"
    supervised.process.send_signal(signal.SIGUSR2)  # Slurm signals every process of the step
    os.kill(pid, signal.SIGUSR2)
    assert supervised.end()[0] in (-signal.SIGUSR2,)


def test_signals_reach_the_task_as_slurm_set_them(node: Node) -> None:
    supervised, _agent = node.both(*shell("grep -E '^Sig(Blk|Ign)' /proc/self/status"))
    status, out, _ = supervised.end()
    plain = os.popen("env -i grep -E '^Sig(Blk)' /proc/self/status").read()
    assert status == 0
    assert plain in out


# ---------------------------------------------------------------- what it kept


@pytest.mark.parametrize("plan", ["keeper,exit=3", "keeper,wait"], ids=["failed", "cancelled"])
def test_what_a_task_kept_is_wiped_before_its_keeper_goes(node: Node, plan: str) -> None:
    supervised, agent = node.both(*PROGRAM, plan)
    wait_for_keeper(supervised.process.pid)
    if plan.endswith("wait"):
        supervised.process.terminate()
    else:
        agent.expect("exit")
        agent.verdict("none")
    assert "wiped at /pipes/a\n" in supervised.end()[2]


def test_a_task_that_has_ended_well_has_nothing_to_wipe(node: Node) -> None:
    supervised, _agent = node.both(*PROGRAM, "keeper,done,exit=0")
    status, _, errors = supervised.end()
    assert (status, "wiped" in errors) == (0, False)


# ---------------------------------------------------------------- staying for Slurm to take the job's account


def test_a_task_that_failed_stays_until_it_is_released(node: Node) -> None:
    supervised, agent = node.both(*shell("exit 9"))
    agent.expect("exit")
    agent.send("hold", ms=9000)
    agent.verdict("fail", reason="this task caused the GPU fault")
    assert supervised.process.stderr
    assert supervised.process.stderr.readline() == "mpsr: this task caused the GPU fault\n"
    with pytest.raises(subprocess.TimeoutExpired):
        supervised.process.wait(0.3)
    agent.send("release")
    assert supervised.end() == (9, "", "")


def test_a_program_that_ends_well_stays_too_and_no_longer_than_said(node: Node) -> None:
    supervised, agent = node.both(*shell("read x; exit 0"))
    agent.expect("started")
    agent.send("hold", ms=400)
    agent.send("log", path=str(node.jobs / "barrier"), line="x")
    wait_for((node.jobs / "barrier").exists, "all messages to be read")
    began = time.monotonic()
    assert supervised.end(stdin="\n")[0] == 0
    assert 0.2 < time.monotonic() - began < 5


def test_a_task_that_stays_goes_when_slurm_ends_it(node: Node) -> None:
    supervised, agent = node.both(*shell("exit 9"))
    agent.expect("exit")
    agent.send("hold", ms=9000)
    agent.verdict("none")
    with pytest.raises(subprocess.TimeoutExpired):
        supervised.process.wait(0.2)
    supervised.process.terminate()
    assert supervised.end()[0] == 9


@pytest.mark.parametrize("words", [{}, {"ms": ""}, {"ms": "-1"}, {"ms": "1e3"}, {"ms": "99999999999999999999"}])
def test_a_hold_without_a_time_holds_nobody(node: Node, words: dict[str, str]) -> None:
    supervised, agent = node.both(*shell("exit 9"))
    agent.expect("exit")
    agent.send("hold", **words)
    agent.verdict("none")
    status, _, errors = supervised.end()
    assert (status, errors) == (9, f"mpsr: agent: hold without a time: {words.get('ms', '')}\n")
