"""Messages on the wire: the table that C is tested with too, and properties."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience.model.errors import WireError
from resilience.parse import packet

TABLE = json.loads((Path(__file__).resolve().parents[1] / "data/packets.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("sample", TABLE["good"], ids=lambda sample: sample["packet"][:30])
def test_good_samples(sample: dict[str, object]) -> None:
    assert packet.unpack(str(sample["packet"]).encode()) == (sample["verb"], sample["values"])


@pytest.mark.parametrize("bad", TABLE["bad"], ids=repr)
def test_bad_samples(bad: str) -> None:
    with pytest.raises(WireError):
        packet.unpack(bad.encode())


keys = st.from_regex(r"[a-z0-9_]{1,12}", fullmatch=True).filter(lambda key: key != "verb")
values = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@given(st.from_regex(r"[a-z][a-z_]{0,12}", fullmatch=True), st.dictionaries(keys, values, max_size=6))
def test_what_is_packed_comes_back(verb: str, pairs: dict[str, str]) -> None:
    assert packet.unpack(packet.pack(verb, **pairs)) == (verb, pairs)


@given(st.text(max_size=60), st.integers(0, 80))
def test_a_cut_text_fits_and_is_the_longest_that_does(text: str, size: int) -> None:
    short = packet.cut(text, size)
    assert text.startswith(short)
    assert len(packet.encode(short)) <= size or not short
    if short != text:
        assert len(packet.encode(text[: len(short) + 1])) > size


@given(st.binary(max_size=120))
def test_any_bytes_are_taken_or_refused(data: bytes) -> None:
    try:
        verb, pairs = packet.unpack(data)
    except WireError:
        return  # any other exception fails
    assert packet.unpack(packet.pack(verb, **pairs)) == (verb, pairs)


def test_a_packet_has_a_longest_length() -> None:
    longest = packet.pack("log", line="x" * (packet.MAX_BYTES - 9))
    assert len(longest) == packet.MAX_BYTES
    assert packet.unpack(longest)[0] == "log"
    with pytest.raises(WireError, match=f"longer than {packet.MAX_BYTES} bytes"):
        packet.pack("log", line="x" * (packet.MAX_BYTES - 8))
    with pytest.raises(WireError, match=f"longer than {packet.MAX_BYTES} bytes"):
        packet.unpack(longest + b"x")
