"""The commit record: which of the two regions of each array is the committed state, and of which step.

A shared page (memfd) with two slots; slot 0 takes COPYING, slot 1 takes HELD, and the valid slot with the highest
(sequence, phase) counts (docs/reference/protocols.md §8). A slot is
`CRC-32 · length · sequence · step · phase · 3 unused bytes · values as JSON`, little-endian, the CRC over everything
after it.

Guarantees that a writer killed at any point leaves either the old or the new entry: a slot is first made invalid
(length 0xffffffff), then filled, then its head is written; the other slot is not touched. The page lives in memory of
one host, so only the order of the writer's own stores matters, not that of a disk. The functions on bytes are pure.
"""

import json
import mmap
import os
import struct
import zlib
from collections.abc import MutableSequence
from typing import Any, NamedTuple

from resilience.model.errors import StateError

SLOT_BYTES = 8192
SIZE = 2 * SLOT_BYTES
_HEAD = struct.Struct("<IIQqB3x")
_BODY_AT = 4
"""The CRC covers the slot from here on."""
MAX_VALUES = SLOT_BYTES - _HEAD.size
_INVALID = b"\xff\xff\xff\xff"
COPYING = 0
HELD = 1


class Commit(NamedTuple):
    """One entry. `sequence` counts commits of the job from 0; `step` is the program's own number (-1: before its
    first)."""

    sequence: int
    phase: int
    step: int
    values: dict[str, Any]


def _plain(value: object) -> object:
    """A numpy or cupy scalar as the Python number that it holds."""
    item = getattr(value, "item", None)
    if callable(item):
        return item()
    raise TypeError(f"{type(value).__name__} is neither a number, a text, a list nor a dictionary of them")


def encode_values(values: dict[str, Any]) -> bytes:
    """The committed values as JSON. Raises StateError naming what cannot be kept."""
    try:
        text = json.dumps(values, separators=(",", ":"), default=_plain).encode("ascii")
    except (TypeError, ValueError, RecursionError) as error:
        raise StateError("commit", "a value cannot be kept", error) from None
    if len(text) > MAX_VALUES:
        raise StateError(
            "commit",
            f"values take more than {MAX_VALUES} bytes as JSON",
            len(text),
            hint="keep arrays with session.array, numbers as values",
        )
    return text


def encode(commit: Commit) -> bytes:
    """The bytes of a slot, as long as they need to be."""
    body = encode_values(commit.values)
    tail = _HEAD.pack(0, len(body), commit.sequence, commit.step, commit.phase)[_BODY_AT:] + body
    return struct.pack("<I", zlib.crc32(tail)) + tail


def decode(slot: bytes) -> Commit | None:
    """The entry in a slot, or None when it holds no whole one."""
    if len(slot) < _HEAD.size:
        return None
    crc, length, sequence, step, phase = _HEAD.unpack_from(slot)
    end = _HEAD.size + length
    if length > MAX_VALUES or end > len(slot) or phase not in (COPYING, HELD):
        return None
    if zlib.crc32(slot[_BODY_AT:end]) != crc:
        return None
    try:
        values = json.loads(slot[_HEAD.size : end])
    except (ValueError, RecursionError):
        return None
    return Commit(sequence, phase, step, values) if isinstance(values, dict) else None


def latest(page: bytes) -> Commit | None:
    """The entry that counts in a whole page, or None before the first."""
    slots = (decode(page[at : at + SLOT_BYTES]) for at in (0, SLOT_BYTES))
    return max((slot for slot in slots if slot), key=lambda slot: slot[:2], default=None)


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


class Record:
    """A commit record in a memfd. The descriptor may be handed on; both sides then see the same page."""

    def __init__(self, fd: int) -> None:
        if os.fstat(fd).st_size < SIZE:
            raise StateError("commit record", f"shorter than {SIZE} bytes", os.fstat(fd).st_size)
        self.fd = fd
        self._page = mmap.mmap(fd, SIZE)

    @classmethod
    def create(cls) -> "Record":
        fd = os.memfd_create("mpsr-record", os.MFD_CLOEXEC)
        os.ftruncate(fd, SIZE)
        return cls(fd)

    def latest(self) -> Commit | None:
        return latest(bytes(self._page))

    def write(self, commit: Commit) -> None:
        write(self._page, commit)


def read_fd(fd: int) -> Commit | None:
    """The entry that counts, read without a mapping: a file that shrinks cannot hurt the reader."""
    return latest(os.pread(fd, SIZE, 0))
