"""One user's flood at the agent's socket: others still get in, and the journal does not grow with it."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from resilience.adapters import agent_socket
from resilience.adapters.agent_socket import AgentSocket
from resilience.agent import loop
from tests.unit.agent_kit import Site, until

_CONNECT = "import socket,sys; s=socket.socket(socket.AF_UNIX,socket.SOCK_SEQPACKET); s.settimeout(5); \
s.connect(sys.argv[1]); s.send(b'hello'); print(s.recv(99).decode())"


@pytest.fixture
def end(tmp_path: Path) -> Iterator[AgentSocket]:
    for directory in (tmp_path, *tmp_path.parents[:2]):
        directory.chmod(0o755)
    made = AgentSocket(str(tmp_path / "s"))
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
        for _ in range(loop._REFUSALS + 20):
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as raw:
                raw.settimeout(10)
                raw.connect(site.socket)
                raw.send(b"\xff")
                assert raw.recv(8192).startswith(b"refuse reason=")
        refused = site.journal("task.gone")
    assert len(refused) == loop._REFUSALS
    assert "not written down" in refused[-1]["reason"]
