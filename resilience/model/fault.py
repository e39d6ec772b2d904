"""What a sighting means: the class of a fault, its reach, and what it asks of the device.

The values of FaultClass are the contract's `[words] fault_classes`; a test compares them. Frozen values, no behaviour
but the order in which one class outweighs another when several sightings belong to one event.
"""

from dataclasses import dataclass
from enum import StrEnum


class FaultClass(StrEnum):
    MMU = "mmu"
    """A memory access that the GPU's MMU refused (Xid 31)."""
    SM = "sm"
    """An exception of a streaming multiprocessor or of an engine's method decoding (Xid 13)."""
    DEVICE = "device"
    """Hardware or firmware: no program is to blame."""
    SERVER = "server"
    """The MPS server ended or cannot be reached, without a GPU fault."""
    CONTROL_DAEMON = "control_daemon"
    """The MPS control daemon ended; running clients are unharmed, new ones cannot join."""
    HANG = "hang"
    """Work that does not end (Xid 109, watchdog)."""
    BENIGN = "benign"
    """A trace of something else, or nothing that needs an answer."""
    UNKNOWN = "unknown"


WEIGHT = {
    FaultClass.BENIGN: 0,
    FaultClass.UNKNOWN: 1,
    FaultClass.CONTROL_DAEMON: 2,
    FaultClass.SERVER: 3,
    FaultClass.HANG: 4,
    FaultClass.SM: 5,
    FaultClass.MMU: 6,
    FaultClass.DEVICE: 7,
}
"""Several sightings of one event: the heaviest class counts. A server that ends is a consequence of what ended it."""


class DeviceState(StrEnum):
    """What a fault asks of the device."""

    FINE = "fine"
    CONTAINED = "contained"
    """A hardware error that the driver kept to the processes that met it; the GPU goes on."""
    RESET = "reset"
    """The GPU needs a reset before it can be trusted."""
    LOST = "lost"
    """The GPU does not answer; a reboot or hands are needed."""

    @property
    def out_of_use(self) -> bool:
        """No recovery on this GPU makes sense."""
        return self in (DeviceState.RESET, DeviceState.LOST)


class Reach(StrEnum):
    """Who is hit when the sighting names one process of an MPS server."""

    SERVER = "server"
    """Every client of the server, unless isolation keeps it to the culprit."""
    PROCESS = "process"
    NOBODY = "nobody"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A classified event. Zero stands for "no such number seen"."""

    kind: FaultClass = FaultClass.UNKNOWN
    device: DeviceState = DeviceState.FINE
    reach: Reach = Reach.SERVER
    xid: int = 0
    cuda: int = 0
    words: str = ""
    """What it is in a few words for a person, e.g. "illegal address"."""
    heard: bool = False
    """Its class is a program's word, and nobody else has said so."""

    def numbers(self) -> str:
        """`illegal address, Xid 31`: the words with the driver's numbers, for one-line accounts."""
        parts = [self.words or self.kind.value]
        if self.xid:
            parts.append(f"Xid {self.xid}")
        elif self.cuda:
            parts.append(f"CUDA {self.cuda}")
        return ", ".join(parts)
