"""What is state and no storage in the arena: pickled into one slot, with its length and CRC-32 before it.

A tensor in it is written as a reference to the slot that it stands on, and only where it stands on none as its bytes. So an
optimiser's state, whatever its structure, is one pickle, and comes back as tensors over the arena.

Kept state is its user's own: who can write it can start programs as that user anyway, so it may be a pickle.
"""

import io
import pickle
import struct
import zlib
from typing import Any

import torch

from resilience.model.errors import StateError
from resilience.torch import storages
from resilience.torch.arena import Arena, Slot

_HEAD = struct.Struct("<8sQI4x")
_MAGIC = b"mpsr-t1\n"
_BASE = 1 << 18
"""Bytes for generators (18 KiB twice), schedulers and whatever the program keeps in dictionaries."""
_OF_A_TENSOR = 1024
"""Bytes for a tensor's name, geometry and an optimiser's numbers beside it: three times what AdamW takes."""


def capacity(tensors: int, outside: int, reserve: int) -> int:
    """Bytes of the slot: the same in every start of a program, whatever it keeps by then."""
    return _BASE + _OF_A_TENSOR * tensors + 2 * outside + reserve


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO, arena: Arena) -> None:
        super().__init__(file, protocol=5)
        self._arena = arena

    def persistent_id(self, thing: object) -> Any:
        if not isinstance(thing, torch.Tensor):
            return None
        tensor: Any = thing
        kind = str(tensor.dtype).removeprefix("torch.")
        if key := self._arena.key(tensor):
            return "slot", key, kind, tensor.storage_offset(), tuple(tensor.size()), tensor.stride()
        storages.check("tensor", tensor)
        content = (
            tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
        )
        return "bytes", str(tensor.device), kind, tuple(tensor.size()), content


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, arena: Arena) -> None:
        super().__init__(file)
        self._arena = arena

    def persistent_load(self, told: Any) -> Any:
        if told[0] == "slot":
            _, key, kind, *geometry = told
            return storages.at(self._arena.below(key), getattr(torch, kind), *geometry)
        _, device, kind, size, content = told
        flat = (
            torch.frombuffer(bytearray(content), dtype=getattr(torch, kind))
            if content
            else torch.empty(0, dtype=getattr(torch, kind))
        )
        return flat.view(size).to(device)


class Blob:
    def __init__(self, arena: Arena, slot: Slot) -> None:
        self._arena = arena
        self._room = arena.piece(slot)

    def write(self, parts: dict[str, Any]) -> None:
        """Raises StateError when a part cannot be pickled, or when all of it does not fit."""
        file = io.BytesIO(bytes(_HEAD.size))
        file.seek(_HEAD.size)
        pickler = _Pickler(file, self._arena)
        try:
            pickler.dump(parts)
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            raise StateError(_culprit(parts, self._arena), "cannot be pickled", error) from None
        packet = file.getbuffer()
        if len(packet) > len(self._room):
            hint = f"keep(…, reserve={len(packet)}), or commit less beside the tensors"
            raise StateError(
                "keep", "what came after the first commit does not fit its place", f"{len(packet)} bytes", hint=hint
            )
        body = packet[_HEAD.size :]
        _HEAD.pack_into(packet, 0, _MAGIC, len(body), zlib.crc32(body))
        self._room[: len(packet)].copy_(torch.frombuffer(packet, dtype=torch.uint8))

    def read(self) -> dict[str, Any]:
        """What was written last. Raises StateError when nothing was."""
        magic, length, crc = _HEAD.unpack(self._bytes(0, _HEAD.size))
        if magic != _MAGIC or length > len(self._room) - _HEAD.size:
            raise StateError(
                "kept state", "was committed by the session, not by keep()", hint="commit with kept.commit()"
            )
        body = self._bytes(_HEAD.size, length)
        if zlib.crc32(body) != crc:
            raise StateError("kept state", "what keep() wrote is damaged", f"{length} bytes")
        parts: dict[str, Any] = _Unpickler(io.BytesIO(body), self._arena).load()
        return parts

    def _bytes(self, start: int, length: int) -> bytes:
        content: bytes = self._room[start : start + length].cpu().numpy().tobytes()
        return content


def _culprit(parts: dict[str, Any], arena: Arena) -> str:
    """The name of the part that cannot be pickled."""
    for name, part in parts.items():
        try:
            _Pickler(io.BytesIO(), arena).dump(part)
        except (pickle.PicklingError, TypeError, AttributeError):
            return name
    return "keep"
