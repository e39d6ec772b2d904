"""Packets between program and keeper: what arrives is whole or refused, and no descriptor is left behind."""

import os
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience.model.errors import WireError
from resilience.state import wire
from resilience.state.names import MAX_FDS

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with left, right:
        yield left, right


def open_descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


@given(st.dictionaries(st.text(), JSON, max_size=5))
def test_a_message_arrives_as_it_was_sent(values: dict[str, object]) -> None:
    message = values | {"op": "x"}
    assert wire.decode(wire.encode(message)) == message


@given(st.binary(max_size=200) | st.text().map(str.encode) | JSON.map(lambda value: repr(value).encode()))
def test_any_packet_is_a_message_or_a_wire_error(packet: bytes) -> None:
    try:
        message = wire.decode(packet)
    except WireError:
        return
    assert isinstance(message["op"], str)


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"op":1}',
        b'"op"',
        b"[" * 60000,
        b'{"op":"x","n":' + b"1" * 9000 + b"}",
        b"\xff\xfe{}",
    ],
    ids=range(9),
)
def test_malformed(packet: bytes) -> None:
    with pytest.raises(WireError):
        wire.decode(packet)


def test_descriptors_travel_and_are_closed_on_exec(pair: tuple[socket.socket, socket.socket]) -> None:
    fds = [os.memfd_create(f"m{n}") for n in range(MAX_FDS)]
    for number, fd in enumerate(fds):
        os.write(fd, b"%d" % number)
    wire.send(pair[0], {"op": "put"}, fds)
    wire.close_all(fds)
    heard = wire.receive(pair[1])
    assert heard is not None
    assert [os.pread(fd, 9, 0) for fd in heard[1]] == [b"%d" % n for n in range(MAX_FDS)]
    assert not any(os.get_inheritable(fd) for fd in heard[1])
    wire.close_all(heard[1])


def test_descriptors_of_a_bad_packet_are_closed(pair: tuple[socket.socket, socket.socket]) -> None:
    before = open_descriptors()
    fd = os.memfd_create("m")
    socket.send_fds(pair[0], [b"not json"], [fd])
    os.close(fd)
    with pytest.raises(WireError, match="not JSON"):
        wire.receive(pair[1])
    assert open_descriptors() == before


def test_a_long_packet_is_not_read_as_a_shorter_one(pair: tuple[socket.socket, socket.socket]) -> None:
    text = b'{"op":"x"}'
    pair[0].send(text + b" " * (wire.MAX_BYTES + 1 - len(text)))
    with pytest.raises(WireError, match="longer than allowed"):
        wire.receive(pair[1])
    with pytest.raises(WireError, match="longer than"):
        wire.send(pair[0], {"op": "x" * wire.MAX_BYTES})
    with pytest.raises(WireError, match="more than 253"):
        wire.send(pair[0], {"op": "x"}, [0] * 254)


def test_a_peer_that_has_gone_is_none(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[0].close()
    assert wire.receive(pair[1]) is None
