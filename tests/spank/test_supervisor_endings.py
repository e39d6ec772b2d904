"""Before the supervisor kills a process the agent ends its MPS clients, or has had a second; and recoveries do not wait."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.spank.slurm import wait_for
from tests.spank.supervisor_kit import PROGRAM, WITH_STANDBY, B, Node, alive, ready, shell

ASKED = 1.0
"""Seconds that the supervisor waits for the agent's answer."""


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    yield made
    made.agent.close()


def pids(words: dict[str, str]) -> list[int]:
    return [int(word) for word in words["pids"].split(",")]


def test_a_standby_that_goes_lives_until_its_clients_have_been_ended(node: Node) -> None:
    supervised, agent = node.both(*PROGRAM, "wait", **WITH_STANDBY)
    ready(agent)
    standby = int(next(words["pid"] for verb, words in agent.heard if verb == "ready"))
    agent.ends_clients = False
    os.kill(standby, signal.SIGSTOP)  # it would go by itself when it hears `retire`
    agent.send("standby", color="b", pipe="/pipes/b")
    asked = agent.expect("end", color="b")
    assert standby in pids(asked)
    assert alive(standby)
    agent.send("ended", n=asked["n"])
    wait_for(lambda: not alive(standby), "the standby's end")
    supervised.process.kill()
    supervised.end()


def test_a_program_that_does_not_end_is_asked_for_before_it_is_killed(node: Node) -> None:
    supervised, agent = node.both(*shell("[ $MPSR_COLOR = b ] && exit; sleep 60 & echo up; wait"), grace_ms=1)
    active = int(agent.expect("started", role="active")["pid"])
    assert supervised.process.stdout
    assert supervised.process.stdout.readline() == "up\n"
    agent.ends_clients = False
    agent.verdict("relaunch", **B)
    asked = agent.expect("end", color="a")
    assert pids(asked)[0] == active
    assert len(pids(asked)) == 2, "the shell and its sleep"
    assert all(map(alive, pids(asked)))
    agent.send("ended", n=int(asked["n"]) + 7)
    agent.send("ended", n=asked["n"])
    assert agent.expect("started", role="active")["color"] == "b"
    wait_for(lambda: not any(map(alive, pids(asked))), "the end of the killed")
    assert supervised.end()[0] == 0


def test_an_agent_that_does_not_answer_holds_up_nobody_for_ever(node: Node) -> None:
    supervised, agent = node.both(*shell("exec sleep 60"), grace_ms=1)
    agent.expect("started", role="active")
    agent.ends_clients = False
    agent.verdict("relaunch", **B)
    agent.expect("end", color="a")
    began = time.monotonic()
    agent.expect("started", role="active")
    assert time.monotonic() - began > ASKED / 2
    supervised.process.terminate()
    supervised.end()


def test_a_process_that_has_reported_its_fault_has_no_work_and_is_not_asked_for(node: Node) -> None:
    supervised, agent = node.both(*PROGRAM, "fault,wait", **WITH_STANDBY)
    agent.expect("ready", role="standby")
    active = int(next(words["pid"] for verb, words in agent.heard if verb == "started"))
    agent.verdict("promote")
    wait_for(lambda: not alive(active), "the old process's end")
    assert agent.expect("exit", role="active")["status"] == "0"
    assert [words for verb, words in agent.heard if verb == "end"] == []
    supervised.end()


def test_whatever_ends_the_task_the_clients_go_first(node: Node) -> None:
    """A parked task is ended by SIGTERM while its process lives."""
    supervised, agent = node.both(*shell("trap '' TERM; sleep 60 & wait"))
    active = int(agent.expect("started", role="active")["pid"])
    agent.ends_clients = False
    agent.verdict("requeue")
    agent.expect("spilled")
    supervised.process.terminate()
    asked = agent.expect("end", color="a")
    assert pids(asked)[0] == active
    assert alive(active)
    agent.verdict("fail")  # a word that comes between
    agent.send("ended", n=asked["n"])
    assert supervised.end()[0] == -signal.SIGTERM
    assert not alive(active)


def test_without_an_agent_nobody_is_waited_for(node: Node) -> None:
    supervised, agent = node.both(*shell("trap '' TERM; sleep 60 & wait"))
    agent.expect("started", role="active")
    agent.verdict("requeue")
    agent.expect("spilled")
    agent.ends_clients = False
    node.agent.close()
    agent.close()
    supervised.process.terminate()
    assert supervised.end()[0] == -signal.SIGTERM
