"""Records of the guard module: what a kernel gave, and whatever else may stand in 128 bytes."""

import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience.model.errors import WireError
from resilience.parse.guard import SIZE, WORDS, GuardEvent, GuardRecord, Why, parse_records

# Read from /dev/mps_guard in the virtual machine of tests/guard (Debian's 6.1.0-56-amd64): a client's fault is sunk.
SUNK = bytes.fromhex(
    "0100000080000000b0000000000000002d5921c4020000004f00000000000000"
    "e8cdab00007f000065b69bc30200000001000000000000000000000000000000"
    "030000000000000001000000020000009c010000000000000100000010000000"
    "0200000000000000636c69656e74000000000000000000000000000000000000"
)


def test_a_record_from_a_kernel() -> None:
    assert len(SUNK) == SIZE
    (record,) = parse_records(SUNK)
    assert record == GuardRecord(
        sequence=176,
        time_ns=11880454445,
        incident=79,
        address=0x7F0000ABCDE8,
        start_ns=11871696485,
        cgroup=1,
        dropped=0,
        kind=GuardEvent.SUNK,
        why=Why.HELD,
        gpu=1,
        reason=2,
        pid=412,
        uid=0,
        windows=1,
        holds=16,
        holders=2,
        comm="client",
    )
    assert record.starttime == 1187
    assert record.words() == "process 412 (client): invalid permissions 0x7f0000abcde8: isolated after 16 replays"


def changed(**fields: int) -> bytes:
    """The record with single words set: offsets of the specification."""
    places = {"version": (0, "I"), "size": (4, "I"), "kind": (64, "I"), "why": (68, "I"), "pid": (80, "i")}
    places |= {"sequence": (8, "Q"), "time_ns": (16, "Q")}
    data = bytearray(SUNK)
    for name, value in fields.items():
        offset, form = places[name]
        struct.pack_into(f"={form}", data, offset, value)
    return bytes(data)


@pytest.mark.parametrize("kind", GuardEvent)
@pytest.mark.parametrize("why", [*Why])
def test_every_record_has_words(kind: GuardEvent, why: Why) -> None:
    (record,) = parse_records(changed(kind=kind, why=why, pid=0))
    assert record.words().startswith("a process: ")
    assert kind is not GuardEvent.PASSED or WORDS[why] in record.words()


@pytest.mark.parametrize(
    ("data", "wrong"),
    [
        (SUNK[:-1], "not whole records"),
        (changed(version=2), "another version"),
        (changed(size=136), "another version"),
        (changed(kind=0), "unknown kind"),
        (changed(kind=6), "unknown kind"),
        (changed(pid=-1), "bad process id"),
    ],
)
def test_what_does_not_follow_the_format(data: bytes, wrong: str) -> None:
    with pytest.raises(WireError, match=wrong):
        parse_records(data)


def test_a_reason_of_a_newer_module_is_unknown() -> None:
    (record,) = parse_records(changed(kind=GuardEvent.PASSED, why=77))
    assert record.why is Why.UNKNOWN


def test_several_records_and_none() -> None:
    assert parse_records(b"") == ()
    assert [record.kind for record in parse_records(SUNK + changed(kind=4))] == [GuardEvent.SUNK, GuardEvent.KILLED]


@given(st.one_of(st.binary(max_size=400), st.binary(min_size=SIZE - 8, max_size=SIZE - 8).map(lambda b: SUNK[:8] + b)))
def test_garbage_gives_records_or_one_kind_of_error(data: bytes) -> None:
    with suppress(WireError):
        for record in parse_records(data):
            assert record.words()
            assert record.pid >= 0
            assert record.starttime >= 0
