"""Bytes of the state in host memory: what `session.host` returns.

The content is the program's own: a pickled generator, a loader's place, a tokenizer. Its length may change from commit to
commit, up to the room that was asked for.
"""

import ctypes
import struct
from typing import Any

from resilience.model.errors import StateError
from resilience.state.layout import BYTES_HEAD, ArraySpec

_LENGTH = struct.Struct("<Q")


class HostBytes:
    """`nbytes`: the most that there is room for. `owner` is kept alive as long as this is."""

    def __init__(self, spec: ArraySpec, address: int, owner: object = None) -> None:
        self.name = spec.name
        self.nbytes = spec.nbytes - BYTES_HEAD
        self._address = address
        self._owner = owner

    def __repr__(self) -> str:
        return f"<{self.name} {len(self)} of {self.nbytes} bytes>"

    def __len__(self) -> int:
        (length,) = _LENGTH.unpack(ctypes.string_at(self._address, _LENGTH.size))
        return min(int(length), self.nbytes)

    def write(self, content: Any) -> None:
        """Replace the content: anything with the buffer protocol, C-contiguous. Raises StateError when it is too long."""
        data = memoryview(content).tobytes()
        if len(data) > self.nbytes:
            hint = f"more room: s.host({self.name!r}, nbytes={1 << len(data).bit_length()})"
            raise StateError(f"bytes {self.name}", f"longer than {self.nbytes}", len(data), hint=hint)
        ctypes.memmove(self._address + BYTES_HEAD, data, len(data))
        ctypes.memmove(self._address, _LENGTH.pack(len(data)), _LENGTH.size)

    def read(self) -> bytes:
        """The content: what was written last, or the last commit's in a process that goes on from it; b"" at first."""
        return ctypes.string_at(self._address + BYTES_HEAD, len(self))

    __bytes__ = read
