"""The guard module as it comes and goes: loaded, switched on, switched off and unloaded while the agent runs.

Two directories are watched: the device's own, where its node appears and disappears, and the module's parameters, which
tell when root writes to them. The device is open while the module isolates or observes. When it has been switched off it
stays open until the last client that it isolated has come to its end; then it is closed, so that the module can be unloaded. It is
opened again as soon as there is something to hear, is then told of every GPU again, and gives no record twice.
"""

import os
import select
from collections.abc import Callable

from resilience.adapters.gpu import guard
from resilience.adapters.gpu.guard import DEVICE, PARAMETERS, GuardDevice
from resilience.adapters.linux.inotify import NAMES, WRITES, Inotify
from resilience.model.errors import ResilienceError
from resilience.model.guard import Level
from resilience.model.ids import GpuUuid
from resilience.parse.guard import GuardRecord

_CLOSED = (Level.ABSENT, Level.OFF)


class GuardFollower:
    """Guard port of every node. `say` is told, in words, what the module does from now on and why it cannot be used."""

    def __init__(self, say: Callable[[str], None], device: str = DEVICE, parameters: str = PARAMETERS) -> None:
        self._say = say
        self._path, self._parameters = device, parameters
        self._device: GuardDevice | None = None
        self._level: Level | None = None
        self._watch: int | None = None
        self._gpus: list[GpuUuid] = []
        self._heard = (0, 0)
        """Time and number of the newest record: what was made before is in the ring still when it is opened again."""
        self._notify = Inotify()
        self._poll = select.epoll()
        self._poll.register(self._notify.fd, select.EPOLLIN)
        self._notify.add(os.path.dirname(device), NAMES)
        self._look()

    def fileno(self) -> int:
        return self._poll.fileno()

    def read(self) -> tuple[GuardRecord, ...]:
        """New records, oldest first; takes notice of what the module does now. Raises WireError."""
        self._notify.read()
        try:
            return self._records()
        finally:
            self._look()

    def isolates(self) -> bool:
        return self._level is Level.ON

    def learn(self, uuid: GpuUuid) -> None:
        """Teach the module a GPU, now and whenever it comes back. Raises ResilienceError."""
        self._gpus.append(uuid)
        if self._device is not None:
            self._device.learn(uuid)
            self._look()

    def acknowledge(self, incident: int) -> bool:
        return self._device is not None and self._device.acknowledge(incident)

    def close(self) -> None:
        self._shut()
        self._poll.close()
        self._notify.close()

    def _records(self) -> tuple[GuardRecord, ...]:
        if self._device is None:
            return ()
        found = tuple(record for record in self._device.read() if (record.time_ns, record.sequence) > self._heard)
        if found:
            self._heard = (found[-1].time_ns, found[-1].sequence)
        return found

    def _look(self) -> None:
        """Open, close and tell, as the module's level wants it."""
        self._watch_parameters()
        level = guard.level(self._path, self._parameters)
        if level in _CLOSED:
            if level is Level.ABSENT or not guard.clients(self._parameters):
                self._shut()
        elif self._device is None:
            self._open()
            level = guard.level(self._path, self._parameters)
        if level is not self._level:
            self._level = level
            self._say(f"guard module: {level.value}")

    def _watch_parameters(self) -> None:
        """Before every look, so that no change falls between the two; the same directory keeps its number."""
        there = self._notify.add(self._parameters, WRITES)
        if self._watch is not None and self._watch != there:
            self._notify.remove(self._watch)
        self._watch = there

    def _open(self) -> None:
        try:
            self._device = GuardDevice(self._path)
            self._poll.register(self._device.fileno(), select.EPOLLIN)
            for uuid in self._gpus:
                self._device.learn(uuid)
        except ResilienceError as error:
            self._say(error.lines().removeprefix("mpsr: "))

    def _shut(self) -> None:
        if self._device is not None:
            self._poll.unregister(self._device.fileno())
            self._device.close()
        self._device = None
