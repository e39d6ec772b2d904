"""Several ranks of torch.distributed, one task and one session each: they commit after the same steps and go on from the same one.

Rank 0 decides when a commit is due. It is asked in a broadcast, not at every step: each answer says after how many steps the next
question comes. Every rank must ask at the same steps. Without a process group, or with one rank, nothing is sent.
"""

import time
from collections.abc import Callable

import torch
import torch.distributed

from resilience.model.errors import StateError

_BETWEEN = 0.1
"""Seconds between two questions, about."""


def several() -> bool:
    here = torch.distributed
    return bool(here.is_available() and here.is_initialized() and here.get_world_size() > 1)


class TorchRanks:
    def __init__(self) -> None:
        self._ask_in = 0
        self._asked_at = 0.0
        self._steps = 1

    def decide(self, due: Callable[[], bool]) -> bool:
        """What rank 0's `due` says, on every rank."""
        if not several():
            return due()
        self._ask_in -= 1
        if self._ask_in > 0:
            return False
        now = time.monotonic()
        a_step = (now - self._asked_at) / self._steps if self._asked_at else _BETWEEN
        answer = [(due(), max(1, int(_BETWEEN / max(a_step, 1e-6))))]
        torch.distributed.broadcast_object_list(answer, src=0)
        said, self._ask_in = answer[0]
        self._asked_at, self._steps = now, self._ask_in
        return said

    def together(self) -> None:
        """Nobody commits before everybody has come here: the ranks' commits lie as close as can be."""
        if several():
            torch.distributed.barrier()

    def same(self, step: int) -> None:
        """Raises StateError when the ranks' commits are not of the same step."""
        if not several():
            return
        steps: list[int | None] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(steps, step)
        if len(set(steps)) > 1:
            hint = "the fault came between their commits: start the job anew from its last checkpoint"
            raise StateError("kept state", "the ranks stand at commits of different steps", steps, hint=hint)
