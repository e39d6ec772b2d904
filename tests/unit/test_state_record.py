"""The commit record: a writer killed at any byte leaves the old or the new entry, never another."""

import json
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience.model.errors import StateError
from resilience.state import record
from resilience.state.record import COPYING, HELD, PREPARED, Commit, CommitRecord, Member

VALUES = st.dictionaries(
    st.text(max_size=8), st.floats(allow_nan=False) | st.integers() | st.text(max_size=8), max_size=4
)
STEPS = st.integers(min_value=-(2**63), max_value=2**63 - 1)


@st.composite
def histories(draw: st.DrawFn) -> list[Commit]:
    """Commits as a session writes them: COPYING n, HELD n, COPYING n+1, …; PREPARED n before, in a group."""
    group = draw(st.none() | st.builds(Member, st.just(1), st.integers(2, 9), st.integers(0, 2**63)))
    phases = (PREPARED, COPYING, HELD) if group else (COPYING, HELD)
    start = draw(st.integers(min_value=0, max_value=2**63))
    commits = []
    for number in range(draw(st.integers(min_value=1, max_value=4))):
        step, values = draw(STEPS), draw(VALUES)
        commits += [Commit(start + number, phase, step, values, group=group) for phase in phases]
    return commits[: draw(st.integers(min_value=1, max_value=len(commits)))]


def byte_by_byte(page: bytearray, commit: Commit) -> list[bytes]:
    """The page after every single byte of every store, and before the first."""
    pages = [bytes(page)]
    for at, data in record.stores(commit):
        for offset, value in enumerate(data):
            page[at + offset] = value
            pages.append(bytes(page))
    return pages


@given(histories())
def test_the_last_entry_counts(history: list[Commit]) -> None:
    page = bytearray(record.SIZE)
    assert record.latest(bytes(page)) is None
    for commit in history:
        record.write(page, commit)
        assert record.latest(bytes(page)) == commit


@given(histories())
def test_a_write_torn_at_any_byte_yields_the_old_or_the_new_state(history: list[Commit]) -> None:
    page = bytearray(record.SIZE)
    for commit in history[:-1]:
        record.write(page, commit)
    before, after = record.latest(bytes(page)), history[-1]
    seen = [record.latest(torn) for torn in byte_by_byte(page, after)]
    assert seen[0] == before
    assert seen[-1] == after
    assert all(entry in (before, after) for entry in seen)
    assert after not in seen[: seen.index(after)]
    assert seen[seen.index(after) :] == [after] * (len(seen) - seen.index(after))


@given(histories())
def test_the_order_of_the_stores_alone_keeps_a_torn_write_out(history: list[Commit]) -> None:
    """With a checksum that sees nothing: a kill in the long store, or between two, still shows the old or the new state.

    The short ones are single aligned words, which no kill divides.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("zlib.crc32", lambda *_: 0)
        page = bytearray(record.SIZE)
        for commit in history[:-1]:
            record.write(page, commit)
        before, after = record.latest(bytes(page)), history[-1]
        for at, data in record.stores(after):
            for offset in range(0, len(data), len(data) if len(data) == 4 else 1):
                end = len(data) if len(data) == 4 else offset + 1
                page[at + offset : at + end] = data[offset:end]
                assert record.latest(bytes(page)) in (before, after)
        assert record.latest(bytes(page)) == after


@given(histories(), st.data())
def test_a_changed_byte_is_never_taken_for_an_entry(history: list[Commit], data: st.DataObject) -> None:
    page = bytearray(record.SIZE)
    for commit in history:
        record.write(page, commit)
    last = history[-1]
    at = data.draw(st.integers(0, len(record.encode(last)) - 1)) + last.phase * record.SLOT_BYTES
    page[at] ^= data.draw(st.integers(1, 255))
    assert record.latest(bytes(page)) in (None, *history[:-1])


@given(st.binary(max_size=3 * record.SLOT_BYTES))
def test_any_bytes_are_an_entry_or_nothing(page: bytes) -> None:
    found = record.latest(page)
    assert found is None or isinstance(found.values, dict)


@pytest.mark.parametrize("group", [[0], [1, 1, 5], [0, 2, -1], [0, 2, "5"], {}, "a", [True, 2, 5]])
def test_what_is_no_member_of_a_group_is_no_entry(group: object) -> None:
    with pytest.raises(ValueError):
        record.member(group)
    body = b'{"filled":[],"group":%b,"sums":[],"values":{}}' % json.dumps(group).encode()
    tail = struct.pack("<IQqB3x", len(body), 1, 1, PREPARED) + body
    assert record.decode(struct.pack("<I", zlib.crc32(tail)) + tail) is None


def test_an_entry_that_was_current_is_only_ever_replaced_by_its_own_successor() -> None:
    """A COPYING entry of commit n outranks HELD n-1 and is outranked by HELD n: what a take-over relies on."""
    page = bytearray(record.SIZE)
    for number in range(3):
        record.write(page, Commit(number, COPYING, number, {}))
        assert record.latest(bytes(page)) == Commit(number, COPYING, number, {})
        record.write(page, Commit(number, HELD, number, {}))
        assert record.latest(bytes(page)) == Commit(number, HELD, number, {})


class Scalar:
    def item(self) -> float:
        return 0.1


def test_numbers_survive_bit_for_bit() -> None:
    values = {"x": 0.1 + 0.2, "tiny": 5e-324, "big": 2**62, "scalar": Scalar()}
    found = record.decode(record.encode(Commit(1, HELD, 5, values)))
    assert found is not None
    assert found.values == {"x": 0.30000000000000004, "tiny": 5e-324, "big": 2**62, "scalar": 0.1}


@pytest.mark.parametrize(("value", "wrong"), [(object(), "cannot be kept"), ("x" * record.SLOT_BYTES, "more than 8")])
def test_values_that_cannot_be_kept_change_nothing(value: object, wrong: str) -> None:
    page = bytearray(record.SIZE)
    record.write(page, Commit(1, HELD, 1, {}))
    before = bytes(page)
    with pytest.raises(StateError, match=wrong):
        record.write(page, Commit(2, COPYING, 2, {"v": value}))
    assert bytes(page) == before


def test_two_processes_see_one_page() -> None:
    writer = CommitRecord.create()
    reader = CommitRecord(writer.fd)
    writer.write(Commit(3, HELD, 7, {"r": 1.5}))
    assert reader.latest() == Commit(3, HELD, 7, {"r": 1.5}) == record.read_fd(writer.fd)[0]
    assert json.loads(record.encode_values({"r": 1.5})) == {"r": 1.5}
