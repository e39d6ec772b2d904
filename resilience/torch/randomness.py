"""Every generator that a program may draw from: torch's of the CPU and of the device, Python's, numpy's, and those of its loaders."""

import random
import sys
from collections.abc import Iterable
from typing import Any

import torch


class Randomness:
    """`device`: the one that the model is on. `loaders`: DataLoaders, whose own generators are drawn from, too."""

    def __init__(self, device: Any, loaders: Iterable[Any], *, everywhere: bool) -> None:
        self._device = device
        self._everywhere = everywhere
        self._own = list({id(one): one for loader in loaders for one in _generators(loader)}.values())

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = {"own": [one.get_state() for one in self._own]}
        if not self._everywhere:
            return state
        state |= {"cpu": torch.get_rng_state(), "python": random.getstate()}
        if self._device.type == "cuda":
            state["cuda"] = torch.cuda.get_rng_state(self._device)
        if numpy := sys.modules.get("numpy"):
            state["numpy"] = numpy.random.get_state()
        return state

    def restore(self, state: dict[str, Any]) -> None:
        for one, its in zip(self._own, state["own"], strict=True):
            one.set_state(its)
        if "cpu" in state:
            torch.set_rng_state(state["cpu"])
            random.setstate(state["python"])
        if "cuda" in state:
            torch.cuda.set_rng_state(state["cuda"], self._device)
        if "numpy" in state:
            import numpy as np

            np.random.set_state(state["numpy"])


def _generators(loader: Any) -> list[Any]:
    """The loader's generator and those of its samplers."""
    samplers = [loader.sampler, loader.batch_sampler, getattr(loader.batch_sampler, "sampler", None)]
    found = [getattr(one, "generator", None) for one in (loader, *samplers)]
    return [one for one in found if isinstance(one, torch.Generator)]
