"""The guard module of a node: what it does there, and what it found in the driver."""

from dataclasses import dataclass
from enum import StrEnum

_VOLTA, _HOPPER = 7, 9
"""Compute capabilities, major."""


class Level(StrEnum):
    """What the module does on this node."""

    ABSENT = "absent"
    OFF = "off"
    BLIND = "blind"
    """It is enabled and knows no GPU, so it isolates nothing: nobody has told it, which the agent does."""
    OBSERVE = "observe"
    """It records what it would hold, and holds nothing."""
    ON = "on"


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardStanding:
    """What the module found in the driver that is loaded, and what its hooks have seen there since it was loaded."""

    driver: str
    """Version of nvidia-uvm; empty when it does not say."""
    cancels: tuple[str, ...]
    """Generations of GPUs whose cancel function is hooked."""
    faults: int
    """Fatal faults that the driver recorded, each replay of one that was not held anew."""
    cancels_seen: int
    strays: int
    """Cancels that no record came before: the driver goes another way there, and they pass."""
    isolated: int
    """Clients whose faults were sunk."""

    def covers(self, capability: int) -> bool:
        """Does it hook the cancels of a GPU of this compute capability (major)? Each function serves a generation and those
        after it: Volta's (Turing's from driver 595 on) until Ada, Hopper's from there on."""
        wanted = ("hopper",) if capability >= _HOPPER else ("volta", "turing") if capability >= _VOLTA else ()
        return any(name in self.cancels for name in wanted)
