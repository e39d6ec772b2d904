"""The keeper as a process, with memfds in place of device memory: who gets in, what it holds, and when it ends."""

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from resilience.model.errors import StateError
from resilience.state import wire
from resilience.state.link import KeeperLink
from resilience.state.record import HELD, Commit, Record

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "a-secret"
MIB = 1 << 20


def eventually(true: Callable[[], Any], seconds: float = 10.0) -> Any:
    """The first true value of a condition, waited for with a bound."""
    end = time.monotonic() + seconds
    while not (value := true()):
        assert time.monotonic() < end, "the condition did not come true"
        select.select([], [], [], 0.005)
    return value


def connects(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        return probe.connect_ex(str(path)) == 0


class Running:
    """A keeper process and its standard error."""

    def __init__(self, path: Path, *extra: str, uid: int | None = None, token: str = TOKEN) -> None:
        self.path = path
        self.log = path.with_suffix(".log")
        command = [sys.executable, "-E", "-m", "resilience.state.keeper", "--socket", str(path), *extra]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env={"MPSR_TOKEN": token, "HOME": "/"}, stderr=log, user=uid, group=uid
            )
        eventually(lambda: connects(path) or self.process.poll() is not None)

    def link(self, role: str = "active", *, token: str = TOKEN, timeout: float = 5.0) -> KeeperLink:
        return KeeperLink(str(self.path), token, role, timeout=timeout)

    def end(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def said(self) -> str:
        return self.log.read_text()


@pytest.fixture
def keeper(tmp_path: Path) -> Iterator[Running]:
    running = Running(tmp_path / "k0.0")
    yield running
    running.end()


def deposit(text: bytes = b"state") -> tuple[dict[str, Any], list[int], Record]:
    """A layout with one array, its two memfds and a record that holds a commit."""
    record = Record.create()
    record.write(Commit(0, HELD, 41, {"r": 0.5}))
    fds = [record.fd]
    for _ in range(2):
        fd = os.memfd_create("region")
        os.write(fd, text)
        fds.append(fd)
    return {"regions": [2 * MIB, 2 * MIB], "arrays": [["u", [2], "float64", 2 * MIB, 0, 0]]}, fds, record


def test_what_was_deposited_outlives_the_depositor(keeper: Running) -> None:
    active = keeper.link()
    assert active.first is None
    layout, fds, record = deposit(b"kept bytes")
    active.put(layout, fds)
    active.close()
    wire.close_all(fds)
    del record

    taken = keeper.link().first
    assert taken is not None
    assert taken[0] == layout
    assert [os.pread(fd, 20, 0) for fd in taken[1][1:]] == [b"kept bytes"] * 2
    assert Record(taken[1][0]).latest() == Commit(0, HELD, 41, {"r": 0.5})


def test_status_tells_what_is_held(keeper: Running) -> None:
    active = keeper.link()
    assert active.status()["sequence"] == -1
    layout, fds, _ = deposit()
    active.put(layout, fds)
    status = active.status()
    assert status["writer"] == os.getpid()
    assert (status["arrays"], status["bytes"], status["sequence"], status["step"]) == (1, 4 * MIB, 0, 41)


def test_a_standby_waits_for_the_layout(keeper: Running) -> None:
    standby = keeper.link("standby")
    standby.ask_to_wait()
    assert select.select([standby.fileno()], [], [], 0.05)[0] == []
    layout, fds, _ = deposit()
    active = keeper.link()
    active.put(layout, fds)
    held = standby.heard_layout()
    assert held is not None
    assert held[0] == layout
    assert len(held[1]) == 3
    assert keeper.link("reader").first is not None
    active.close()


def test_there_is_one_writer(keeper: Running) -> None:
    active = keeper.link()
    with pytest.raises(StateError, match=f"process {os.getpid()} is the writer"):
        keeper.link(timeout=0.05)
    reader = keeper.link("reader")
    layout, fds, _ = deposit()
    with pytest.raises(StateError, match="not the writer"):
        reader.put(layout, fds)
    active.put(layout, fds)
    assert keeper.link("reader").first is not None


def test_a_promoted_standby_is_the_writer_at_once(keeper: Running) -> None:
    active = keeper.link()
    layout, fds, _ = deposit(b"one")
    active.put(layout, fds)
    standby = keeper.link("standby")
    standby.take()  # not watched: told at once
    with pytest.raises(StateError, match="not the writer"):
        active.put(layout, fds)
    changed, others, _ = deposit(b"two")
    standby.put(changed, others)
    taken = keeper.link("reader").first
    assert taken is not None
    assert os.pread(taken[1][1], 9, 0) == b"two"


def test_a_killed_writer_leaves_its_place_though_a_child_holds_the_connection(keeper: Running) -> None:
    code = (
        "import os, sys\nfrom resilience.state.link import KeeperLink\n"
        f"link = KeeperLink({str(keeper.path)!r}, {TOKEN!r}, 'active')\n"
        "if os.fork() == 0:\n    sys.stdin.read()\nelse:\n    print('writer', flush=True); os._exit(0)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "writer\n"
        assert child.wait(10) == 0
        assert keeper.link().status()["writer"] == os.getpid()
        child.communicate()


def test_wrong_token_is_refused_and_told(keeper: Running) -> None:
    for wrong in ("", "a-secreT", "a-secret ", "\udc80"):
        with pytest.raises((StateError, UnicodeEncodeError), match=r"wrong token|surrogates"):
            keeper.link(token=wrong)
    assert "refused process" in keeper.said()
    assert "wrong token" in keeper.said()
    assert keeper.link().first is None


def test_attach_comes_first(keeper: Running) -> None:
    for op in ("status", "put", "take", "wait", "nonsense"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer:
            peer.connect(str(keeper.path))
            wire.send(peer, {"op": op})
            heard = wire.receive(peer)
            assert heard is not None
            assert heard[0]["op"] == "refused"
            assert "attach first" in heard[0]["reason"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be two users")
@pytest.mark.parametrize("mine", [65534, 0], ids=["root-at-a-users", "user-at-roots"])
def test_another_user_is_refused(shared_path: Path, mine: int) -> None:
    """The socket's mode keeps others out already; this is what holds when it does not."""
    shared_path.chmod(0o777)
    running = Running(shared_path / "k", uid=mine)
    try:
        assert running.path.stat().st_mode & 0o777 == 0o600
        running.path.chmod(0o666)
        code = f"import socket; s = socket.socket(1, 5); s.connect({str(running.path)!r}); print(s.recv(999).decode())"
        other = 0 if mine else 65534
        answer = subprocess.run(
            [sys.executable, "-c", code], user=other, group=other, capture_output=True, text=True, check=True, cwd="/"
        ).stdout
        assert f"uid {other} is not the job's user" in answer
        assert f"of uid {other}: uid {other} is not" in running.said()
    finally:
        running.end()


def test_a_flood_of_refusals_does_not_flood_the_log(keeper: Running) -> None:
    for _ in range(40):
        with pytest.raises(StateError, match="wrong token"):
            keeper.link(token="no")
    lines = [line for line in keeper.said().splitlines() if "refused" in line]
    assert len(lines) == 6  # 1, 2, 4, 8, 16, 32
    assert "(32 refusals so far)" in lines[-1]


def test_the_limit_holds_and_what_was_kept_stays(tmp_path: Path) -> None:
    running = Running(tmp_path / "k", "--limit-mib", "4")
    try:
        active = running.link()
        layout, fds, _ = deposit(b"small")
        active.put(layout, fds)
        bigger = layout | {"regions": [4 * MIB, 2 * MIB]}
        with pytest.raises(StateError, match=r"6 MiB is over the limit of 4 MiB \(--mps-state\)"):
            active.put(bigger, fds)
        assert active.status()["bytes"] == 4 * MIB
    finally:
        running.end()


@pytest.mark.parametrize(
    ("layout", "count", "wrong"),
    [
        (None, 1, "no list of regions"),
        ({"regions": "x"}, 1, "no list of regions"),
        ({"regions": [1, -1]}, 3, "above 0"),
        ({"regions": [True, 1.5]}, 3, "above 0"),
        ({"regions": [1, 1]}, 2, "need 3 descriptors, not 2"),
        ({"regions": [1, 1]}, 0, "need 3 descriptors, not 0"),
    ],
)
def test_bad_deposits_are_refused(keeper: Running, layout: Any, count: int, wrong: str) -> None:
    active = keeper.link()
    _, fds, _ = deposit()
    with pytest.raises(StateError, match=wrong):
        active.put(layout, fds[:count])
    with pytest.raises(StateError, match="not a commit record"):
        active.put({"regions": [1, 1]}, fds[1:] + fds[:1])
    active.put({"regions": [1, 1]}, fds)
    assert active.status()["arrays"] == 1


ATTACHED = st.fixed_dictionaries(
    {"op": st.just("attach"), "v": st.just(1), "token": st.just(TOKEN), "role": st.just("active")}
)
FIELDS = st.none() | st.integers() | st.text(max_size=9) | st.lists(st.integers(), max_size=3)
MESSAGES = st.fixed_dictionaries(
    {"op": st.sampled_from(["attach", "put", "wait", "take", "status", "x", ""])},
    optional={
        "v": st.just(1) | FIELDS,
        "token": st.just(TOKEN) | FIELDS,
        "role": st.sampled_from(["active", "standby", "reader"]) | FIELDS,
        "layout": FIELDS | st.fixed_dictionaries({"regions": FIELDS}),
    },
).map(wire.encode)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(
        st.tuples(ATTACHED.map(wire.encode) | MESSAGES | st.binary(min_size=1, max_size=99), st.integers(0, 3)),
        max_size=6,
    )
)
def test_no_message_ends_the_keeper_or_leaks_a_descriptor(keeper: Running, packets: list[tuple[bytes, int]]) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer:
        peer.connect(str(keeper.path))
        try:
            for packet, count in packets:
                socket.send_fds(peer, [packet], [peer.fileno()] * count)
        except OSError:
            pass  # refused and hung up
    probe = keeper.link("reader")
    status = probe.status()
    probe.close()
    held = 2 * status["arrays"] + (1 if status["arrays"] else 0)
    descriptors = Path(f"/proc/{keeper.process.pid}/fd")
    # 0, 1, 2, the listener, the parent's pidfd; connections may still be going
    eventually(lambda: len(list(descriptors.iterdir())) <= 5 + held + 2)


def test_the_writer_deposits_again_when_the_keeper_was_killed(keeper: Running) -> None:
    active = keeper.link()
    standby = keeper.link("standby")
    layout, fds, record = deposit(b"bytes")
    active.put(layout, fds)
    active.watch()
    standby.watch()
    keeper.end()
    record.write(Commit(1, HELD, 99, {}))  # the program goes on
    second = Running(keeper.path)
    try:
        taken = eventually(lambda: second.link("reader").first)
        assert taken[0] == layout
        assert os.pread(taken[1][1], 9, 0) == b"bytes"
        assert Record(taken[1][0]).latest() == Commit(1, HELD, 99, {})
        assert eventually(lambda: second.link("reader").status()["peers"] >= 3)
    finally:
        active.close()
        standby.close()
        second.end()


def test_a_promoted_standby_deposits_when_keeper_and_writer_died_together(keeper: Running) -> None:
    active = keeper.link()
    layout, fds, _ = deposit(b"bytes")
    active.put(layout, fds)
    standby = keeper.link("standby")
    assert standby.first is not None
    standby.remember(*standby.first)
    standby.watch()
    active.close()
    keeper.end()
    standby.take()  # nobody listens: must neither raise nor stand still
    second = Running(keeper.path)
    try:
        assert eventually(lambda: second.link("reader").first)[0] == layout
        assert second.link("reader").status()["writer"] == os.getpid()
    finally:
        standby.close()
        second.end()


def test_a_stopped_keeper_does_not_hold_up_a_promotion(keeper: Running) -> None:
    standby = keeper.link("standby")
    standby.watch()
    keeper.process.send_signal(signal.SIGSTOP)
    before = time.monotonic()
    standby.take()
    assert time.monotonic() - before < 2
    keeper.process.send_signal(signal.SIGCONT)
    reader = keeper.link("reader")
    assert eventually(lambda: reader.status()["writer"] == os.getpid())
    standby.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_its_socket(keeper: Running, number: signal.Signals) -> None:
    keeper.process.send_signal(number)
    assert keeper.process.wait(10) == 0
    assert not keeper.path.exists()


def test_it_ends_with_its_parent(tmp_path: Path) -> None:
    path = tmp_path / "k"
    code = (
        "import subprocess, sys\n"
        f"c = subprocess.Popen([sys.executable, '-E', '-m', 'resilience.state.keeper', '--socket', {str(path)!r}])\n"
        "print(c.pid, flush=True)\nsys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code]
    environ = {"MPSR_TOKEN": TOKEN}
    with subprocess.Popen(
        command, cwd=ROOT, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        eventually(lambda: connects(path))
        parent.kill()
    eventually(lambda: not path.exists())
    eventually(lambda: not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split()[2])


def test_a_dead_keepers_socket_is_cleared_and_a_living_ones_is_not(keeper: Running) -> None:
    second = Running(keeper.path)
    assert second.process.wait(10) == 2
    assert "another keeper listens there" in second.said()
    assert keeper.link().first is None
    keeper.end()
    assert keeper.path.exists()
    third = Running(keeper.path)
    assert third.link().first is None
    third.end()


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        ([], "bad arguments"),
        (["--socket"], "bad arguments"),
        (["--sockets", "x"], "bad arguments"),
        (["--socket", "x", "--limit-mib", "-1"], "--limit-mib is no whole number: -1"),
        (["--socket", "/nowhere/k"], "cannot listen at /nowhere/k"),
        (["--socket", "/tmp/" + "x" * 120], "a path has at most 107 bytes"),
    ],
)
def test_bad_arguments(arguments: list[str], wrong: str) -> None:
    command = [sys.executable, "-E", "-m", "resilience.state.keeper", *arguments]
    done = subprocess.run(command, cwd=ROOT, env={"MPSR_TOKEN": TOKEN}, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert wrong in done.stderr
    assert done.stderr.startswith("mpsr: keeper: ")


def test_without_a_token_it_does_not_start() -> None:
    command = [sys.executable, "-E", "-m", "resilience.state.keeper", "--socket", "/tmp/never"]
    done = subprocess.run(command, cwd=ROOT, env={}, capture_output=True, text=True, check=False)
    assert (done.returncode, "MPSR_TOKEN" in done.stderr) == (2, True)


def test_it_is_small(keeper: Running) -> None:
    """A bare interpreter with sockets and JSON takes 10 to 11 MiB here; 16 leaves room for other builds of Python."""
    active = keeper.link()
    layout, fds, _ = deposit()
    active.put(layout, fds)
    status = Path(f"/proc/{keeper.process.pid}/status").read_text()
    resident = int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])
    assert resident < 16 * 1024
