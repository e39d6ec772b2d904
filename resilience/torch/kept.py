"""What a PyTorch program says instead of arrays: the objects that are its state, and its loop.

`keep` declares them (resilience/torch/state.py). They stand on kept memory from the first pass through the loop on (`epochs`, `steps` or
`commit`); until then a program may fill them as it likes, and what it fills in is dropped where there is a state to go on from. A
commit copies whatever has come since into its slot, writes the rest into the blob, and is the session's then.

Guarantees: the program goes on as it would have without the fault, bit for bit, where its objects, its generators and its place
in the loop are all that it depends on (docs/reference/torch.md says what is not). Raises StateError for what cannot be kept.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

from resilience.model.errors import StateError
from resilience.state.session import Session
from resilience.torch.gradients import Gradients, Held
from resilience.torch.loaders import Loader
from resilience.torch.parts import CHANGED, part
from resilience.torch.randomness import Randomness
from resilience.torch.ranks import TorchRanks
from resilience.torch.state import TorchState, home

_GRADIENTS = "/gradients"
"""No name of an object has a slash."""
_WAY_OUT = "commit after optimizer.step(), or keep(…, gradients=True)"
_OFTEN = 100
"""Steps after which a program hears why no commit is due: nobody accumulates over that many."""


class Kept:
    """Made by `keep`. Each DataLoader is an attribute, under the name that it was given: loop over that."""

    def __init__(
        self,
        session: Session,
        objects: dict[str, Any],
        *,
        rng: bool,
        gradients: bool,
        rehearse: Callable[[], object] | None,
        reserve: int,
    ) -> None:
        loaders = {name: thing for name, thing in objects.items() if isinstance(thing, torch.utils.data.DataLoader)}
        things = {name: thing for name, thing in objects.items() if name not in loaders}
        known = {name: part(name, thing) for name, thing in things.items()}
        device = home(known)
        randomness = Randomness(device, loaders.values(), everywhere=rng)
        self._session = session
        self._rehearse = rehearse
        self._loaders = {
            name: Loader(name, thing, randomness, self._enter, self._batch) for name, thing in loaders.items()
        }
        if taken := sorted(set(objects) & set(dir(self))):
            raise StateError("keep", "a name is taken", taken[0], hint="give the object another name")
        optimizers = [one for one in things.values() if isinstance(one, torch.optim.Optimizer)]
        scalers = [one for one in things.values() if isinstance(one, torch.amp.GradScaler)]
        self._gradients = Gradients([] if gradients else optimizers, scalers)
        if gradients:
            known[_GRADIENTS] = Held(optimizers)
        self._held_back = 0
        self._ranks = TorchRanks()
        self._state = TorchState(session, known, randomness, device, reserve=reserve)
        self._steps: Iterator[int] = iter(())
        self._counts_itself = False
        """The program loops over `steps`: batches are no steps."""
        self.step = -1
        """The step that is being done, or that was done last: one for each batch."""
        self.epoch = 0
        """The epoch under way, from 0."""

    def __getattr__(self, name: str) -> Loader:
        loaders: dict[str, Loader] = self.__dict__.get("_loaders", {})
        if name not in loaders:
            raise AttributeError(f"keep() was given no loader named {name!r}")
        return loaders[name]

    # ------------------------------------------------------------ the loop
    def wait(self) -> None:
        """End the beginning without a loop: a standby returns from here when it has been promoted, and the objects have their state."""
        self._enter()

    def epochs(self, stop: int) -> Iterator[int]:
        """The epochs that are still to do, up to `stop` - 1: the one that the last commit was in, when that was within a loader's loop."""
        self._enter()
        return self._epochs(stop)

    def _epochs(self, stop: int) -> Iterator[int]:
        for epoch in range(self.epoch, stop):
            self.epoch = epoch
            if not self._loaders:
                self._begin()
            yield epoch
            self.epoch = epoch + 1
            for loader in self._loaders.values():
                loader.new_epoch()

    def steps(self, stop: int = sys.maxsize) -> Iterator[int]:
        """The steps that are still to do, up to `stop` - 1, for a loop without epochs."""
        self._enter()
        self._counts_itself = True
        return self._counted(stop)

    def _counted(self, stop: int) -> Iterator[int]:
        while self.step + 1 < stop:
            self._begin()
            yield self.step

    def _begin(self) -> None:
        self.step = next(self._steps)

    def _batch(self) -> None:
        if not self._counts_itself:
            self._begin()

    def due(self) -> bool:
        """Whether to commit now: the session's own `due`, rank 0's on every rank, and never between two backward passes of one step."""
        if self._gradients.done_with():
            self._held_back = 0
            return self._ranks.decide(self._session.due)
        self._held_back += 1
        if self._held_back == _OFTEN:
            why = f"no commit in {_OFTEN} steps: gradients are there that no optimizer is done with"
            print(f"mpsr: keep: {why}\n  {_WAY_OUT}", file=sys.stderr, flush=True)
        return False

    def commit(self, **values: Any) -> int:
        """Keep everything as the state after this step; the number of the commit. `values` go to the session's.

        After a kept loader's loop it says that the epoch is done. Raises StateError while gradients are being accumulated.
        """
        self._enter()
        if not self._gradients.done_with():
            raise StateError("commit", "gradients are being accumulated, and are not kept", hint=_WAY_OUT)
        self._write()
        self._ranks.together()
        return self._session.commit(self.step, **values)

    # ------------------------------------------------------------ the state
    def _enter(self) -> None:
        """Once: stand on the arena, with the objects' own content or with the state that there is to go on from."""
        if self._state.stands:
            return
        fresh = self._session.fresh
        self._state.stand(fresh=fresh)
        if fresh:
            self._write()
        elif self._rehearse and self._session.role == "standby":
            self._rehearse()
        self._state.synchronize()  # the session copies on a stream of its own
        self._session.wait()
        if not fresh:
            self._go_on(*self._state.read())
        self.step = self._session.step
        self._ranks.same(self.step)
        self._steps = self._session.steps(sys.maxsize)

    def _write(self) -> None:
        loaders = self._loaders.values()
        over = not any(loader.under_way for loader in loaders) and (
            not loaders or any(loader.passes for loader in loaders)
        )
        where = {name: loader.state() for name, loader in self._loaders.items()}
        self._state.write({"epoch": self.epoch, "over": over, "loaders": where})

    def _go_on(self, place: dict[str, Any], randomness: dict[str, Any]) -> None:
        if place["loaders"].keys() != self._loaders.keys():
            raise StateError("keep", "has other loaders than the state", ", ".join(place["loaders"]), hint=CHANGED)
        self.epoch = place["epoch"] + place["over"]
        if not place["over"]:
            for name, loader in self._loaders.items():
                loader.restore(place["loaders"][name], randomness)


def keep(
    session: Session,
    *,
    rng: bool = True,
    gradients: bool = False,
    rehearse: Callable[[], object] | None = None,
    constant: Iterable[str] = (),
    reserve: int = 0,
    **objects: Any,
) -> Kept:
    """Keep the state of a program's objects: modules, optimizers, schedulers, a GradScaler, data loaders, generators, tensors,
    dictionaries, lists and whatever has state_dict and load_state_dict, under names of the program's choice.

    rng: the global generators of torch (CPU and the model's GPU), Python and numpy as well.
    gradients: keep them too, so that a commit may come between the backward passes of one step; takes their size twice.
    rehearse: called in a standby once its objects have their addresses, to load what the first step needs; its effects are dropped.
    constant: names of objects that every start fills by itself and the loop does not change: they are not kept.
    reserve: more bytes for what comes after the first commit and is on no GPU (entries of dictionaries, say).
    Raises StateError for an object that cannot be kept.
    """
    if unknown := sorted(set(constant) - set(objects)):
        raise StateError("keep", "constant names no object", unknown[0])
    kept = {name: thing for name, thing in objects.items() if name not in set(constant) and thing is not None}
    return Kept(session, kept, rng=rng, gradients=gradients, rehearse=rehearse, reserve=reserve)
