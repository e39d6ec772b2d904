"""The first tasks of a domain on a GPU, until it is known whether the control daemons that they are to join still live.

A user's script can end a daemon (`echo quit | nvidia-cuda-mps-control`) or remove its directory while no task of the
domain is here, and so nobody watches it; a process that is then started there runs outside MPS, and CUDA does not say
so. So a hello waits for a look at the domain's daemons. Where that fails nothing is held against a daemon: only one that
is known to have gone is replaced. Tasks that run already (an agent was started anew) wait for nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from resilience.model import event as ev
from resilience.model.errors import ResilienceError
from resilience.model.ids import Color, DomainKey, GpuMinor, ServerId
from resilience.ports import Mps, Worker

_LANE = "door"
"""Of the worker: a server of another domain that is just started must not keep a task waiting."""


@dataclass(frozen=True, slots=True)
class Look:
    """A look at the daemons of a domain on a GPU: the tag of the worker's call."""

    domain: DomainKey
    gpu: GpuMinor


class Newcomers:
    """`known`: whether the machine follows the servers of a domain on a GPU; `take` hands it an event."""

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
        self._waiting: dict[Look, list[tuple[ev.Hello, Callable[[], bool]]]] = {}

    def hello(self, event: ev.Hello, here: Callable[[], bool]) -> None:
        """`here`: whether the supervisor is still connected when its turn has come."""
        look = Look(event.server.domain, event.server.gpu)
        if event.resumed or (self._known(look.domain, look.gpu) and look not in self._waiting):
            self._take(event)
            return
        if look in self._waiting:
            self._waiting[look].append((event, here))
            return
        self._waiting[look] = [(event, here)]
        colors = event.lease.colors or (event.server.color,)
        servers = [replace(event.server, color=color) for color in colors]
        self._worker.submit(_LANE, look, lambda: frozenset(one.color for one in servers if self._gone(one)))

    def looked(self, look: Look, value: object) -> None:
        """The worker's answer."""
        dead: frozenset[Color] = value if isinstance(value, frozenset) else frozenset()
        for event, here in self._waiting.pop(look, []):
            if here():
                self._take(replace(event, dead=dead))

    def _gone(self, server: ServerId) -> bool:
        try:
            return self._mps.daemon(server) is None
        except ResilienceError:
            return False
