"""The objects that a program hands to `keep`, each as what of it is state and how it gets that back.

A part names its tensors by keys that are the same in every start. `state` may hold any of them: they come back over the arena.
"""

import random
from collections.abc import Iterator
from typing import Any, Protocol

import torch

from resilience.model.errors import StateError
from resilience.torch.probe import Expected, Probe
from resilience.torch.trees import refill, tensors_in

CHANGED = "a program that goes on from a commit must build the same objects as the one that made it"


class KeptPart(Protocol):
    def tensors(self) -> Iterator[tuple[str, Any]]:
        """Those that are there, each with its key."""

    def expected(self) -> Iterator[tuple[str, int, Any]]:
        """Key, bytes and device of each tensor that will come."""

    def state(self) -> Any:
        """What `restore` needs, in an equal program."""

    def restore(self, state: Any) -> None:
        """Raises StateError when the state is of another program."""


class WholePart:
    """A part all of whose tensors are there from the beginning."""

    def expected(self) -> Iterator[tuple[str, int, Any]]:
        return iter(())


class _NoTensors(WholePart):
    def tensors(self) -> Iterator[tuple[str, Any]]:
        return iter(())


class ModulePart(WholePart):
    """Parameters, buffers (those too that are not in its state_dict) and the extra state of submodules that have some."""

    def __init__(self, name: str, module: Any) -> None:
        for path, part in module.named_modules():
            if type(part).__name__ == "FullyShardedDataParallel":
                hint = "train with DistributedDataParallel, or keep the state with torch.distributed.checkpoint"
                raise StateError(
                    name, "is sharded by FSDP, which frees and remakes its storages", path or "itself", hint=hint
                )
        self._name = name
        self._module = module

    def tensors(self) -> Iterator[tuple[str, Any]]:
        for path, parameter in self._module.named_parameters(remove_duplicate=False):
            yield f"{self._name}.{path}", parameter
        for path, buffer in self._module.named_buffers(remove_duplicate=False):
            yield f"{self._name}.{path}", buffer

    def _extras(self) -> dict[str, Any]:
        own = torch.nn.Module.get_extra_state
        return {path: part for path, part in self._module.named_modules() if type(part).get_extra_state is not own}

    def state(self) -> Any:
        extra = {path: part.get_extra_state() for path, part in self._extras().items()}
        return {"tensors": {key: tensor.detach() for key, tensor in self.tensors()}, "extra": extra}

    def restore(self, state: Any) -> None:
        kept = dict(state["tensors"])
        for key, tensor in self.tensors():
            was = kept.pop(key, None)
            if was is None or (was.shape, was.dtype, was.device) != (tensor.shape, tensor.dtype, tensor.device):
                there = "no such tensor" if was is None else f"{was.dtype} {list(was.shape)}"
                here = f"{tensor.dtype} {list(tensor.shape)}"
                raise StateError(key, f"does not fit the state: it is {here}, there", there, hint=CHANGED)
            tensor.data = was
        if kept:
            raise StateError(min(kept), "is in the state, but not in the program's model", hint=CHANGED)
        for path, part in self._extras().items():
            part.set_extra_state(state["extra"][path])


class Optimizer:
    """Each parameter's state by its number, and the groups' own values. What comes with later steps is foreseen by a probe."""

    def __init__(self, name: str, optimizer: Any) -> None:
        self._name = name
        self._optimizer = optimizer
        self._probe = Probe(name, optimizer)

    def _parameters(self) -> Iterator[tuple[int, int, Any]]:
        """Number, number of the group, parameter."""
        number = 0
        for index, group in enumerate(self._optimizer.param_groups):
            for parameter in group["params"]:
                yield number, index, parameter
                number += 1

    def _values(self) -> list[dict[str, Any]]:
        return [
            {key: value for key, value in group.items() if key != "params"} for group in self._optimizer.param_groups
        ]

    def tensors(self) -> Iterator[tuple[str, Any]]:
        for number, _, parameter in self._parameters():
            if parameter in self._optimizer.state:
                yield from tensors_in(self._optimizer.state[parameter], f"{self._name}.{number}")
        yield from tensors_in(self._values(), f"{self._name}.groups")

    def expected(self) -> Iterator[tuple[str, int, Any]]:
        for number, group, parameter in self._parameters():
            if parameter.requires_grad and not self._optimizer.state.get(parameter):
                found: Expected = self._probe.expected(group, parameter)
                yield from ((f"{self._name}.{number}{path}", nbytes, device) for path, nbytes, device in found)

    def state(self) -> Any:
        state = self._optimizer.state
        by_number = {number: state[parameter] for number, _, parameter in self._parameters() if parameter in state}
        return {"state": by_number, "groups": self._values(), "parameters": sum(1 for _ in self._parameters())}

    def restore(self, state: Any) -> None:
        parameters = list(self._parameters())
        if (len(parameters), len(self._values())) != (state["parameters"], len(state["groups"])):
            here = f"{len(parameters)} parameters in {len(self._values())} groups"
            there = f"{state['parameters']} in {len(state['groups'])}"
            raise StateError(self._name, f"does not fit the state: it has {here}, there", there, hint=CHANGED)
        for number, _, parameter in parameters:
            self._optimizer.state.pop(parameter, None)
            if number in state["state"]:
                self._optimizer.state[parameter] = state["state"][number]
        for group, values in zip(self._optimizer.param_groups, state["groups"], strict=True):
            mine = {key: value for key, value in group.items() if key != "params"}
            refill(values, mine)
            group.update(mine)


class Stateful(_NoTensors):
    """Anything with state_dict and load_state_dict: schedulers, a GradScaler, metrics."""

    def __init__(self, thing: Any) -> None:
        self._thing = thing

    def state(self) -> Any:
        return self._thing.state_dict()

    def restore(self, state: Any) -> None:
        self._thing.load_state_dict(state)


class Container(WholePart):
    """A dictionary, a list or a tensor of the program's own: a cache, requests, counters."""

    def __init__(self, name: str, thing: Any) -> None:
        self._name = name
        self._thing = thing

    def tensors(self) -> Iterator[tuple[str, Any]]:
        return tensors_in(self._thing, self._name)

    def state(self) -> Any:
        return self._thing

    def restore(self, state: Any) -> None:
        mine = [self._thing]
        refill([state], mine)
        if mine[0] is not self._thing:
            raise StateError(
                self._name, "is not what the state has under this name", type(state).__name__, hint=CHANGED
            )


class Generator(_NoTensors):
    """torch.Generator, numpy.random.Generator or random.Random."""

    def __init__(self, thing: Any) -> None:
        self._thing = thing

    def state(self) -> Any:
        if isinstance(self._thing, torch.Generator):
            return self._thing.get_state()
        return self._thing.getstate() if isinstance(self._thing, random.Random) else self._thing.bit_generator.state

    def restore(self, state: Any) -> None:
        if isinstance(self._thing, torch.Generator):
            self._thing.set_state(state.cpu())
        elif isinstance(self._thing, random.Random):
            self._thing.setstate(state)
        else:
            self._thing.bit_generator.state = state


def part(name: str, thing: Any) -> KeptPart:
    """The part of an object. Raises StateError when it is of no kind whose state is known."""
    if isinstance(thing, torch.nn.Module):
        return ModulePart(name, thing)
    if isinstance(thing, torch.optim.Optimizer):
        return Optimizer(name, thing)
    if isinstance(thing, torch.Generator | random.Random) or hasattr(thing, "bit_generator"):
        return Generator(thing)
    if isinstance(thing, dict | list | torch.Tensor):
        return Container(name, thing)
    if hasattr(thing, "state_dict") and hasattr(thing, "load_state_dict"):
        return Stateful(thing)
    known = "modules, optimizers, data loaders, generators, tensors, dictionaries, lists, and what has state_dict and load_state_dict"
    raise StateError(name, "cannot be kept", type(thing).__name__, hint=f"keep() takes {known}")
