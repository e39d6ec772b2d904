"""What the agent tells systemd, heard on a real socket: it is ready, its loop turns, it ends."""

import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from resilience.adapters.linux.clock import SystemClock
from resilience.adapters.linux.service_manager import ServiceManager
from tests.cluster.sandbox import wait_for
from tests.unit.agent_kit import Site, until

ROOT = Path(__file__).parents[2]
SECONDS = 15.0


class Manager:
    """systemd's end of the socket."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.address = str(place / "notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.address)
        self.socket.settimeout(SECONDS)

    def hear(self) -> str:
        return self.socket.recv(4096).decode()

    def hear_until(self, text: str) -> list[str]:
        heard = [self.hear()]
        while heard[-1] != text:
            heard.append(self.hear())
        return heard


@pytest.fixture
def manager() -> Iterator[Manager]:
    place = Path(tempfile.mkdtemp(prefix="sm-", dir="/tmp"))
    made = Manager(place)
    yield made
    made.socket.close()
    shutil.rmtree(place)


def children(pid: int) -> list[str]:
    """Those of all its threads: the hook server is started by one of them."""
    return [child for file in Path(f"/proc/{pid}/task").glob("*/children") for child in file.read_text().split()]


def test_an_agent_is_ready_beats_goes_on_after_a_reload_and_ends(manager: Manager) -> None:
    place = manager.place
    (place / "kmsg").write_text("")
    (place / "mpsr.yaml").write_text(
        f"paths: {{run: {place}/r, log: {place}/l, state: {place}/s, kmsg: {place}/kmsg, scontrol: /nonexistent}}\n"
        "slurm: {adapter: scontrol}\n"
    )
    command = [
        sys.executable,
        "-m",
        "resilience.cli.main",
        "agent",
        "--node",
        "n0",
        "--config",
        str(place / "mpsr.yaml"),
    ]
    environment = os.environ | {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "100000"}
    environment.pop("WATCHDOG_PID", None)
    agent = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL)
    try:
        assert manager.hear() == "READY=1"
        assert [manager.hear() for _ in range(3)] == ["WATCHDOG=1"] * 3
        for child in wait_for(lambda: children(agent.pid), SECONDS):
            assert b"NOTIFY_SOCKET" not in Path(f"/proc/{child}/environ").read_bytes()
        agent.send_signal(signal.SIGHUP)
        assert set(manager.hear_until("READY=1")[:-1]) <= {"WATCHDOG=1", "STOPPING=1"}
        assert manager.hear() == "WATCHDOG=1"
        agent.send_signal(signal.SIGTERM)
        manager.hear_until("STOPPING=1")
        assert agent.wait(SECONDS) == 0
    finally:
        if agent.poll() is None:
            agent.kill()
            agent.wait(SECONDS)
    journal = [json.loads(line)["event"] for line in (place / "l/n0/journal.jsonl").read_text().splitlines()]
    assert [event for event in journal if event.startswith("agent.")] == ["agent.started", "agent.stopped"] * 2


class Beats:
    """Remembers which thread told that the loop turns, and when it is stuck."""

    def __init__(self) -> None:
        self.threads: list[int] = []
        self.told: list[str] = []

    def ready(self) -> None:
        self.told.append("ready")

    def beat(self) -> float:
        self.threads.append(threading.get_ident())
        return 0.001

    def stopping(self) -> None:
        self.told.append("stopping")


def test_only_the_loop_beats(tmp_path: Path) -> None:
    """A loop that is held up by one piece of news tells nothing until it goes on."""
    beats, held, go_on = Beats(), threading.Event(), threading.Event()
    site = Site(tmp_path, alive=beats)

    def stuck() -> tuple[str, ...]:
        held.set()
        assert go_on.wait(SECONDS)
        return ()

    with site:
        until(lambda: len(beats.threads) > 10, "beats")
        assert len(set(beats.threads)) == 1
        assert beats.threads[0] not in (threading.get_ident(), 0)
        site.kernel_log.read = stuck  # type: ignore[method-assign]
        site.kernel("NVRM: Xid (PCI:0000:06:00): 31, x")
        assert held.wait(SECONDS)
        before = len(beats.threads)
        go_on.set()
        until(lambda: len(beats.threads) > before, "the next beat")
    assert beats.told == ["ready", "stopping"]


@pytest.mark.parametrize(
    ("given", "watched"),
    [
        ({}, False),
        ({"WATCHDOG_USEC": "1000000"}, False),
        ({"NOTIFY_SOCKET": "/nonexistent/notify"}, False),
        ({"NOTIFY_SOCKET": "/nonexistent/notify", "WATCHDOG_USEC": "1000000"}, True),
        ({"NOTIFY_SOCKET": "/nonexistent/notify", "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}, False),
        ({"NOTIFY_SOCKET": "/nonexistent/notify", "WATCHDOG_USEC": "soon"}, False),
        ({"NOTIFY_SOCKET": "/nonexistent/notify", "WATCHDOG_USEC": "0"}, False),
    ],
)
def test_nobody_who_listens_costs_nothing(given: dict[str, str], watched: bool) -> None:
    environ = dict(given) | {"PATH": "/bin"}
    manager = ServiceManager(environ, SystemClock())
    assert environ == {"PATH": "/bin"}
    manager.ready()
    beat = manager.beat()
    assert (0 < beat <= 0.5) if watched else beat == math.inf
    manager.stopping()
    manager.give_back(environ)
    assert environ == given | {"PATH": "/bin"}


def test_an_abstract_socket_is_found() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"\0mpsr-test-{os.getpid()}")
        sock.settimeout(SECONDS)
        ServiceManager({"NOTIFY_SOCKET": f"@mpsr-test-{os.getpid()}"}, SystemClock()).ready()
        assert sock.recv(100) == b"READY=1"
