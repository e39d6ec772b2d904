"""The state that an optimiser will have for a parameter, before its first step: found out by a step on a twin of one parameter.

The twin is the optimiser with nothing but that parameter's group, a parameter of zeros and a gradient of zeros; the program's own
parameters and state are not touched. The twin's memory is gone afterwards. Equal parameters of a group are tried once.
"""

import collections
import copy
import warnings
from collections.abc import Iterator
from typing import Any

import torch

from resilience.model.errors import StateError
from resilience.torch import storages
from resilience.torch.trees import tensors_in

Expected = list[tuple[str, int, Any]]
"""Path within the parameter's state, bytes, device."""


class Probe:
    def __init__(self, name: str, optimizer: Any) -> None:
        self._name = name
        self._optimizer = optimizer
        self._known: dict[Any, Expected] = {}

    def expected(self, group: int, parameter: Any) -> Expected:
        """The tensors that the state of a parameter will consist of. Raises StateError when a step cannot be tried."""
        what = (group, parameter.dtype, parameter.device, tuple(parameter.shape), parameter.stride())
        if what not in self._known:
            self._known[what] = list(self._try(self._optimizer.param_groups[group], parameter))
        return self._known[what]

    def _try(self, group: dict[str, Any], parameter: Any) -> Iterator[tuple[str, int, Any]]:
        one = torch.nn.Parameter(torch.zeros_like(parameter))
        try:
            state = self._step(group, one, torch.zeros_like(one))
        except RuntimeError as dense:  # SparseAdam takes sparse gradients alone
            try:
                state = self._step(group, one, torch.zeros_like(one).to_sparse())
            except Exception:
                raise self._refused(dense) from dense
        except Exception as error:  # whatever a step raises without a closure, with zeros or with one parameter
            raise self._refused(error) from error
        for path, tensor in tensors_in(state):
            yield path, storages.nbytes(tensor), tensor.device

    def _step(self, group: dict[str, Any], one: Any, gradient: Any) -> Any:
        one.grad = gradient
        kind = type(self._optimizer)
        twin = object.__new__(kind)
        twin.__dict__.update(self._optimizer.__dict__)
        twin.__dict__.pop("step", None)  # a scheduler counts the steps of the real one by it
        twin.state = collections.defaultdict(dict)
        twin.param_groups = [
            {**copy.deepcopy({key: value for key, value in group.items() if key != "params"}), "params": [one]}
        ]
        twin._optimizer_step_pre_hooks = collections.OrderedDict()
        twin._optimizer_step_post_hooks = collections.OrderedDict()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            twin.step()
        return dict(twin.state[one])

    def _refused(self, error: Exception) -> StateError:
        what = f"{type(self._optimizer).__name__}: {error}"
        hint = "an optimiser that needs a closure (LBFGS) or more than its parameters and gradients cannot be kept"
        return StateError(self._name, "its state cannot be known before its first step", what, hint=hint)
