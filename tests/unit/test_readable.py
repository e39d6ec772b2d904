"""Waiting for descriptors: of any number, with and without a bound."""

import fcntl
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from resilience.adapters.linux.readable import readable

ROOT = Path(__file__).parents[2]
HIGH = 1500


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Its reading end has a number that select(2) does not take."""
    low, writes = os.pipe()
    reads = fcntl.fcntl(low, fcntl.F_DUPFD, HIGH)
    os.close(low)
    yield reads, writes
    os.close(reads)
    os.close(writes)


def test_one_of_several_with_a_high_number(pipe: tuple[int, int]) -> None:
    reads, writes = pipe
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert reads >= HIGH
        assert readable(reads, ours, timeout=0) == []
        os.write(writes, b"x")
        assert readable(reads, ours) == [reads]
        theirs.send(b"x")
        assert set(readable(reads, ours)) == {reads, ours}


def test_the_other_ends_close_counts() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours:
        assert readable(ours) == [ours]


def test_nothing_of_ours_waits_in_another_way() -> None:
    users = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "resilience").rglob("*.py")
        if re.search(r"\bselect\.select\(", path.read_text(encoding="utf-8"))
    }
    assert users == set()
