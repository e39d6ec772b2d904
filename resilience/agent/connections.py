"""Who is connected to which server, as far as the servers' logs tell: clients outside our supervisors, and the daemons.

A client is looked up when the log says that it connects, since it may be gone when a later line names it. Clients that
ended without a line are forgotten when another connects.
"""

from collections.abc import Iterator
from dataclasses import replace

from resilience.agent.clients import Clients
from resilience.model import event as ev
from resilience.model.ids import DomainKey, GpuMinor, ServerId
from resilience.model.mpslog import LogKind, LogLine
from resilience.model.observation import Client
from resilience.model.world import State
from resilience.ports import Clock, Procfs, ServerLine

_EVERY = 1.0
"""Seconds between two looks for clients of one GPU's servers that have ended without a line."""
_PAIRS = 4096


class Connections:
    """Lines of logs, and the machine's state at that moment, to events."""

    def __init__(self, clients: Clients, procfs: Procfs, clock: Clock) -> None:
        self._clients = clients
        self._clock = clock
        self._looked: dict[tuple[DomainKey, GpuMinor], float] = {}
        self._procfs = procfs

    def heard(self, line: ServerLine, parsed: LogLine, state: State) -> Iterator[ev.Event]:
        domain = line.server.domain
        self._clients.daemon(parsed.writer, domain)
        match parsed.kind:
            case LogKind.STARTING_SERVER | LogKind.SERVER_READY:
                self._clients.daemon(parsed.pid, domain)
            case LogKind.NEW_CLIENT | LogKind.CONNECTED:
                yield from self._dead_strangers(line.server, state)
                fresh = parsed.kind is LogKind.NEW_CLIENT
                client = (self._clients.connected if fresh else self._clients.resolve)(parsed.pid, domain)
                if client is not None and client.task is not None:
                    yield ev.OnServer(ref=client.task, server=line.server, on=True)
                else:
                    client, uid = client or Client(pid=parsed.pid), self._procfs.uid(parsed.pid)
                    yield ev.ClientJoined(server=line.server, client=client, uid=uid)
            case LogKind.EXIT:
                if parsed.pid:
                    yield ev.ClientLeft(server=line.server, pid=parsed.pid)
            case _:
                pass

    def _dead_strangers(self, server: ServerId, state: State) -> Iterator[ev.Event]:
        """Clients that ended without a line of the log. Not looked for at a fault: the dead one may have caused it."""
        here, now = (server.domain, server.gpu), self._clock.monotonic()
        if now - self._looked.get(here, float("-inf")) < _EVERY:
            return
        if len(self._looked) >= _PAIRS:
            self._looked.clear()
        self._looked[here] = now
        pair = state.pairs.get(here)
        for pid, color in dict(pair.strangers).items() if pair else ():
            if self._procfs.starttime(pid) is None:
                yield ev.ClientLeft(server=replace(server, color=color), pid=pid)
