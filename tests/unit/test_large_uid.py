"""Users with uids of 2^31 and more, as AD and winbind give them out: each reader of SO_PEERCRED knows who they are."""

import os
import select
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from resilience.adapters.linux.agent_socket import AgentSocket
from resilience.parse import packet, ucred
from resilience.state.keeper import KeeperPeer
from tests.gpusim import mps_wire

UID = 4_294_967_290
GID = 3_000_000_002

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: becomes another user")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory that every user reaches."""
    for part in (tmp_path, *tmp_path.parents[:3]):
        os.chmod(part, 0o755)
    return tmp_path


def as_large(work: Callable[[], None]) -> int:
    """A child process that does the work as UID."""
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setresgid(GID, GID, GID)
        os.setresuid(UID, UID, UID)
        try:
            work()
        finally:
            os._exit(0)
    return child


def test_the_agent_keeper_and_simulator_know_a_large_uid(place: Path) -> None:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(f"{place}/socket")
    os.chmod(f"{place}/socket", 0o666)
    listener.listen()
    child = as_large(lambda: socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).connect(f"{place}/socket"))
    connection, _ = listener.accept()
    os.waitpid(child, 0)
    with listener, connection:
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, ucred.SIZE)
        assert ucred.peer(raw) == (child, UID, GID)
        assert KeeperPeer(connection).uid == UID
        assert mps_wire.credentials(connection) == (child, UID)


def test_the_agent_hears_a_user_with_a_large_uid(place: Path) -> None:
    agent = AgentSocket(f"{place}/agent.sock")

    def talk() -> None:
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        peer.connect(f"{place}/agent.sock")
        peer.send(packet.pack("hello", v=1))

    child = as_large(talk)
    seen: list[int] = []
    while not seen:
        assert select.select([agent], [], [], 30)[0], "nothing came within 30 s"
        seen = [packet.peer.uid for packet in agent.read()]
    os.waitpid(child, 0)
    agent.close()
    assert set(seen) == {UID}
