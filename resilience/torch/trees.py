"""Tensors within dictionaries, lists and tuples, with the path to each."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch


def tensors_in(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Each tensor with its path, `.key` for each step, in the order of the containers."""
    if isinstance(tree, torch.Tensor):
        yield path, tree
    elif isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from tensors_in(value, f"{path}.{key}")
    elif isinstance(tree, list | tuple):
        for index, value in enumerate(tree):
            yield from tensors_in(value, f"{path}.{index}")


def refill(kept: Any, mine: Any) -> bool:
    """Give a container of the program the content that was kept, in place; False when it is none that can be refilled.

    A tensor that is in both keeps its place in the program: the program may hold it under other names, too.
    """
    if isinstance(mine, dict) and isinstance(kept, Mapping):
        fresh = {key: _same(value, mine.get(key)) for key, value in kept.items()}
        mine.clear()
        mine.update(fresh)
    elif isinstance(mine, list) and isinstance(kept, list):
        had = [*mine, *([None] * len(kept))]
        mine[:] = [_same(value, old) for value, old in zip(kept, had, strict=False)]
    else:
        return False
    return True


def _same(kept: Any, mine: Any) -> Any:
    if isinstance(kept, torch.Tensor) and isinstance(mine, torch.Tensor):
        theirs: Any = mine
        if (theirs.dtype, theirs.device, theirs.layout) == (kept.dtype, kept.device, kept.layout):
            theirs.data = kept
            return theirs
        return kept
    if isinstance(kept, tuple) and isinstance(mine, tuple) and len(kept) == len(mine):
        return tuple(map(_same, kept, mine))
    return mine if refill(kept, mine) else kept
