"""Where a program is within its data: a DataLoader that goes on after the batches that were there before the commit.

A pass begins with the generators in some state, so a new process makes the same pass by putting that state back. It then leaves
out the batches before the commit: by their numbers alone where the main process loads a dataset that is asked by number, by
loading them again where workers do, since each worker's own random numbers depend on what it has loaded. That the batches are the
same is checked: StateError when they are not.
"""

import zlib
from collections.abc import Callable, Iterator
from typing import Any

import torch

from resilience.model.errors import StateError
from resilience.torch.randomness import Randomness
from resilience.torch.trees import tensors_in

_LOOK = 4096
"""Bytes of a batch that are compared."""


class Loader:
    """A DataLoader in a program's loop. `enter` is called before a pass, `begun` before each batch that the program gets."""

    def __init__(
        self, name: str, loader: Any, randomness: Randomness, enter: Callable[[], None], begun: Callable[[], None]
    ) -> None:
        if loader.num_workers and loader.persistent_workers:
            hint = "persistent_workers=False"
            raise StateError(
                name, "its workers are persistent, and their random state cannot be brought back", hint=hint
            )
        if loader.num_workers and not getattr(loader, "in_order", True):
            raise StateError(name, "gives batches in no fixed order", "in_order=False", hint="in_order=True")
        self._name = name
        self._loader = loader
        self._randomness = randomness
        self._enter = enter
        self._begun = begun
        self._numbered = not loader.num_workers and not isinstance(loader.dataset, torch.utils.data.IterableDataset)
        self.passes = 0
        """Passes that are over in this epoch."""
        self._over = 0
        """Of those, the ones that the program comes by again after it went on."""
        self._at: dict[str, Any] | None = None
        """Where the pass under way is: batches given, a check over them, the generators at its beginning."""
        self._going_on: tuple[dict[str, Any], dict[str, Any]] | None = None

    def __len__(self) -> int:
        return len(self._loader)

    @property
    def under_way(self) -> bool:
        return self._at is not None

    def state(self) -> dict[str, Any]:
        return {"passes": self.passes, "at": self._at}

    def new_epoch(self) -> None:
        self.passes = self._over = 0

    def restore(self, state: dict[str, Any], randomness: dict[str, Any]) -> None:
        """`randomness`: the generators' state at the commit, which is put back when the pass goes on."""
        self.passes = self._over = state["passes"]
        self._going_on = (state["at"], randomness) if state["at"] else None

    def __iter__(self) -> Iterator[Any]:
        self._enter()
        if self._over:
            self._over -= 1
        else:
            yield from self._pass()

    def _pass(self) -> Iterator[Any]:
        going_on, self._going_on = self._going_on, None
        at: dict[str, Any] = {"given": 0, "check": 0, "randomness": self._randomness.state()}
        if going_on:
            self._randomness.restore(going_on[0]["randomness"])
            at["randomness"] = going_on[0]["randomness"]
        batches = iter(self._loader)
        if self._numbered:
            batches._sampler_iter = _Noted(batches._sampler_iter, at)
        if going_on:
            self._leave_out(batches, at, going_on[0])
            self._randomness.restore(going_on[1])
        try:
            for batch in batches:
                at["given"] += 1
                if self._loader.num_workers:
                    at["check"] = _look(batch)
                self._at = at
                self._begun()
                yield batch
        finally:
            self._at = None
            self.passes += 1

    def _leave_out(self, batches: Any, at: dict[str, Any], before: dict[str, Any]) -> None:
        while at["given"] < before["given"]:
            try:
                batch = next(batches._sampler_iter) if self._numbered else next(batches)
            except StopIteration:
                break
            at["given"] += 1
            if self._loader.num_workers:
                at["check"] = _look(batch)
        if (at["given"], at["check"]) != (before["given"], before["check"]):
            hint = "give keep() the generator that its sampler, dataset or workers draw from"
            raise StateError(self._name, "does not give the batches again that it gave before the commit", hint=hint)


class _Noted:
    """The numbers of a pass's batches, with a running CRC-32 of what was asked for."""

    def __init__(self, numbers: Iterator[Any], at: dict[str, Any]) -> None:
        self._numbers = numbers
        self._at = at

    def __iter__(self) -> "_Noted":
        return self

    def __next__(self) -> Any:
        numbers = next(self._numbers)
        self._at["check"] = zlib.crc32(repr(numbers).encode(), self._at["check"])
        return numbers


def _look(batch: Any) -> int:
    """CRC-32 of the first bytes of a batch's tensors in host memory."""
    crc = 0
    for _, tensor in tensors_in(batch):
        if tensor.device.type == "cpu" and tensor.layout is torch.strided and tensor.numel():
            head = tensor.reshape(-1)[: max(1, _LOOK // tensor.element_size())]
            crc = zlib.crc32(head.contiguous().view(torch.uint8).numpy().tobytes(), crc)
    return crc
