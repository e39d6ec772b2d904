"""Verdicts that mpsr-launch carries out on its task, within the site's times."""

import os
import signal
import time
from pathlib import Path

from resilience.agent.reception import HEARD
from resilience.parse import packet
from tests.spank.supervisor_kit import PROGRAM, WITH_STANDBY, B, Node, ready, shell

# ---------------------------------------------------------------- on plain programs


def test_relaunch_of_a_program_that_ended(node: Node) -> None:
    supervised, agent = node.both(*shell("echo on $MPSR_COLOR; [ $MPSR_COLOR = b ]"))
    agent.expect("exit", status="256")
    agent.verdict("relaunch", **B)
    agent.expect("started", color="b")
    assert supervised.end() == (0, "on a\non b\n", "")


def test_relaunch_lets_the_old_one_end_then_ends_it_with_all_it_started(node: Node) -> None:
    script = "if [ $MPSR_COLOR = b ]; then exit 0; fi; trap '' TERM; sleep 600 & echo $!; wait; wait"
    supervised, agent = node.both(*shell(script))
    agent.expect("started")
    assert supervised.process.stdout
    sleeper = int(supervised.process.stdout.readline())
    agent.verdict("relaunch", **B)
    agent.expect("exit", status=str(int(signal.SIGKILL)))
    agent.expect("started", color="b")
    assert supervised.end()[0] == 0
    assert not Path(f"/proc/{sleeper}/cmdline").exists() or not Path(f"/proc/{sleeper}/cmdline").read_text()


def test_fail_makes_zero_a_failure(node: Node) -> None:
    supervised, agent = node.both(*shell("read x; exit 0"))
    agent.verdict("fail", reason="the device is lost")
    assert supervised.process.stderr
    assert supervised.process.stderr.readline() == "mpsr: the device is lost\n"
    assert supervised.end(stdin="\n")[0] == 1


def test_requeue_of_a_plain_program_waits_for_slurm(node: Node) -> None:
    supervised, agent = node.both(*shell("exit 9"))
    agent.expect("exit")
    agent.verdict("requeue", incident="i7")
    assert agent.expect("spilled")["seq"] == "-1"
    assert supervised.process.poll() is None
    supervised.process.terminate()
    assert supervised.end()[0] == -signal.SIGTERM


def test_several_relaunches_are_counted(node: Node) -> None:
    supervised, agent = node.both(*shell("exit 9"))
    for _ in range(3):
        agent.expect("exit")
        agent.verdict("relaunch", **B)
    agent.expect("started")
    agent.expect("exit")
    agent.close()
    again = node.agent.accept()
    hello = again.place()
    assert (hello["resumed"], hello["retries_used"], hello["active_pid"]) == ("1", "3", "0")
    again.expect("exit", status=str(9 << 8))  # told again: the new agent does not know
    again.verdict("none")
    assert supervised.end()[0] == 9


# ---------------------------------------------------------------- on programs with a session


def test_promotion_after_a_fault(node: Node) -> None:
    supervised, agent = node.both(*PROGRAM, "step,fault,wait", **WITH_STANDBY)
    fault = agent.expect("fault", role="active", cuda="700", seq="3")
    agent.expect("ready", role="standby")
    agent.verdict("promote", incident="i3", **B)
    agent.expect("started", role="active", color="b")
    stepped = agent.expect("stepped", incident="i3", seq="4", at="12.5")
    assert 0 < float(stepped["ms"]) < 2000
    assert fault["text"] == "illegal address"
    assert supervised.end()[:2] == (0, "active on a\npromote incident=i3 token=another color=b\n")
    assert "standby's own words" not in (node.jobs / "7/standby-2.5.err").read_text()


def test_a_programs_many_words_are_cut_to_what_the_agent_takes(node: Node) -> None:
    supervised, agent = node.both(*PROGRAM, "step,long,wait")
    fault = agent.expect("fault", role="active", cuda="700", seq="3")
    assert fault["text"].startswith("x")
    assert 250 < len(fault["text"]) <= 511
    assert len(packet.pack("fault", **fault)) <= HEARD
    agent.verdict("none", incident="i3")
    supervised.end()


def test_promotion_that_was_ordered_before_the_fault_was_seen(node: Node) -> None:
    supervised, agent = node.both(*PROGRAM, "wait,exit=5", **WITH_STANDBY)
    ready(agent)
    agent.verdict("promote", incident="i4", **B)
    old = int(agent.heard[1][1]["pid"])
    os.kill(old, signal.SIGKILL)  # the fault takes the process
    agent.expect("exit", pid=str(old))
    agent.expect("stepped", incident="i4")
    assert supervised.end()[:2] == (0, "active on a\npromote incident=i4 token=another color=b\n")


def test_promotion_without_a_standby_is_reported_and_restore_follows(node: Node) -> None:
    supervised, agent = node.both(*PROGRAM, "fault,wait")
    agent.expect("fault")
    agent.verdict("promote", incident="i5", **B)
    assert agent.expect("rung_failed")["rung"] == "standby"
    agent.verdict("restore", incident="i5", **B)
    agent.expect("started", color="b")
    assert agent.expect("stepped")["incident"] == "i5"
    assert supervised.end()[:2] == (0, "active on a\nactive on b\n")


def test_a_new_standby_takes_the_place_of_one_whose_server_was_hit(node: Node) -> None:
    supervised, agent = node.both(*PROGRAM, "wait", **WITH_STANDBY)
    agent.expect("session", role="active")
    old = agent.expect("ready", role="standby")["pid"]
    agent.send("standby", **B)
    assert agent.expect("ready", role="standby")["pid"] != old
    agent.verdict("fail", reason="over")
    assert supervised.end()[0] == 1
    assert not Path(f"/proc/{old}").exists()


def test_a_standby_that_dies_is_reported(node: Node) -> None:
    supervised, agent = node.both(*PROGRAM, "wait", **WITH_STANDBY)
    agent.expect("session", role="active")
    pid = agent.expect("ready", role="standby")["pid"]
    os.kill(int(pid), signal.SIGKILL)
    agent.expect("exit", role="standby", pid=pid)
    agent.send("standby", **B)
    agent.expect("ready", role="standby")
    agent.verdict("fail", reason="over")
    assert supervised.end()[:2] == (1, "active on a\nfail reason=over\n")


def test_none_after_a_fault_raises_the_programs_own_error(node: Node) -> None:
    supervised, agent = node.both(*PROGRAM, "fault,wait,exit=6")
    agent.expect("fault")
    agent.verdict("none")
    status, out, errors = supervised.end()
    assert (status, out) == (6, "active on a\nfail reason=no fault of the GPU is known\n")
    assert errors.count("no fault of the GPU is known") == 1


def test_quarantine_is_restore_for_a_session(node: Node) -> None:
    supervised, agent = node.both(*PROGRAM, "fault,wait")
    agent.expect("fault")
    agent.verdict("quarantine", color="q1", pipe="/pipes/q1")
    agent.expect("started", color="q1")
    agent.expect("stepped")
    assert supervised.end()[0] == 0


def test_requeue_spills_through_the_verdicts_server(node: Node) -> None:
    supervised, agent = node.both(*PROGRAM, "keeper,fault,wait")
    agent.expect("fault")
    agent.verdict("requeue", incident="i6", **B)
    assert agent.expect("spilled")["seq"] == "41"
    supervised.process.terminate()
    status, _, errors = supervised.end()
    assert status == -signal.SIGTERM
    assert errors.count("wiped at") == 1


def test_done_sends_the_standby_home(node: Node) -> None:
    supervised, agent = node.both(*PROGRAM, "wait,done,exit=0", **WITH_STANDBY)
    ready(agent)
    standby = int(agent.heard[-1][1]["pid"])
    agent.verdict("fail", reason="go on")
    assert supervised.end()[0] == 1
    assert not Path(f"/proc/{standby}").exists()


# ---------------------------------------------------------------- the site's times


def test_the_sites_grace_is_kept(node: Node) -> None:
    script = "if [ $MPSR_COLOR = b ]; then exit 0; fi; trap '' TERM; while :; do sleep 0.05; done"
    supervised, agent = node.both(*shell(script), grace_ms=0)
    agent.expect("started")
    began = time.monotonic()
    agent.verdict("relaunch", **B)
    agent.expect("exit", status=str(int(signal.SIGKILL)))
    assert time.monotonic() - began < 0.9  # the default is a second
    assert supervised.end()[0] == 0


def test_the_sites_restore_timeout_is_kept(node: Node) -> None:
    supervised, agent = node.both(*PROGRAM, "fault,wait", restore_ms=50)
    agent.expect("fault")
    agent.verdict("restore", incident="i8", color="slow", pipe="/pipes/slow")
    assert agent.expect("rung_failed", incident="i8")["reason"] == "no step in time"
    agent.verdict("fail", reason="over")
    assert supervised.end()[0] == 1


def test_the_sites_requeue_timeout_is_kept(node: Node) -> None:
    supervised, agent = node.both(*shell("exit 9"), requeue_ms=100)
    agent.expect("exit")
    agent.verdict("requeue", incident="i7")
    agent.expect("spilled")
    status, _, errors = supervised.end(seconds=5)
    assert (status, errors) == (75, "mpsr: requeue: Slurm has not ended the job in time\n")


def test_a_place_without_the_times_is_not_followed(node: Node) -> None:
    supervised = node.start(*shell("echo ran"))
    agent = node.agent.accept()
    agent.expect("hello")
    agent.send("place", color="a", pipe="/pipes/a", standby="", standby_pipe="", grace_ms="soon")
    agent.send("refuse", reason="no server answers")
    status, out, errors = supervised.end()
    assert (status, out) == (3, "")
    assert errors.startswith("mpsr: agent: place without the site's times: grace soon restore  requeue  spill \n")
