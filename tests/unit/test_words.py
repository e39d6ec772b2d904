"""Messages on the wire: the table that C is tested with too, and properties."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience.model.errors import WireError
from resilience.parse import words

TABLE = json.loads((Path(__file__).resolve().parents[1] / "data/words.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("sample", TABLE["good"], ids=lambda sample: sample["packet"][:30])
def test_good_samples(sample: dict[str, object]) -> None:
    assert words.unpack(str(sample["packet"]).encode()) == (sample["verb"], sample["values"])


@pytest.mark.parametrize("packet", TABLE["bad"], ids=repr)
def test_bad_samples(packet: str) -> None:
    with pytest.raises(WireError):
        words.unpack(packet.encode())


keys = st.from_regex(r"[a-z0-9_]{1,12}", fullmatch=True).filter(lambda key: key != "verb")
values = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@given(st.from_regex(r"[a-z][a-z_]{0,12}", fullmatch=True), st.dictionaries(keys, values, max_size=6))
def test_what_is_packed_comes_back(verb: str, pairs: dict[str, str]) -> None:
    assert words.unpack(words.pack(verb, **pairs)) == (verb, pairs)


@given(st.text(max_size=60), st.integers(0, 80))
def test_a_cut_text_fits_and_is_the_longest_that_does(text: str, size: int) -> None:
    short = words.cut(text, size)
    assert text.startswith(short)
    assert len(words.encode(short)) <= size or not short
    if short != text:
        assert len(words.encode(text[: len(short) + 1])) > size


@given(st.binary(max_size=120))
def test_any_bytes_are_taken_or_refused(packet: bytes) -> None:
    try:
        verb, pairs = words.unpack(packet)
    except WireError:
        return  # any other exception fails
    assert words.unpack(words.pack(verb, **pairs)) == (verb, pairs)


def test_a_packet_has_a_longest_length() -> None:
    longest = words.pack("log", line="x" * (words.MAX_BYTES - 9))
    assert len(longest) == words.MAX_BYTES
    assert words.unpack(longest)[0] == "log"
    with pytest.raises(WireError, match=f"longer than {words.MAX_BYTES} bytes"):
        words.pack("log", line="x" * (words.MAX_BYTES - 8))
    with pytest.raises(WireError, match=f"longer than {words.MAX_BYTES} bytes"):
        words.unpack(longest + b"x")
