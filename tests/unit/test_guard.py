"""The guard's adapter: the words it says, the end of a client, and what it takes for isolation.

The device is a packet socket here (whole records, whole lines, like the real one, which needs the module: tests/guard
holds the records of a real one against the same parser). Processes are real.
"""

import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from resilience.adapters.gpu.guard import GuardDevice, clients, level
from resilience.adapters.linux.processes import kill, starttime
from resilience.adapters.mps.client_end import ClientEnder
from resilience.model.errors import MpsControlError, ResilienceError, WireError
from resilience.model.guard import Level
from resilience.model.ids import Color, DomainKey, GpuMinor, GpuUuid, ProcessId, ServerId
from resilience.model.world import ServerState
from resilience.parse.guard import GuardEvent
from resilience.ports import ServerOwner
from tests.unit.test_guard_records import SUNK, changed

SERVER = ServerId(domain=DomainKey("u1001"), gpu=GpuMinor(0), color=Color("a"))


class Device:
    """Opens a GuardDevice on one end of a packet socket, and is the module at the other."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        ours, self.module = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        self.module.settimeout(5)
        opened: list[tuple[str, int]] = []

        def fake_open(path: str, flags: int) -> int:
            opened.append((path, flags))
            return ours.detach()

        with monkeypatch.context() as patch:
            patch.setattr("os.open", fake_open)
            self.guard = GuardDevice(str(tmp_path / "mps_guard"))
        ((_, self.flags),) = opened


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Device:
    return Device(tmp_path, monkeypatch)


def test_it_never_waits(device: Device) -> None:
    assert device.flags & os.O_NONBLOCK
    assert device.flags & os.O_CLOEXEC
    assert device.guard.read() == ()


def test_records_come_whole(device: Device) -> None:
    device.module.send(SUNK + changed(kind=5))
    assert [record.kind for record in device.guard.read()] == [GuardEvent.SUNK, GuardEvent.RELEASED]
    assert device.guard.read() == ()


def test_another_version_is_an_error_once(device: Device) -> None:
    device.module.send(changed(version=9))
    with pytest.raises(WireError, match="another version"):
        device.guard.read()
    assert device.guard.read() == ()


def test_words_that_the_module_understands(device: Device) -> None:
    device.guard.learn(GpuUuid("GPU-5a5a5a5a-0001-0203-0405-060708090a0b"))
    assert device.module.recv(100) == b"gpu 5a5a5a5a000102030405060708090a0b"
    assert device.guard.acknowledge(79)
    assert device.module.recv(100) == b"ack 79"


@pytest.mark.parametrize("uuid", ["", "MIG-5a5a5a5a-0001-0203-0405-060708090a0b", "GPU-5a5a", "GPU-x"])
def test_what_is_no_uuid_is_not_said(device: Device, uuid: str) -> None:
    with pytest.raises(ResilienceError, match="not a GPU's UUID"):
        device.guard.learn(GpuUuid(uuid))


def test_a_module_that_went_away_is_an_error(device: Device) -> None:
    device.module.close()
    with pytest.raises(ResilienceError, match="does not take 'ack'"):
        device.guard.acknowledge(1)


def test_a_forgotten_incident_is_no_error(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    def forgotten(fd: int, data: bytes) -> int:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr("os.write", forgotten)
    assert not device.guard.acknowledge(1)


def test_no_device_says_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(ResilienceError) as caught:
        GuardDevice(str(tmp_path / "none"))
    assert "guard-module.md" in caught.value.hint


@pytest.mark.parametrize(
    ("switches", "expected"),
    [
        ({"enabled": "Y\n", "observe": "N\n", "gpus": "2\n"}, Level.ON),
        ({"enabled": "Y\n", "observe": "N\n", "gpus": "0\n"}, Level.BLIND),
        ({"enabled": "Y\n", "observe": "N\n", "gpus": "-1\n"}, Level.BLIND),
        ({"enabled": "Y\n", "observe": "N\n"}, Level.BLIND),
        ({"enabled": "N\n", "observe": "N\n"}, Level.OFF),
        ({"enabled": "Y\n", "observe": "Y\n"}, Level.OBSERVE),
        ({"enabled": "N\n", "observe": "Y\n"}, Level.OBSERVE),
        ({}, Level.OFF),
        ({"enabled": "", "observe": "?"}, Level.OFF),
    ],
)
def test_level(tmp_path: Path, switches: dict[str, str], expected: Level) -> None:
    device = tmp_path / "mps_guard"
    for name, text in switches.items():
        (tmp_path / name).write_text(text)
    assert level(str(device), str(tmp_path)) is Level.ABSENT
    device.touch()
    assert level(str(device), str(tmp_path)) is expected


def test_clients(tmp_path: Path) -> None:
    assert clients(str(tmp_path)) == 0
    (tmp_path / "clients").write_text("12\n")
    assert clients(str(tmp_path)) == 12


# ---------------------------------------------------------------- the end of a client
class Server:
    """Mps port that records who is terminated, and whether the process lived then."""

    def __init__(self, *joined: int, broken: bool = False) -> None:
        self.joined, self.broken = joined, broken
        self.asked: list[tuple[ServerId, int, bool]] = []

    def end_clients(self, server: ServerId, meant: Callable[[int], bool]) -> tuple[int, ...]:
        if self.broken:
            raise MpsControlError("mps", "no answer", server.color)
        pids = tuple(filter(meant, self.joined))
        self.asked += [(server, pid, starttime(pid) is not None) for pid in pids]
        return pids

    def state(self, server: ServerId) -> ServerState:
        raise NotImplementedError

    def clients(self, server: ServerId) -> tuple[int, ...]:
        raise NotImplementedError

    def open(self, server: ServerId, uuids: tuple[GpuUuid, ...], owner: ServerOwner, *, in_use: bool = True) -> None:
        raise NotImplementedError

    def close(self, server: ServerId) -> tuple[str, ...]:
        raise NotImplementedError

    def daemon(self, server: ServerId) -> ProcessId | None:
        raise NotImplementedError

    def pipe(self, server: ServerId) -> str:
        raise NotImplementedError

    def partition(self, server: ServerId, slot: int) -> str:
        raise NotImplementedError

    def logs(self, server: ServerId) -> str:
        raise NotImplementedError


@pytest.fixture
def sleeper() -> "subprocess.Popen[bytes]":
    return subprocess.Popen(["sleep", "60"])


def meant(process: "subprocess.Popen[bytes]") -> ProcessId:
    started = starttime(process.pid)
    assert started is not None
    return ProcessId(pid=process.pid, starttime=started)


def test_server_first_then_sigkill(sleeper: "subprocess.Popen[bytes]") -> None:
    server = Server(sleeper.pid, os.getpid())
    assert ClientEnder(server)(meant(sleeper), SERVER) == ""
    assert server.asked == [(SERVER, sleeper.pid, True)]
    assert sleeper.wait(5) == -9


def test_a_server_that_does_not_help_does_not_save_the_client(sleeper: "subprocess.Popen[bytes]") -> None:
    assert "no answer" in ClientEnder(Server(broken=True))(meant(sleeper), SERVER)
    assert sleeper.wait(5) == -9


def test_a_server_that_does_not_know_the_client(sleeper: "subprocess.Popen[bytes]") -> None:
    assert "does not know" in ClientEnder(Server())(meant(sleeper), SERVER)
    assert sleeper.wait(5) == -9


def test_without_a_server_only_the_signal(sleeper: "subprocess.Popen[bytes]") -> None:
    server = Server()
    assert ClientEnder(server)(meant(sleeper), None) == ""
    assert server.asked == []
    assert sleeper.wait(5) == -9


def test_a_number_that_is_another_process_by_now_is_left_alone(sleeper: "subprocess.Popen[bytes]") -> None:
    right = meant(sleeper)
    assert kill(ProcessId(pid=right.pid, starttime=right.starttime - 1)) == ""
    assert sleeper.poll() is None
    assert kill(right) == ""
    assert sleeper.wait(5) == -9
    assert kill(right) == ""
