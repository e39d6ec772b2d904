"""A program that outlives SIGTERM: just before SIGKILL its clients are ended, if Slurm says that SIGKILL comes; else never."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from resilience.model.options import Endings, JobOptions
from tests.spank.node import Connection, Supervised
from tests.spank.supervisor_kit import PROGRAM, WITH_STANDBY, Node, ready, shell

LEAD = 3000
"""Milliseconds before SIGKILL (last_call.h)."""
AT_ONCE = LEAD + 1
STUBBORN = shell("trap '' TERM; echo up; while [ ! -e go ]; do sleep 0.01; done; exit $(cat go)")


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path, options=JobOptions(mps=True, endings=Endings.SAFE))
    yield made
    made.agent.close()


def told(node: Node, *wait: int) -> tuple[Supervised, Connection]:
    """A program that has ignored a SIGTERM, and a supervisor that has had one."""
    supervised, agent = node.both(*STUBBORN)
    agent.expect("started", role="active")
    assert supervised.process.stdout
    assert supervised.process.stdout.readline() == "up\n"
    for one in wait:
        agent.send("kill_wait", ms=one)
    supervised.process.terminate()
    return supervised, agent


def let_go(node: Node, supervised: Supervised, status: int = 0) -> tuple[int, str, str]:
    go = node.jobs.parent / "go"
    go.with_suffix(".new").write_text(f"{status}\n")
    go.with_suffix(".new").rename(go)
    return supervised.end()


def ends(agent: Connection) -> list[dict[str, str]]:
    return [words for verb, words in agent.heard if verb == "end"]


def test_the_clients_are_ended_and_the_exit_is_passed_on(node: Node) -> None:
    supervised, agent = told(node, AT_ONCE)
    agent.expect("kill_when")
    agent.send("kill_in", ms=LEAD)
    assert agent.expect("end", color="a")["alone"] == "0"
    status, _, _ = let_go(node, supervised, 7)
    assert status == 7
    assert agent.expect("exit", role="active")["told"] == "1", "nothing is to be recovered"


@pytest.mark.parametrize("answer", ["", "soon", "-1"])
def test_a_job_that_goes_on_keeps_its_clients(node: Node, answer: str) -> None:
    supervised, agent = told(node, AT_ONCE)
    agent.expect("kill_when")
    agent.send("kill_in", ms=answer)
    supervised.process.terminate()
    agent.expect("kill_when")  # a later SIGTERM may be the real one
    let_go(node, supervised)
    assert agent.expect("exit", role="active")["told"] == "0"
    assert ends(agent) == []


def test_the_sigterm_that_counts_came_later(node: Node) -> None:
    supervised, agent = told(node, AT_ONCE)
    agent.expect("kill_when")
    supervised.process.terminate()
    agent.expect("kill_when")
    agent.send("kill_in", ms=LEAD + 50)
    agent.expect("kill_when")
    assert ends(agent) == []
    agent.send("kill_in", ms=0)
    agent.expect("end", color="a")
    let_go(node, supervised)


def test_a_single_sigterm_is_the_one_that_counts_whatever_the_clocks_say(node: Node) -> None:
    supervised, agent = told(node, AT_ONCE)
    agent.expect("kill_when")
    agent.send("kill_in", ms=10 * LEAD)
    agent.expect("end", color="a")
    let_go(node, supervised)


@pytest.mark.parametrize("wait", [1, LEAD - 1, LEAD])
def test_a_short_kill_wait_leaves_no_time_to_lose(node: Node, wait: int) -> None:
    supervised, agent = told(node, wait)
    agent.expect("kill_when")
    let_go(node, supervised)


@pytest.mark.parametrize("waits", [(), (0,), (10 * LEAD,)])
def test_nobody_asks_before_it_is_time_or_without_slurms_word(node: Node, waits: tuple[int, ...]) -> None:
    supervised, agent = told(node, *waits)
    agent.send("say", line="a word")
    let_go(node, supervised)
    agent.expect("exit", role="active")
    assert [verb for verb, _ in agent.heard if verb == "kill_when"] == []


def test_with_plain_endings_nobody_asks(tmp_path: Path) -> None:
    node = Node(tmp_path, options=JobOptions(mps=True, endings=Endings.PLAIN))
    supervised, agent = told(node, AT_ONCE)
    let_go(node, supervised)
    agent.expect("exit", role="active")
    assert [verb for verb, _ in agent.heard if verb == "kill_when"] == []
    node.agent.close()


def test_a_session_and_its_standby_are_ended_and_what_it_then_suffers_is_no_fault(tmp_path: Path) -> None:
    node = Node(tmp_path)
    supervised, agent = node.both(*PROGRAM, f"until={tmp_path}/go,fault,wait,exit=5", **WITH_STANDBY)
    ready(agent)
    agent.send("kill_wait", ms=AT_ONCE)
    supervised.process.send_signal(signal.SIGTERM)
    agent.expect("kill_when")
    agent.send("kill_in", ms=0)
    assert {agent.expect("end")["color"], agent.expect("end")["color"]} == {"a", "b"}
    (tmp_path / "go").touch()
    status, out, _ = supervised.end()
    assert status == 5
    assert "fail reason=Slurm ends the step" in out
    assert [words for verb, words in agent.heard if verb == "fault"] == []
    node.agent.close()
