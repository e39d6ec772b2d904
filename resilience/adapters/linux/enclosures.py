"""The enclosure of an MPS server: everything that root starts as a user for one ServerId, daemon, server and talk
programs, and everything that comes of them.

A user can trace and replace what runs as him (ptrace(2), unless Yama forbids it), and so a control daemon can turn into
any program. It stays in the enclosure: a cgroup, or a descent from a reaper where the node has no cgroups or
paths.cgroup is empty. Closing the server ends whatever is in there.
"""

import os

from resilience.adapters.linux import cgroups, reapers
from resilience.adapters.linux.commands import RunAs
from resilience.adapters.linux.processes import ObservedProcess, look
from resilience.model.ids import NodeName, ServerId

_PROGRAM = "mpsr-enter"


def program(launcher: str) -> str:
    """mpsr-enter lies beside the supervisor."""
    return os.path.join(os.path.dirname(launcher), _PROGRAM)


class Enclosures:
    """Those of one node. `base` is paths.cgroup."""

    def __init__(self, base: str, launcher: str, node: NodeName) -> None:
        self._base = base
        self._node = node
        self._program = program(launcher)

    def entrance(self, server: ServerId, pipe: str, run_as: RunAs) -> tuple[str, ...]:
        """The words before a program's that start it inside, as this user; none for who is not root."""
        if os.geteuid() != 0:
            return ()
        if (cgroup := self._cgroup(server)) is not None:
            try:
                return (self._program, *(word for file in cgroup.make() for word in ("-c", file)), *run_as.words())
            except OSError:  # told by mpsr check
                pass
        return (self._program, "-r", pipe, *run_as.words())

    def inside(self, server: ServerId, pipe: str) -> tuple[ObservedProcess, ...]:
        """What lives there."""
        cgroup = self._cgroup(server)
        pids = (cgroup.members() if cgroup else set()) | reapers.members(pipe)
        return tuple(seen for pid in sorted(pids) if (seen := look(pid)))

    def end(self, server: ServerId, pipe: str, seconds: float) -> tuple[ObservedProcess, ...]:
        """End all of it; what outlives that."""
        cgroup = self._cgroup(server)
        pids = (cgroup.end(seconds) if cgroup else set()) | reapers.end(pipe, seconds)
        return tuple(seen for pid in sorted(pids) if (seen := look(pid)))

    def remove(self, server: ServerId) -> None:
        if (cgroup := self._cgroup(server)) is not None:
            cgroup.remove()

    def _cgroup(self, server: ServerId) -> cgroups.Cgroup | None:
        hierarchies = cgroups.of_this_host() if self._base else None
        if hierarchies is None:
            return None
        name = f"{self._base}/{self._node}/{server.domain}/g{server.gpu}.{server.color}"
        return cgroups.Cgroup(hierarchies, name)
