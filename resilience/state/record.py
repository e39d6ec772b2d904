"""The commit record: which of the two regions of each array is the committed state, and of which step.

A shared page (memfd) with a slot for each phase: COPYING, HELD, and PREPARED, which only a commit of a group has. The valid
slot with the highest sequence counts, and of one sequence HELD before COPYING before PREPARED
(docs/reference/protocols.md §8). A slot is
`CRC-32 · length · sequence · step · phase · 3 unused bytes · body`, little-endian, the CRC over everything after it. The
body is JSON: `values`; `filled`, the committed lengths of the arrays that are appended to; `sums` of the content, one an
area, where the session makes them, both in the table's order; `group` of a commit that ranks make together: rank, size and
the number of the start.

Guarantees that a writer killed at any point leaves either the old or the new entry: a slot is first made invalid
(length 0xffffffff), then filled, then its head is written; the other slots are not touched. The page lives in memory of
one host, so only the order of the writer's own stores matters, not that of a disk. The functions on bytes are pure.
Records of state version 2 had no slot for PREPARED; they are read, and written, as they are.
"""

import json
import mmap
import os
import struct
import zlib
from collections.abc import MutableSequence
from typing import Any, NamedTuple

from resilience.model.errors import StateError
from resilience.state import numbers

SLOT_BYTES = 1 << 14
SIZE = 3 * SLOT_BYTES
SMALLEST = 2 * SLOT_BYTES
"""A record of state version 2."""
_HEAD = struct.Struct("<IIQqB3x")
_BODY_AT = 4
"""The CRC covers the slot from here on."""
_MAX_BODY = SLOT_BYTES - _HEAD.size
MAX_VALUES = 8164
"""Bytes of the values as JSON; the rest of a slot is for the lengths."""
_INVALID = b"\xff\xff\xff\xff"
COPYING = 0
HELD = 1
PREPARED = 2
_ORDER = {PREPARED: 0, COPYING: 1, HELD: 2}


class Member(NamedTuple):
    """Who made a commit together with others: its rank among `size`. `start` is the same in all ranks, and another one
    each time that they are started."""

    rank: int
    size: int
    start: int


class Commit(NamedTuple):
    """One entry. `sequence` counts commits of the job from 0; `step` is the program's own number (-1: before its
    first)."""

    sequence: int
    phase: int
    step: int
    values: dict[str, Any]
    filled: tuple[int, ...] = ()
    sums: tuple[int, ...] = ()
    group: Member | None = None

    @property
    def order(self) -> tuple[int, int]:
        """The entry with the highest counts."""
        return self.sequence, _ORDER[self.phase]


def encode_values(values: dict[str, Any]) -> bytes:
    """The committed values as JSON. Raises StateError naming what cannot be kept."""
    for name, value in values.items():
        try:
            json.dumps(numbers.standard(value))
        except (TypeError, ValueError, RecursionError) as error:
            hint = "keep arrays with s.array, other data with s.host"
            raise StateError("commit", "a value cannot be kept", f"{name}: {error}"[:200], hint=hint) from None
    text = json.dumps(numbers.standard(values), separators=(",", ":")).encode("ascii")
    if len(text) > MAX_VALUES:
        hint = "s.host keeps bytes up to megabytes, s.array arrays"
        raise StateError("commit", f"values take more than {MAX_VALUES} bytes as JSON", len(text), hint=hint)
    return text


def encode(commit: Commit) -> bytes:
    """The bytes of a slot, as long as they need to be."""
    filled, sums = (json.dumps(row, separators=(",", ":")).encode("ascii") for row in (commit.filled, commit.sums))
    group = b'"group":%b,' % json.dumps(commit.group, separators=(",", ":")).encode("ascii") if commit.group else b""
    body = b'{"filled":%b,%b"sums":%b,"values":%b}' % (filled, group, sums, encode_values(commit.values))
    if len(body) > _MAX_BODY:
        raise StateError("commit", "has more lengths than a record has room for", len(commit.filled))
    tail = _HEAD.pack(0, len(body), commit.sequence, commit.step, commit.phase)[_BODY_AT:] + body
    return struct.pack("<I", zlib.crc32(tail)) + tail


def decode(slot: bytes) -> Commit | None:
    """The entry in a slot, or None when it holds no whole one."""
    if len(slot) < _HEAD.size:
        return None
    crc, length, sequence, step, phase = _HEAD.unpack_from(slot)
    end = _HEAD.size + length
    if length > _MAX_BODY or end > len(slot) or phase not in _ORDER:
        return None
    if zlib.crc32(slot[_BODY_AT:end]) != crc:
        return None
    try:
        body = json.loads(slot[_HEAD.size : end])
        values, filled, sums = numbers.restored(body["values"]), tuple(body["filled"]), tuple(body["sums"])
        group = member(body.get("group"))
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    good = isinstance(values, dict) and all(type(number) is int and number >= 0 for number in (*filled, *sums))
    return Commit(sequence, phase, step, values, filled, sums, group) if good else None


def member(value: object) -> Member | None:
    """From JSON. Raises ValueError."""
    if value is None:
        return None
    if not (isinstance(value, list) and len(value) == 3 and all(type(one) is int and one >= 0 for one in value)):
        raise ValueError("not a member of a group")
    if value[0] >= value[1]:
        raise ValueError(f"rank {value[0]} of {value[1]}")
    return Member(*value)


def entries(page: bytes) -> list[Commit]:
    """The whole entries of a page, the one that counts first."""
    slots = (decode(page[at : at + SLOT_BYTES]) for at in range(0, SIZE, SLOT_BYTES))
    return sorted((slot for slot in slots if slot), key=lambda slot: slot.order, reverse=True)


def latest(page: bytes) -> Commit | None:
    """The entry that counts in a whole page, or None before the first."""
    return next(iter(entries(page)), None)


def stores(commit: Commit) -> list[tuple[int, bytes]]:
    """The stores (offset, bytes), in order, that put an entry into a page. A kill at any byte tears nothing."""
    at = commit.phase * SLOT_BYTES
    data = encode(commit)
    head = 2 * _BODY_AT
    return [
        (at + _BODY_AT, _INVALID),
        (at + head, data[head:]),
        (at, data[:_BODY_AT]),
        (at + _BODY_AT, data[_BODY_AT:head]),
    ]


def write(page: MutableSequence[int] | mmap.mmap, commit: Commit) -> None:
    """Put an entry into a page."""
    for at, data in stores(commit):
        page[at : at + len(data)] = data


class CommitRecord:
    """A commit record in a memfd. The descriptor may be handed on; both sides then see the same page."""

    def __init__(self, fd: int) -> None:
        size = os.fstat(fd).st_size
        if size < SMALLEST:
            raise StateError("commit record", f"shorter than {SMALLEST} bytes", size)
        self.fd = fd
        self._page = mmap.mmap(fd, min(size, SIZE))

    @classmethod
    def create(cls) -> "CommitRecord":
        fd = os.memfd_create("mpsr-record", os.MFD_CLOEXEC)
        os.ftruncate(fd, SIZE)
        return cls(fd)

    def latest(self) -> Commit | None:
        return latest(bytes(self._page))

    def entries(self) -> list[Commit]:
        """The whole entries, the one that counts first."""
        return entries(bytes(self._page))

    def write(self, commit: Commit) -> None:
        if len(self._page) < SIZE and commit.phase == PREPARED:
            raise StateError("commit record", "is of a version that knows no commits of a group")
        write(self._page, commit)

    def withdraw(self) -> None:
        """What was prepared is not committed: its slot holds nothing any more."""
        if len(self._page) == SIZE:
            at = PREPARED * SLOT_BYTES + _BODY_AT
            self._page[at : at + len(_INVALID)] = _INVALID


def read_fd(fd: int) -> list[Commit]:
    """The whole entries, the one that counts first, read without a mapping: a file that shrinks cannot hurt the reader."""
    return entries(os.pread(fd, SIZE, 0))
