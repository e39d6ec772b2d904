"""A program's objects in one kept array: storages in the arena, the rest in the blob, random numbers among it.

Planned and declared when it is made, so that the same program declares the same in every start. The objects stand on the array's
memory from `stand` on.
"""

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from resilience.model.errors import StateError
from resilience.state.session import Session
from resilience.torch.arena import Arena, Plan
from resilience.torch.blob import Blob, capacity
from resilience.torch.parts import CHANGED, KeptPart
from resilience.torch.randomness import Randomness

_ARRAY = "torch"
_BLOB = "/blob"
"""The key of the blob's slot; no tensor's begins with a slash."""


class TorchState:
    def __init__(
        self, session: Session, parts: dict[str, KeptPart], randomness: Randomness, device: Any, *, reserve: int
    ) -> None:
        self._parts = parts
        self._randomness = randomness
        self._plan = self._planned(device, reserve)
        self._array = session.array(_ARRAY, self._plan.size, "uint8")
        self._arena: Arena
        self._blob: Blob
        self.stands = False

    def _planned(self, device: Any, reserve: int) -> Plan:
        plan = Plan(device)
        with self._undisturbed():
            for part in self._parts.values():
                for key, tensor in part.tensors():
                    plan.tensor(key, tensor)
                for key, nbytes, where in part.expected():
                    plan.expected(key, nbytes, where)
        plan.slots[_BLOB] = plan.room(capacity(plan.tensors, plan.outside, reserve))
        return plan

    @contextlib.contextmanager
    def _undisturbed(self) -> Iterator[None]:
        """The program's random numbers are the same with and without us."""
        before = self._randomness.state()
        try:
            yield
        finally:
            self._randomness.restore(before)

    def _tensors(self) -> Iterable[tuple[str, Any]]:
        return (pair for part in self._parts.values() for pair in part.tensors())

    def stand(self, *, fresh: bool) -> None:
        """Take the array's memory. Where it has a state, the objects' tensors stand on it at once, and what they held is dropped."""
        self._arena = Arena(self._plan, self._array)
        self._blob = Blob(self._arena, self._plan.slots[_BLOB])
        self.stands = True
        if not fresh:
            with torch.no_grad():
                self._arena.bind(self._tensors(), copy=False)

    def synchronize(self) -> None:
        """Wait for what was given to the GPU."""
        if self._plan.device.type == "cuda":
            torch.cuda.synchronize(self._plan.device)

    def write(self, place: dict[str, Any]) -> None:
        """Have all that is state in the array. `place`: where the program is in its loop. Raises StateError."""
        with torch.no_grad():
            self._arena.bind(self._tensors(), copy=True)
        state = {name: part.state() for name, part in self._parts.items()}
        self._blob.write({"parts": state, "place": place, "randomness": self._randomness.state()})

    def read(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Give the objects what `write` wrote; the place and the random numbers of then. Raises StateError."""
        state = self._blob.read()
        if state["parts"].keys() != self._parts.keys():
            raise StateError("keep", "has other objects than the state", ", ".join(state["parts"]), hint=CHANGED)
        with torch.no_grad():
            for name, part in self._parts.items():
                part.restore(state["parts"][name])
        self._randomness.restore(state["randomness"])
        return state["place"], state["randomness"]


def home(parts: dict[str, KeptPart]) -> Any:
    """Where the objects' tensors are: the GPU where some are on one. Raises StateError when they are on several."""
    found = set()
    for part in parts.values():
        found |= {tensor.device for _, tensor in part.tensors()}
    gpus = sorted((one for one in found if one.type != "cpu"), key=str)
    if len(gpus) > 1:
        raise StateError(
            "keep", "the objects are on several devices", ", ".join(map(str, gpus)), hint="one session keeps one GPU"
        )
    return gpus[0] if gpus else torch.device("cpu")
