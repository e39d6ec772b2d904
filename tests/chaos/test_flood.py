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
from resilience.adapters.linux.turns import REST
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


def test_users_take_turns_and_who_says_too_much_rests_alone(shared_path: Path) -> None:
    now = [100.0]
    end = AgentSocket(str(shared_path / "s"), lambda: now[0])
    with ExitStack() as stack:
        loud = [stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)) for _ in range(20)]
        for peer in loud:
            peer.setblocking(False)
            peer.connect(str(shared_path / "s"))
        other = subprocess.Popen(
            [sys.executable, "-c", _CONNECT, str(shared_path / "s")], user=65534, stdout=subprocess.PIPE, text=True
        )
        heard: list[tuple[int, ...]] = []

        def quiet_one() -> object:
            for peer in loud:
                with suppress(OSError):
                    for _ in range(100):
                        peer.send(b"keeper state=lost")
            packets = end.read()
            heard.append(tuple(packet.peer.uid for packet in packets))
            if 65534 in heard[-1]:
                end.send(next(packet.peer for packet in packets if packet.peer.uid == 65534), b"welcome")
            return other.poll() is not None

        until(quiet_one, "the other's end")
        assert other.communicate(timeout=10)[0] == "welcome\n"
        assert all(65534 in users[:2] for users in heard if 65534 in users), (
            "it waits for one word of another's at most"
        )
        assert max(users.count(0) for users in heard) <= agent_socket._TURN + agent_socket._BURST
        until(lambda: not end.read(), "the rest")
        assert sum(users.count(0) for users in heard) < agent_socket.MOST + 200
        now[0] += REST
        assert end.read(), "after its rest it is heard again"
    end.close()


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
        site.log("b", f"Client {{PID: {one.pid}, Context: 1}} encountered a fatal GPU error.")
        until(
            lambda: [row for row in site.journal("observation") if row.get("server") == "u1001/g0/b"], "the other log"
        )
        assert len(site.journal("observation")) < 110
