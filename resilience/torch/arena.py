"""The arena: one kept array of bytes, in which each storage of the program's tensors has a slot.

A plan gives each storage a slot under the name of its first tensor, in the order of the program's objects, so that the same
program has the same plan in every start. `bind` makes tensors stand on slots; a tensor that came later, or that the program
replaced, is copied into its slot at the next commit. Where no slot is left for it, it stays outside and its bytes go into the
blob (resilience/torch/blob.py), which lies at the arena's beginning.

Relies on `Tensor.data = other`, which gives a tensor other memory and leaves it the same object.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch

from resilience.model.errors import StateError
from resilience.torch import storages

ALIGN = 512
"""Bytes between slots: what torch's CUDA allocator guarantees, so that kernels choose the same code on either memory."""


class Slot(NamedTuple):
    at: int
    nbytes: int


class Plan:
    """Slots for the storages on `device`, the blob's first."""

    def __init__(self, device: Any) -> None:
        self.device = device
        self.slots: dict[str, Slot] = {}
        self.tensors = 0
        """Tensors that there are or will be."""
        self.outside = 0
        """Bytes of tensors that live on another device."""
        self.size = 0
        self._seen: set[int] = set()

    def tensor(self, key: str, tensor: Any) -> None:
        """A tensor that is there."""
        storages.check(key, tensor)
        at = storages.address(tensor)
        if at not in self._seen:
            self._seen.add(at)
            self.expected(key, storages.nbytes(tensor), tensor.device)

    def expected(self, key: str, nbytes: int, device: Any) -> None:
        """A tensor that will come."""
        self.tensors += 1
        if not nbytes:
            return
        if device == self.device:
            self.slots[key] = self.room(nbytes)
        else:
            self.outside += nbytes

    def room(self, nbytes: int) -> Slot:
        slot = Slot(self.size, nbytes)
        self.size += -(-nbytes // ALIGN) * ALIGN
        return slot


class Arena:
    """The slots of a plan in a kept array."""

    def __init__(self, plan: Plan, array: Any) -> None:
        self._plan = plan
        self._array = array
        self._below: dict[str, Any] = {}
        self._keys: dict[int, str] = {}
        for key, slot in plan.slots.items():
            piece = self.piece(slot)
            self._below[key] = storages.storage(piece)
            self._keys[storages.address(piece)] = key

    def piece(self, slot: Slot) -> Any:
        """The bytes of a slot as a uint8 tensor with a storage of its own. Raises StateError on another device."""
        piece = _bytes(self._array, slot)
        if piece.device != self._plan.device:
            hint = f"move the model to {piece.device} before keep(), or open the session where the model is"
            raise StateError(
                "keep", f"the session's arrays are on {piece.device}, the model is on", self._plan.device, hint=hint
            )
        return piece

    def key(self, tensor: Any) -> str | None:
        """The slot that a tensor stands on; None when it stands outside."""
        return self._keys.get(storages.address(tensor))

    def below(self, key: str) -> Any:
        """The storage of a slot. Raises KeyError."""
        return self._below[key]

    def bind(self, tensors: Iterable[tuple[str, Any]], *, copy: bool) -> None:
        """Every tensor that has a slot stands on it afterwards. `copy`: with the content that it has."""
        outside = []
        used = set()
        for key, tensor in tensors:
            if stands_on := self.key(tensor):
                used.add(stands_on)
            else:
                outside.append((key, tensor))
        moved: dict[int, tuple[Any, Any]] = {}
        for key, tensor in outside:
            was = storages.storage(tensor)
            if was.data_ptr() not in moved:
                if key in used or not self._fits(key, tensor):
                    continue
                below = self._below[key]
                if copy:
                    _whole(below).copy_(_whole(was))
                used.add(key)
                moved[was.data_ptr()] = (below, was)
            tensor.data = storages.over(moved[was.data_ptr()][0], tensor)

    def _fits(self, key: str, tensor: Any) -> bool:
        below = self._below.get(key)
        return below is not None and below.device == tensor.device and below.nbytes() == storages.nbytes(tensor)


def _whole(below: Any) -> Any:
    return storages.at(below, torch.uint8, 0, (below.nbytes(),), (1,))


class _Piece:
    """A range of device memory, as `__cuda_array_interface__` (version 3) has it."""

    def __init__(self, array: Any, slot: Slot) -> None:
        self._array = array  # it lives as long
        address = array.__cuda_array_interface__["data"][0] + slot.at
        shape = {"shape": (slot.nbytes,), "strides": None, "typestr": "|u1"}
        self.__cuda_array_interface__ = {**shape, "data": (address, False), "version": 3}


def _bytes(array: Any, slot: Slot) -> Any:
    if hasattr(array, "__cuda_array_interface__"):
        return torch.as_tensor(_Piece(array, slot), device="cuda")
    return torch.from_numpy(array[slot.at : slot.at + slot.nbytes])
