"""The static SM partitions of a domain's servers: made, looked at, removed, and written down for those who join them.

Two files of root's stand beside the pipe directories of a GPU: `cut` says the percentage that its pair of servers is cut
for, `{color}.sm` names the partitions of one server, in the order of their slots, as CUDA_MPS_SM_PARTITION wants them.
A server without `cut` beside it, and every quarantine server, has no partitions.

Relies on a daemon that was started with -S and that nobody uses yet (the driver refuses otherwise), and on the caller's
lock of the domain. Guarantees: `cut` leaves all partitions, listed by the daemon itself, or raises; ids are the daemon's
words, which runs as a user, and are taken only in the form of an id.
"""

import os
from collections.abc import Callable
from contextlib import suppress

from resilience import contract
from resilience.adapters.linux.guarded_files import make_dirs, read_regular, write_whole
from resilience.model.errors import MpsControlError, WireError
from resilience.model.ids import GpuUuid, NodeName, ServerId
from resilience.parse import mps_control as parse
from resilience.placement import partition_plan
from resilience.placement.domain_plan import PAIR

_LIMIT = 1 << 15
"""Bytes of a `.sm` file: 64 ids of 250 characters fit."""

Ask = Callable[..., tuple[str, ...]]
"""Commands for a server's daemon -> the lines of its answer. Raises MpsControlError."""


class SmPartitions:
    """See the module. `ask(server, command, ...)` holds a conversation with a server's control daemon."""

    def __init__(self, run: str, node: NodeName, ask: Ask) -> None:
        self._run = run
        self._node = node
        self._ask = ask

    def share(self, server: ServerId) -> int | None:
        """The percentage that this server is cut for; None for a server without partitions."""
        if server.color not in PAIR:
            return None
        text = self._read("cut", server).strip()
        return int(text) if text.isascii() and text.isdigit() and 1 <= int(text) <= 100 else None

    def plan(self, server: ServerId, percent: int) -> None:
        """Have the pair of this server cut for a share from its next opening on. Raises OSError."""
        make_dirs(os.path.dirname(self._path("cut", server)))
        write_whole(self._path("cut", server), f"{percent}\n")

    def count(self, server: ServerId) -> int:
        """How many partitions the server has."""
        return len(self._values(server))

    def value(self, server: ServerId, slot: int) -> str:
        """The partition of a slot (counted from 1), as CUDA_MPS_SM_PARTITION wants it; empty when there is none."""
        return dict(enumerate(self._values(server), 1)).get(slot, "")

    def cut(self, server: ServerId, uuid: GpuUuid) -> None:
        """Make the partitions of a fresh server, if it is to have any. Raises MpsControlError with the driver's words."""
        if (percent := self.share(server)) is None:
            return
        try:
            lines = self._ask(server, "lspart")
        except MpsControlError as error:
            lines = (str(error),)  # 580 prints its help for -S, with status 0, and starts no daemon
        table = parse.partition_table(lines)
        if table is None:
            raise self._error(server, "has no static SM partitions", lines)
        size, count = partition_plan.cut(percent, table.chunks)
        lines = self._ask(server, *[f"sm_partition add {uuid} {size}"] * count, "lspart")
        ids, table = parse.partitions_made(lines, uuid), parse.partition_table(lines)
        if table is None or not partition_plan.whole(table, ids, percent):
            raise self._error(server, f"makes {len(ids)} of {count} SM partitions of {size} chunks", lines)
        write_whole(self._path("partitions", server), "".join(f"{uuid}/{name}\n" for name in ids))

    def question(self, server: ServerId) -> tuple[str, ...]:
        """What to ask the daemon for `answered`, perhaps behind other commands; nothing where there are no partitions."""
        return () if self.share(server) is None else ("lspart",)

    def answered(self, server: ServerId, lines: tuple[str, ...]) -> bool:
        """Whether the daemon says that it has all partitions that the server is to have."""
        table, percent = parse.partition_table(lines), self.share(server)
        ids = tuple(value.partition("/")[2] for value in self._values(server))
        return percent is None or (table is not None and partition_plan.whole(table, ids, percent))

    def whole(self, server: ServerId) -> bool:
        """The same, in a conversation of its own. Raises MpsControlError."""
        question = self.question(server)
        return not question or self.answered(server, self._ask(server, *question))

    def remove(self, server: ServerId) -> None:
        """Take the partitions back before the daemon goes, as far as it still answers."""
        if values := self._values(server):
            with suppress(MpsControlError):
                self._ask(server, *(f"sm_partition rm {value.replace('/', ' ', 1)}" for value in values))

    def forget(self, server: ServerId) -> None:
        """The daemon has gone, and its partitions with it."""
        with suppress(FileNotFoundError):
            os.unlink(self._path("partitions", server))

    def _values(self, server: ServerId) -> tuple[str, ...]:
        return tuple(self._read("partitions", server).splitlines())

    def _read(self, name: str, server: ServerId) -> str:
        try:
            return read_regular(self._path(name, server), limit=_LIMIT, owner=os.geteuid())
        except (OSError, WireError):
            return ""

    def _path(self, name: str, server: ServerId) -> str:
        return contract.path(
            name, run=self._run, node=self._node, key=server.domain, gpu=server.gpu, color=server.color
        )

    def _error(self, server: ServerId, wrong: str, lines: tuple[str, ...]) -> MpsControlError:
        said = next((line for line in lines if not line.startswith(("GPU", "Partition "))), "")
        name = f"mps {server.domain}/g{server.gpu}/{server.color}"
        return MpsControlError(name, wrong, parse.printable(said) or "the control daemon says nothing")
