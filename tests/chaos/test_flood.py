"""One user's flood at the agent's socket: others still get in, and the journal does not grow with it."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from resilience.adapters.linux import agent_socket
from resilience.adapters.linux.agent_socket import AgentSocket
from resilience.agent import reception
from resilience.agent.budget import Budget, Taken
from resilience.agent.shares import Shares
from resilience.model.ids import DomainKey
from tests.unit.agent_kit import Site, until
from tests.unit.machine_kit import lease

_CONNECT = "import socket,sys; s=socket.socket(socket.AF_UNIX,socket.SOCK_SEQPACKET); s.settimeout(5); \
s.connect(sys.argv[1]); s.send(b'hello'); print(s.recv(99).decode())"
NOBODY = 65534
_FATAL = "[2026-03-02 08:12:00.001 Server 1] Client {PID: 1, Context: 1} encountered a fatal GPU error.\n"


@pytest.fixture
def end(shared_path: Path) -> Iterator[AgentSocket]:
    made = AgentSocket(str(shared_path / "s"), f"{shared_path}/agents/{{uid}}.sock")
    yield made
    made.close()


def _as_nobody(path: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", _CONNECT, str(path)],
        user=NOBODY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_one_user_cannot_take_all_connections(end: AgentSocket, shared_path: Path) -> None:
    with ExitStack() as stack:
        for _ in range(agent_socket._PEERS_OF_USER + 100):
            peer = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            peer.connect(str(shared_path / "s"))
            end.read()
        assert end._of_user == {0: agent_socket._PEERS_OF_USER}
        other = _as_nobody(shared_path / "s")
        packets = until(end.read, "the other user's word")
        assert [(packet.peer.uid, packet.data) for packet in packets if packet.data] == [(NOBODY, b"hello")]
        end.send(packets[0].peer, b"welcome")
        assert other.communicate(timeout=10)[0] == "welcome\n"
    until(lambda: end.read() == () and not end._of_user, "everybody's leave")


def test_connections_that_wait_at_one_users_socket_keep_nobody_elses_waiting(
    end: AgentSocket, shared_path: Path
) -> None:
    """The kernel's queue of a socket is full: who comes then is not even heard of."""
    end.admit([0, NOBODY])
    end.hush(0)
    with ExitStack() as stack:
        full = False
        while not full:
            peer = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            peer.setblocking(False)
            full = peer.connect_ex(str(shared_path / "agents/0.sock")) != 0
            end.read()
        assert end._of_user == {}, "one who is not heard costs nothing"
        other = _as_nobody(shared_path / "agents" / f"{NOBODY}.sock")
        packets = until(end.read, "the other's word")
        end.send(packets[0].peer, b"welcome")
        assert other.communicate(timeout=10)[0] == "welcome\n"
        end.listen(0)
        until(lambda: (end.read(), 0 in end._of_user)[1], "the flood is let in again")


def test_only_its_user_can_connect_to_a_socket(end: AgentSocket, shared_path: Path) -> None:
    end.admit([0, 3000])
    assert "PermissionError" in _as_nobody(shared_path / "agents" / "3000.sock").communicate(timeout=10)[1]
    end.admit([3000])
    assert sorted(path.name for path in (shared_path / "agents").iterdir()) == ["3000.sock"]


def test_who_is_not_heard_can_use_up_no_more_than_the_common_socket(end: AgentSocket, shared_path: Path) -> None:
    end.hush(0)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer:
        peer.connect(str(shared_path / "s"))
        end.read()
        assert peer.recv(1) == b""
    assert list(end.costs()) == [agent_socket.EVERYBODY]
    end.hush(agent_socket.EVERYBODY)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer:
        peer.connect(str(shared_path / "s"))
        assert end.read() == ()
        assert end.costs() == {}


def test_of_a_user_so_much_is_read_at_a_time_and_nothing_while_there_is_enough(
    end: AgentSocket, shared_path: Path
) -> None:
    with ExitStack() as stack:
        for _ in range(20):
            peer = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            peer.connect(str(shared_path / "s"))
            for _ in range(agent_socket._BURST):
                peer.send(b"keeper state=lost")
        until(lambda: (end.read(busy=[0]), end._of_user[0] == 20)[1], "all are there")
        assert end.read(busy=[0]) == ()
        assert 0 < len(end.read()) <= agent_socket._TURN + agent_socket._BURST
        assert end.costs()[0] > 0


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


def test_a_user_who_talks_without_end_is_heard_less_often(tmp_path: Path) -> None:
    with Site(tmp_path) as site:
        site.agent._turns._shares = Shares(burst=0.02, part=0.001)
        loud = site.task(lease(1)).run()
        loud.socket.setblocking(False)

        def throttled() -> list[dict[str, Any]]:
            with suppress(BlockingIOError):
                for _ in range(100):
                    loud.say("keeper", state="lost")
            return site.journal("user.throttled")

        (named,) = until(throttled, "the user's name in the journal")
        assert named["uid"] == os.getuid()
        assert named["messages_ms"] > 0
        assert 1001 not in site.agent._turns.waiting()


def test_what_tasks_say_of_themselves_fills_no_journal_and_hides_no_fault(tmp_path: Path) -> None:
    with Site(tmp_path) as site:
        site.agent._reception._chatter._budget = Budget(40)
        loud, other = site.task(lease(1)).run(), site.task(lease(2)).run()
        for _ in range(30):
            loud.say("keeper", state="lost")
            brief = site.task(lease(1), 1)
            brief.hear("place")
            brief.close()
        site.log("a", f"Client {{PID: {loud.pid}, Context: 1}} encountered a fatal GPU error.")
        other.hear("verdict")
        until(lambda: site.journal("incident.attributed"), "the record of the fault")
        told = [row for row in site.journal("observation") if "is not written down" in row["text"]]
        assert len(told) == 1
        assert "uid 1001" in told[0]["text"]
        tasks = [*site.journal("task.hello"), *site.journal("task.gone")]
        keepers = [row for row in site.journal("observation") if row["what"] == "keeper"]
        assert len(tasks) + len(keepers) == 40


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
        other = replace(lease(2), uid=1002, domain=DomainKey("u1002"))
        (site.root / "log" / "u1002" / "g0" / "a").mkdir(parents=True)
        site.task(other).hear("place")
        (site.root / "log" / "u1002" / "g0" / "a" / "server.log").write_text(_FATAL)
        until(
            lambda: [row for row in site.journal("observation") if row.get("server") == "u1002/g0/a"], "another's log"
        )
        assert len(site.journal("observation")) < 110
