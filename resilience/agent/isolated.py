"""Clients that the guard module isolated: who they are, and that each comes to its end.

A fault that was sunk harms nobody, but its client computes with zeros from then on, so it must not live. The agent says to
the module that it takes care of that (else the module sends SIGKILL itself), and ends the client on a worker lane: its MPS
server first, then the process. In observe mode nothing is acknowledged and nothing ended: the module does what its
parameters say. Everything that the module tells is journalled, but for holds, whose outcome follows.
"""

from functools import partial

from resilience.agent.clients import Clients
from resilience.model.errors import ResilienceError
from resilience.model.ids import ProcessId, ServerId
from resilience.model.observation import Client, Source
from resilience.model.records import Sighting
from resilience.model.world import State
from resilience.parse.guard import GuardEvent, GuardRecord
from resilience.ports import ClientEnd, Guard, Journal, Worker


class Isolated:
    def __init__(
        self, guard: Guard, end: ClientEnd, clients: Clients, journal: Journal, worker: Worker, *, act: bool
    ) -> None:
        self._guard = guard
        self._end = end
        self._clients = clients
        self._journal = journal
        self._worker = worker
        self._act = act
        self._ending: set[ProcessId] = set()
        """Clients that are being ended, until the module lets their address space go. Incidents' numbers would not do: a
        module that is loaded again counts from 1."""

    def take(self, record: GuardRecord, state: State) -> tuple[Client | None, ServerId | None] | None:
        """Deal with one record. For a client's fault that was kept to it: who it is, and its server when that is known."""
        if record.kind is GuardEvent.HELD:
            return None
        process = ProcessId(pid=record.pid, starttime=record.starttime)
        if record.kind is GuardEvent.RELEASED:
            self._ending.discard(process)
        if record.kind is not GuardEvent.SUNK or not record.pid:
            self._tell(record.kind.name.lower(), record.words(), record)
            return None
        client = self._clients.resolve(record.pid)
        server = _server(client, record.pid, state)
        if self._act and process not in self._ending:
            self._ending.add(process)
            self._finish(record, process, server)
        return client, server

    def _finish(self, record: GuardRecord, process: ProcessId, server: ServerId | None) -> None:
        try:
            known = self._guard.acknowledge(record.incident)
        except ResilienceError as error:
            self._tell("not acknowledged", str(error), record)
            return
        if not known:
            return
        lane = f"mps:{server.domain}" if server is not None else "end"
        self._worker.submit(lane, partial(self._end, process, server), partial(self._ended, record))

    def _ended(self, record: GuardRecord, left: str | Exception) -> None:
        self._tell("ended", str(left) or f"process {record.pid} ({record.comm}) was isolated and ended", record)

    def _tell(self, what: str, text: str, record: GuardRecord) -> None:
        self._journal.append(
            Sighting(source=Source.GUARD, what=what, text=text, pid=record.pid or None, guard_incident=record.incident)
        )


def _server(client: Client | None, pid: int, state: State) -> ServerId | None:
    """The server that a process uses: its task's, or that of a client outside our supervisors."""
    task = state.tasks.get(client.task) if client is not None and client.task is not None else None
    if task is not None:
        return task.standby_server if pid == task.standby else task.server
    for pair in state.pairs.values():
        if (color := pair.strangers.get(pid)) is not None:
            return pair.server(color)
    return None
