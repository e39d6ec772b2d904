"""Whether the gradients are done with, so that a commit may leave them out: state are only those that a program goes on adding to.

Those of an optimiser are once it has made a step with them and no backward pass has followed, or where there are none but zeros. A
GradScaler that skips a step is done with them as well. Watched through the optimisers' own hooks and one gradient of each.

Where an optimiser is never done with them when a commit is wanted (a generator's backward pass leaves some to the discriminator),
they are kept: `Held` is the part that does.
"""

import functools
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

import torch


class Gradients:
    def __init__(self, optimizers: Iterable[Any], scalers: Iterable[Any]) -> None:
        self._optimizers = list(optimizers)
        self._spent: dict[int, tuple[Any, Any, int]] = {}
        """Of an optimiser's last step: a parameter, its gradient (weakly), how often that had been written."""
        for optimizer in self._optimizers:
            optimizer.register_step_post_hook(lambda one, *_: self._note(one))
        for scaler in scalers:
            scaler.update = self._noting(scaler.update)

    def _noting(self, update: Any) -> Any:
        @functools.wraps(update)
        def noted(*args: Any, **more: Any) -> Any:
            for optimizer in self._optimizers:
                self._note(optimizer)
            return update(*args, **more)

        return noted

    def _note(self, optimizer: Any) -> None:
        parameter = next((one for one in parameters(optimizer) if one.grad is not None), None)
        if parameter is None:
            self._spent.pop(id(optimizer), None)
        else:
            self._spent[id(optimizer)] = (parameter, weakref.ref(parameter.grad), parameter.grad._version)

    def done_with(self) -> bool:
        return all(map(self._done_with, self._optimizers))

    def _done_with(self, optimizer: Any) -> bool:
        if id(optimizer) in self._spent:
            parameter, gradient, version = self._spent[id(optimizer)]
            if parameter.grad is not None and parameter.grad is gradient() and parameter.grad._version == version:
                return True
        return not any(bool(torch.any(one.grad)) for one in parameters(optimizer) if one.grad is not None)


def parameters(optimizer: Any) -> Iterable[Any]:
    return (parameter for group in optimizer.param_groups for parameter in group["params"])


class Held:
    """The gradients of all optimisers' parameters as a part of the state (resilience/torch/parts.py)."""

    def __init__(self, optimizers: Iterable[Any]) -> None:
        distinct = {id(one): one for optimizer in optimizers for one in parameters(optimizer) if one.requires_grad}
        self._parameters = list(distinct.values())

    def tensors(self) -> Iterator[tuple[str, Any]]:
        for number, parameter in enumerate(self._parameters):
            if parameter.grad is not None:
                yield f"/gradient.{number}", parameter.grad

    def expected(self) -> Iterator[tuple[str, int, Any]]:
        for number, parameter in enumerate(self._parameters):
            if parameter.grad is None:
                yield f"/gradient.{number}", parameter.numel() * parameter.element_size(), parameter.device

    def state(self) -> Any:
        return [parameter.grad for parameter in self._parameters]

    def restore(self, state: Any) -> None:
        for parameter, gradient in zip(self._parameters, state, strict=True):
            parameter.grad = gradient
