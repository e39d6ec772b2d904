"""The first tasks of a domain on a GPU, until it is known whether the control daemons that they are to join still live.

A user's script can end a daemon (`echo quit | nvidia-cuda-mps-control`) or remove its directory while no task of the
domain is here, and so nobody watches it; a process that is then started there runs outside MPS, and CUDA does not say
so. So a hello waits for a look at the domain's daemons. Where that fails nothing is held against a daemon: only one that
is known to have gone is replaced. Tasks that run already (an agent was started anew) wait for nothing.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from resilience.agent.act import lane
from resilience.model import event as ev
from resilience.model.errors import ResilienceError
from resilience.model.ids import Color, DomainKey, GpuMinor, ServerId
from resilience.ports import Mps, Worker


class Newcomers:
    """`known`: whether tasks of a domain are on a GPU already; `take` hands it an event."""

    def __init__(
        self,
        mps: Mps,
        worker: Worker,
        *,
        known: Callable[[DomainKey, GpuMinor], bool],
        take: Callable[[ev.Event], None],
    ) -> None:
        self._mps = mps
        self._worker = worker
        self._known = known
        self._take = take
        self._waiting: dict[tuple[DomainKey, GpuMinor], list[tuple[ev.Hello, Callable[[], bool]]]] = {}

    def hello(self, event: ev.Hello, here: Callable[[], bool]) -> None:
        """`here`: whether the supervisor is still connected when its turn has come."""
        door = event.server.domain, event.server.gpu
        if event.resumed or (self._known(*door) and door not in self._waiting):
            self._take(event)
            return
        if door in self._waiting:
            self._waiting[door] = [one for one in self._waiting[door] if one[1]()] + [(event, here)]
            return
        self._waiting[door] = [(event, here)]
        colors = event.lease.colors or (event.server.color,)
        servers = [replace(event.server, color=color) for color in colors]

        def call() -> frozenset[Color]:
            return frozenset(one.color for one in servers if self._gone(one))

        self._worker.submit(lane(event.server), call, partial(self._looked, door))

    def _looked(self, door: tuple[DomainKey, GpuMinor], dead: frozenset[Color] | Exception) -> None:
        known = frozenset[Color]() if isinstance(dead, Exception) else dead
        for event, here in self._waiting.pop(door, []):
            if here():
                self._take(replace(event, dead=known))

    def _gone(self, server: ServerId) -> bool:
        try:
            return self._mps.daemon(server) is None
        except ResilienceError:
            return False
