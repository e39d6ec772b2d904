"""Who is connected to which server, as far as the servers' logs tell: clients outside our supervisors, and the daemons.

A client is looked up when the log says that it connects, since it may be gone when a later line names it. Clients that
ended without a line are forgotten when another connects.
"""

from collections.abc import Callable
from dataclasses import replace

from resilience.agent.clients import Clients
from resilience.model import event as ev
from resilience.model.ids import ServerId
from resilience.model.mpslog import LogKind, LogLine
from resilience.model.observation import Client
from resilience.model.world import State
from resilience.parse import mpslog
from resilience.ports import Procfs, ServerLine


class Connections:
    """`state` gives the machine's state, `take` hands it an event, `guard` calls what may fail with one line."""

    def __init__(
        self,
        clients: Clients,
        procfs: Procfs,
        *,
        state: Callable[[], State],
        take: Callable[[ev.Event], None],
        guard: Callable[..., None],
    ) -> None:
        self._clients = clients
        self._procfs = procfs
        self._state = state
        self._take = take
        self._guard = guard

    def past(self, lines: tuple[ServerLine, ...]) -> None:
        """Lines from before a log was followed: only who is connected, and who the daemons are."""
        for line in lines:
            if (parsed := mpslog.parse_line(line.text)) is not None:
                self._guard(self.heard, line, parsed)

    def heard(self, line: ServerLine, parsed: LogLine) -> None:
        self._clients.daemon(parsed.writer)
        match parsed.kind:
            case LogKind.STARTING_SERVER | LogKind.SERVER_READY:
                self._clients.daemon(parsed.pid)
            case LogKind.NEW_CLIENT | LogKind.CONNECTED:
                self._forget_dead_strangers(line.server)
                fresh = parsed.kind is LogKind.NEW_CLIENT
                client = self._clients.connected(parsed.pid) if fresh else self._clients.resolve(parsed.pid)
                if client is None or client.task is None:
                    self._take(ev.ClientJoined(server=line.server, client=client or Client(pid=parsed.pid)))
            case LogKind.EXIT:
                if parsed.pid:
                    self._take(ev.ClientLeft(server=line.server, pid=parsed.pid))
            case _:
                pass

    def _forget_dead_strangers(self, server: ServerId) -> None:
        """Clients that ended without a line of the log. Not done at a fault: the dead one may have caused it."""
        pair = self._state().pairs.get((server.domain, server.gpu))
        for pid, color in dict(pair.strangers).items() if pair else ():
            if self._procfs.starttime(pid) is None:
                self._take(ev.ClientLeft(server=replace(server, color=color), pid=pid))
