"""The page that all clients of one simulated MPS server share: who faulted, and what everybody gets told.

    struct { uint32_t magic; _Atomic uint32_t sticky; _Atomic int32_t culprit; uint32_t generation; }
    struct { _Atomic int32_t busy; _Atomic uint32_t hurt; } slot[255], from byte 16

A slot is one client's: how much of its work is queued or runs (it counts), and what another's end has done to it (the
server says, mps_endings.py).

Job: make it (an anonymous memory file whose descriptor travels to each client) and read and write it from the
server's side. The client library sets `culprit` and `sticky` as hardware and kernel driver would; the server sets
them only when a client reports a fault without having done so.

Guarantees: one page per generation of the server's contexts. A rebuilt server hands out a new page, so a client of
the old generation never sees the error cleared.
"""

from __future__ import annotations

import mmap
import os
import struct

MAGIC = 0x4D505331
SIZE = 4096
SLOTS = 255
_LAYOUT = struct.Struct("=IIiI")
_SLOT = struct.Struct("=iI")


class Page:
    """One generation's page; `descriptor` is what clients are sent."""

    __slots__ = ("_memory", "descriptor", "generation", "taken")

    def __init__(self, generation: int) -> None:
        self.generation = generation
        self.taken: set[int] = set()
        self.descriptor = os.memfd_create(f"mps-page-{generation}")
        os.ftruncate(self.descriptor, SIZE)
        self._memory = mmap.mmap(self.descriptor, SIZE)
        _LAYOUT.pack_into(self._memory, 0, MAGIC, 0, 0, generation)

    def read(self) -> tuple[int, int]:
        """(sticky CUDA code, pid of the culprit); (0, 0) while all is well."""
        _, sticky, culprit, _ = _LAYOUT.unpack_from(self._memory, 0)
        return sticky, culprit

    def take(self) -> int:
        """A clean slot, which is the caller's until `free`."""
        slot = next(one for one in range(SLOTS) if one not in self.taken)
        self.taken.add(slot)
        _SLOT.pack_into(self._memory, _LAYOUT.size + slot * _SLOT.size, 0, 0)
        return slot

    def free(self, slot: int) -> None:
        """Its client has gone."""
        self.taken.discard(slot)

    def busy(self, slot: int) -> int:
        """Pieces of work of that client which are not done; of a dead one, those that it died with."""
        return int(_SLOT.unpack_from(self._memory, _LAYOUT.size + slot * _SLOT.size)[0])

    def hurt(self, slot: int, how: int) -> None:
        """Let that client feel another's end: mps_endings.py says how."""
        at = _LAYOUT.size + slot * _SLOT.size + 4
        self._memory[at : at + 4] = struct.pack("=I", how)

    def fault(self, sticky: int, culprit: int) -> None:
        """Tell every client: the culprit first, since a client looks at `sticky`."""
        self._memory[8:12] = struct.pack("=i", culprit)
        self._memory[4:8] = struct.pack("=I", sticky)

    def close(self) -> None:
        """Let go of our side; clients keep theirs."""
        self._memory.close()
        os.close(self.descriptor)
