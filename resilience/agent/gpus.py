"""The GPUs of this node as the agent knows them: by UUID, by bus, and what the guard module was told of them."""

import sys

from resilience.model import event as ev
from resilience.model.errors import GpuError
from resilience.model.ids import GpuMinor, GpuUuid
from resilience.model.observation import Source
from resilience.model.records import Sighting
from resilience.parse import xid
from resilience.ports import Gpus, Guard, Journal


class KnownGpus:
    def __init__(self, gpus: Gpus, guard: Guard | None, journal: Journal) -> None:
        self._gpus = gpus
        self._journal = journal
        self._guard = guard
        self._isolates: bool | None = None
        """What the machine was last told of the guard module; None: nothing yet."""
        self._by_bus: dict[xid.Bus, GpuMinor] = {}
        self._by_uuid: dict[GpuUuid, GpuMinor] = {}

    def look(self) -> None:
        """Ask the driver. A node where it does not answer has those GPUs that leases name."""
        try:
            for gpu in self._gpus.all():
                self.learn(gpu.uuid, GpuMinor(gpu.minor), mig=gpu.mig is True)
                for text in gpu.unanswered:
                    print(f"mpsr: agent: {gpu.uuid}: {text}", file=sys.stderr, flush=True)
                if (bus := xid.parse_bus(gpu.bus_id)) is not None:
                    self._by_bus[bus] = GpuMinor(gpu.minor)
        except GpuError as error:
            print(error.lines(), file=sys.stderr, flush=True)

    def learn(self, uuid: GpuUuid, minor: GpuMinor, *, mig: bool = False) -> None:
        """A GPU of this node: the guard isolates on those that it was told of, and not on MIG instances. Raises
        ResilienceError."""
        if uuid in self._by_uuid:
            return
        self._by_uuid[uuid] = minor
        if self._guard is None:
            return
        if mig:
            text = f"guard module: {uuid} is in MIG mode: faults on its instances are not isolated"
            self._journal.append(Sighting(source=Source.GUARD, what="mig", text=text))
        else:
            self._guard.learn(uuid)

    def lies(self, uuid: GpuUuid, bus: xid.Bus) -> None:
        """The kernel log says on which bus a GPU is."""
        if (minor := self._by_uuid.get(uuid)) is not None:
            self._by_bus[bus] = minor

    def on_bus(self, bus: xid.Bus) -> GpuMinor | None:
        return self._by_bus.get(bus)

    def minor(self, uuid: GpuUuid) -> GpuMinor | None:
        return self._by_uuid.get(uuid)

    def guard_turned(self) -> ev.GuardTurned | None:
        """The news that the guard module isolates from now on, or does so no more; None when nothing has changed."""
        on = self._guard is not None and self._guard.isolates()
        if on == self._isolates:
            return None
        self._isolates = on
        return ev.GuardTurned(on=on)
