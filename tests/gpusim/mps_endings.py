"""How clients end, and whom that hurts: the hazard of a busy client's death, and a terminate_client that goes wrong.

NVIDIA's MPS document: a client that ends with work in flight (Ctrl-C, a signal) can leave the server and its other
clients in an undefined state; `terminate_client` before it does not. The hypothesis, off unless `busy_death_permille`
is set: a busy client's death hurts each client of its server with that probability, an idle one's hurts nobody. Hurt is
one of `busy_death_how`: 1 its work never ends, 2 its calls return 719, 3 its memory has wrong bytes, 0 one of them by
lot, 4 none: it is counted alone. Each such death is a line of the host's file `deaths`: who died, how many were hurt. The
lots follow from `busy_death_seed`, the number of the death and the neighbour's slot, and from nothing else.

`terminate_ms`, `terminate_code` and `terminate_hangs` make terminate_client slow, refused or silent for as long as its
target's process lives.
"""

from __future__ import annotations

import os
import zlib

from . import mps_host, mps_inject

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .mps_page import Page

HANGS, WRONG_BYTES, LAUNCH_FAILED = 1, 2, 719
"""Values of a slot's `hurt`; one above 2 is the CUDA error of all further calls."""
_WAYS = {1: HANGS, 2: LAUNCH_FAILED, 3: WRONG_BYTES, 4: 0}
ANSWER_SECONDS = 1.0
"""How long a terminated client may take to answer; the real server ends a client's GPU work without its help."""


class Termination:
    """A `terminate_client` under way. `begins` and `ends` are times of the loop's clock."""

    __slots__ = ("begins", "begun", "ends", "pid")

    def __init__(self, pid: int, now: float) -> None:
        self.pid = pid
        self.begun = False
        self.begins = now + mps_inject.number("terminate_ms", 0) / 1000
        if mps_inject.number("terminate_hangs", 0):
            self.begins = float("inf")
        self.ends = self.begins + ANSWER_SECONDS

    def due(self) -> float:
        """When there is something to do next."""
        return self.ends if self.begun else self.begins


class Lots:
    """Whom a busy client's death hurts, and how."""

    __slots__ = ("deaths",)

    def __init__(self) -> None:
        self.deaths = 0

    def draw(self, pid: int, neighbours: list[tuple[Page, int]]) -> int:
        """Client `pid` died busy. Hurt those on whom the lot falls, (page, slot) each; returns how many."""
        permille = mps_inject.number("busy_death_permille", 0)
        if not permille:
            return 0
        self.deaths += 1
        seed, how = mps_inject.number("busy_death_seed", 0), mps_inject.number("busy_death_how", 0)
        hurt = 0
        for page, slot in neighbours:
            lot = zlib.crc32(f"{seed} {self.deaths} {slot}".encode())
            if lot % 1000 < permille:
                page.hurt(slot, _WAYS[how or 1 + lot // 1000 % 3])
                hurt += 1
        host = mps_host.read()
        if host is not None:
            file = os.open(os.path.join(host.path, "deaths"), os.O_WRONLY | os.O_APPEND)
            os.write(file, f"{pid} {hurt}\n".encode())
            os.close(file)
        return hurt
