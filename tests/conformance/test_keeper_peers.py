"""Who gets in at the keeper: its own user with the token; and nothing that is sent there harms it."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilience.model.errors import StateError
from resilience.state import wire
from resilience.state.names import STATE_VERSION
from tests.conformance.keeper_kit import TOKEN, Running, eventually


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


ATTACHED = st.fixed_dictionaries(
    {"op": st.just("attach"), "v": st.just(STATE_VERSION), "token": st.just(TOKEN), "role": st.just("active")}
)
FIELDS = st.none() | st.integers() | st.text(max_size=9) | st.lists(st.integers(), max_size=3)
MESSAGES = st.fixed_dictionaries(
    {"op": st.sampled_from(["attach", "put", "wait", "take", "status", "x", ""])},
    optional={
        "v": st.just(STATE_VERSION) | FIELDS,
        "token": st.just(TOKEN) | FIELDS,
        "role": st.sampled_from(["active", "standby", "reader"]) | FIELDS,
        "layout": FIELDS | st.fixed_dictionaries({"regions": FIELDS}),
    },
).map(wire.encode)


@settings(max_examples=150)
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
    held = status["regions"] + (2 if status["regions"] else 0)
    descriptors = Path(f"/proc/{keeper.process.pid}/fd")
    # 0, 1, 2, the listener, the parent's pidfd; connections may still be going
    eventually(lambda: len(list(descriptors.iterdir())) <= 5 + held + 2)
