"""A guard module that comes, goes and is switched while the agent runs: it is heard, told of the GPUs, and let go.

Directories, watches and the agent are real; the module is the other end of a packet socket, as in test_guard.py, and its
parameters are files. That a kernel's own /dev and parameters tell a watch as much is tested in tests/guard.
"""

import os
import select
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from resilience.adapters.gpu.guard import level
from resilience.adapters.gpu.guard_follower import GuardFollower
from resilience.model.guard import Level
from resilience.model.ids import GpuUuid, ProcessId, ServerId
from resilience.model.lease import Isolation
from tests.unit.agent_kit import BOUND, Site, until
from tests.unit.machine_kit import UUID, lease, server
from tests.unit.test_guard_records import changed

HEX = UUID.removeprefix("GPU-").replace("-", "")
MILLISECOND = 1_000_000


class Module:
    """The module: its node, its parameters, and the kernel's end of the device for whoever has it open."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (root / "dev").mkdir()
        self.node, self.parameters = root / "dev" / "mps_guard", root / "parameters"
        self.said: list[str] = []
        self.opened: list[socket.socket] = []
        real = os.open

        def fake(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
            if path != str(self.node):
                return real(path, flags, mode, dir_fd=dir_fd)
            ours, kernels = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            ours.setblocking(False)
            kernels.settimeout(BOUND)
            self.opened.append(kernels)
            return ours.detach()

        monkeypatch.setattr("resilience.adapters.gpu.guard.os.open", fake)

    def follower(self) -> GuardFollower:
        return GuardFollower(self.said.append, str(self.node), str(self.parameters))

    def load(self, **parameters: str) -> None:
        self.parameters.mkdir()
        for name, text in ({"enabled": "N", "observe": "N", "gpus": "0", "clients": "0"} | parameters).items():
            self.put(name, text)
        self.node.touch()

    def put(self, name: str, text: str) -> None:
        with (self.parameters / name).open("w") as file:
            file.write(f"{text}\n")

    def unload(self) -> None:
        self.node.unlink()
        for file in self.parameters.iterdir():
            file.unlink()
        self.parameters.rmdir()

    def told(self) -> bytes:
        return self.opened[-1].recv(200)

    def let_go(self) -> bool:
        """Whether nobody has the device open: the module could be unloaded."""
        return all(self._is_closed(end) for end in self.opened)

    def _is_closed(self, end: socket.socket) -> bool:
        end.settimeout(0)
        try:
            return end.recv(200, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        finally:
            end.settimeout(BOUND)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Module]:
    made = Module(tmp_path, monkeypatch)
    yield made
    for end in made.opened:
        end.close()


def news(follower: GuardFollower) -> bool:
    return bool(select.select([follower], [], [], 0)[0])


def test_without_the_module_nothing_comes(module: Module) -> None:
    follower = module.follower()
    follower.learn(GpuUuid(UUID))
    assert follower.read() == ()
    assert not follower.acknowledge(1)
    assert not news(follower)
    assert module.said == ["guard module: absent"]
    follower.close()


def test_a_module_that_is_off_is_not_kept_from_leaving(module: Module) -> None:
    module.load()
    follower = module.follower()
    assert module.said == ["guard module: off"]
    assert module.opened == []
    follower.close()


def test_switched_on_it_is_told_of_the_gpus(module: Module) -> None:
    follower = module.follower()
    follower.learn(GpuUuid(UUID))
    module.load()
    assert news(follower)
    assert follower.read() == ()
    module.put("enabled", "Y")
    assert level(str(module.node), str(module.parameters)) is Level.BLIND
    assert news(follower)
    follower.read()
    assert module.told() == f"gpu {HEX}".encode()
    module.put("gpus", "1")
    follower.read()
    assert module.said == [f"guard module: {word}" for word in ("absent", "off", "blind", "on")]
    follower.close()
    assert module.let_go()


def test_what_others_write_below_dev_wakes_nobody(module: Module) -> None:
    follower = module.follower()
    other = module.node.with_name("null")
    other.touch()
    follower.read()
    other.write_text("much")
    assert not news(follower)
    follower.close()


def test_switched_off_it_is_held_until_its_last_client_has_ended(module: Module) -> None:
    module.load(enabled="Y", gpus="1")
    follower = module.follower()
    module.opened[-1].send(changed(kind=3))
    assert len(follower.read()) == 1
    module.put("clients", "1")
    module.put("enabled", "N")
    assert follower.read() == ()
    assert not module.let_go()
    assert follower.acknowledge(79)
    assert module.told() == b"ack 79"
    module.put("clients", "0")
    module.opened[-1].send(changed(kind=5, time_ns=10**15))
    assert len(follower.read()) == 1
    assert module.let_go()
    assert module.said[-1] == "guard module: off"
    follower.close()


def test_the_ring_is_not_told_twice(module: Module) -> None:
    """Who opens the device gets what is in the ring still."""
    module.load(enabled="Y", gpus="1")
    follower = module.follower()
    old = changed(sequence=5, time_ns=MILLISECOND), changed(sequence=6, time_ns=MILLISECOND)
    module.opened[-1].send(b"".join(old))
    assert len(follower.read()) == 2
    module.put("enabled", "N")
    follower.read()
    assert module.let_go()
    module.put("enabled", "Y")
    follower.read()
    module.opened[-1].send(b"".join(old) + changed(sequence=7, time_ns=MILLISECOND))
    assert [record.sequence for record in follower.read()] == [7]
    # Loaded anew it counts from 1 again, later.
    module.opened[-1].send(changed(sequence=1, time_ns=2 * MILLISECOND))
    assert [record.sequence for record in follower.read()] == [1]
    follower.close()


def test_a_device_that_cannot_be_opened_is_said(module: Module, monkeypatch: pytest.MonkeyPatch) -> None:
    module.load(enabled="Y", gpus="1")

    def refused(path: str, flags: int) -> int:
        raise PermissionError(13, "Permission denied", path)

    with monkeypatch.context() as patch:
        patch.setattr("resilience.adapters.gpu.guard.os.open", refused)
        follower = module.follower()
    assert any("cannot be used" in word for word in module.said)
    assert not follower.acknowledge(1)
    follower.close()


def test_the_agent_takes_a_module_that_is_loaded_again(tmp_path: Path, module: Module) -> None:
    """Loaded after the agent, it isolates; switched off it can be unloaded; loaded again it isolates again, and its
    incident of the same number is another one."""
    ended: list[tuple[ProcessId, ServerId | None]] = []

    def end(process: ProcessId, where: ServerId | None) -> str:
        ended.append((process, where))
        return ""

    with Site(tmp_path, guard=module.follower(), end_client=end) as site:
        tasks = [site.task(lease(job, isolation=Isolation.DOMAINS)).run() for job in (1, 2)]
        tasks[1].say("keeper", state="restored")
        until(lambda: [row for row in site.journal("observation") if row["what"] == "keeper"], "all messages are taken")
        for turn, task in enumerate(tasks):
            module.load(enabled="Y")
            until(lambda turn=turn: len(module.opened) > turn, "it is opened")  # type: ignore[misc]
            assert module.told() == f"gpu {HEX}".encode()
            module.put("gpus", "1")
            until(lambda: module.said[-1] == "guard module: on", "it is on")
            module.opened[-1].send(changed(pid=task.pid, time_ns=(turn + 1) * MILLISECOND))
            assert module.told() == b"ack 79"
            until(lambda turn=turn: len(ended) > turn, "the end of the client")  # type: ignore[misc]
            assert "; isolation: guard" in tasks[1 - turn].hear("log")["line"]
            module.put("enabled", "N")
            until(module.let_go, "it is let go")
            module.unload()
        assert ended == [(ProcessId(pid=task.pid, starttime=1187), server("a")) for task in tasks]
