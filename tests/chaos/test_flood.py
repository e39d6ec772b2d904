"""One user's flood at the agent's socket: others still get in, and the journal does not grow with it."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from resilience.adapters.linux import agent_socket
from resilience.adapters.linux.agent_socket import AgentSocket
from resilience.agent import reception
from resilience.agent.budget import Budget, Taken
from tests.unit.agent_kit import Site, until
from tests.unit.machine_kit import lease

_CONNECT = "import socket,sys; s=socket.socket(socket.AF_UNIX,socket.SOCK_SEQPACKET); s.settimeout(5); \
s.connect(sys.argv[1]); s.send(b'hello'); print(s.recv(99).decode())"


@pytest.fixture
def end(shared_path: Path) -> Iterator[AgentSocket]:
    made = AgentSocket(str(shared_path / "s"))
    yield made
    made.close()


def test_one_user_cannot_take_all_connections(end: AgentSocket, tmp_path: Path) -> None:
    with ExitStack() as stack:
        for _ in range(agent_socket._PEERS_OF_USER + 100):
            peer = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            peer.connect(str(tmp_path / "s"))
            end.read()
        assert end._of_user == {0: agent_socket._PEERS_OF_USER}
        other = subprocess.Popen(
            [sys.executable, "-c", _CONNECT, str(tmp_path / "s")], user=65534, stdout=subprocess.PIPE, text=True
        )
        packets = until(end.read, "the other user's word")
        assert [(packet.peer.uid, packet.data) for packet in packets if packet.data] == [(65534, b"hello")]
        end.send(packets[0].peer, b"welcome")
        assert other.communicate(timeout=10)[0] == "welcome\n"
    until(lambda: end.read() == () and not end._of_user, "everybody's leave")


def test_refusals_do_not_fill_the_journal(tmp_path: Path) -> None:
    with Site(tmp_path) as site:
        for _ in range(reception.REFUSALS + 20):
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as raw:
                raw.settimeout(10)
                raw.connect(site.socket)
                raw.send(b"\xff")
                assert raw.recv(8192).startswith(b"refuse reason=")
        refused = site.journal("task.gone")
    assert len(refused) == reception.REFUSALS
    assert "not written down" in refused[-1]["reason"]


def test_a_user_who_talks_without_end_is_turned_away(tmp_path: Path) -> None:
    """Each word of a supervisor is a line of the journal."""
    with Site(tmp_path) as site:
        site.agent._reception._words = Budget(200)
        loud = site.task(lease(1)).run()
        with suppress(OSError):
            for _ in range(2000):
                loud.socket.send(b"keeper state=lost")
        assert "messages in a minute" in loud.hear("refuse")["reason"]
    assert len(site.journal("observation")) < 200
    assert len([row for row in site.journal("task.gone") if row.get("refused")]) == 1


def test_what_one_says_does_not_count_for_another() -> None:
    budget = Budget(3)
    assert [budget.take(1001, 0.0) for _ in range(4)] == [Taken.YES, Taken.YES, Taken.LAST, Taken.NO]
    assert budget.take(1002, 0.0) is Taken.YES
    assert budget.take(1001, 61.0) is Taken.YES, "a new minute"


def test_a_users_own_log_cannot_fill_the_journal(tmp_path: Path) -> None:
    """The log of a server lies in its owner's hands."""
    with Site(tmp_path) as site:
        site.agent._senses._lines = Budget(100)
        one = site.task(lease(1)).run()
        one.say("keeper", state="restored")
        until(lambda: [row for row in site.journal("observation") if row["what"] == "keeper"], "all messages are taken")
        for _ in range(500):
            site.log("a", f"Client {{PID: {one.pid}, Context: 1}} encountered a fatal GPU error.")
        until(lambda: [row for row in site.journal("observation") if "is not read" in row["text"]], "the last word")
        site.log("b", f"Client {{PID: {one.pid}, Context: 1}} encountered a fatal GPU error.")
        until(
            lambda: [row for row in site.journal("observation") if row.get("server") == "u1001/g0/b"], "the other log"
        )
        assert len(site.journal("observation")) < 110
