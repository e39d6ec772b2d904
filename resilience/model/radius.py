"""How far a fault reached: the whole server, one of its SM partitions, or single processes. A closed union.

Who can have done it follows from that, and whom it is kept from. `machine.incidents.radius` works it out, once, from what
has been seen; attribution and verdicts take it as it is.
"""

from dataclasses import dataclass
from typing import ClassVar

from resilience.model.ids import TaskRef


@dataclass(frozen=True, slots=True, kw_only=True)
class _Radius:
    clients: frozenset[TaskRef]
    """Tasks whose active process was within it."""
    hits: frozenset[TaskRef]
    """Those of them whose own process failed or reported the fault."""
    strangers: int
    """Clients without a supervisor that the server had."""
    complete: bool
    """One of `clients` or of the strangers did it. False: there may be others that we do not know of, and only a name counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server(_Radius):
    """Every client of the server is hit."""

    WHERE: ClassVar[str] = "server"


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition(_Radius):
    """Seen in one SM partition, and the server is not known to be hit."""

    WHERE: ClassVar[str] = "SM partition"
    proven: bool
    """The server has dealt with the fault and works on: it stayed in the partition."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Process(_Radius):
    """Only the processes that met it, as far as is known."""

    WHERE: ClassVar[str] = "server"


Radius = Server | Partition | Process
