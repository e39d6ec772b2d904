"""A process is about to end: its MPS clients are ended before it, and whoever asked is told when that is done.

A supervisor asks before it kills a process of its task, and for a process that is about to die of a signal (the client
hook). What it asks for reaches only clients that are processes of its own user: those it names, and what they have started.

On failure: a control daemon that refuses or does not answer in time is an answer too; the supervisor goes on, and the
server's state is asked for, so that one that hangs is replaced.
"""

from functools import partial

from resilience.agent.peers import Peers
from resilience.model import event as ev
from resilience.model import records as rec
from resilience.model.ids import ServerId
from resilience.model.world import ServerState
from resilience.ports import Journal, Mps, Peer, Procfs, Worker


class ClientEndings:
    def __init__(self, mps: Mps, procfs: Procfs, worker: Worker, journal: Journal, peers: Peers) -> None:
        self._mps = mps
        self._procfs = procfs
        self._worker = worker
        self._journal = journal
        self._peers = peers

    def asked(self, peer: Peer, event: ev.Ending, server: ServerId) -> None:
        """End the clients of some processes on one server, and answer."""
        pids = frozenset(event.pids)

        def meant(pid: int) -> bool:
            named = pid in pids or not (event.alone or pids.isdisjoint(self._procfs.ancestors(pid)))
            return named and self._procfs.uid(pid) == peer.uid

        call, then = partial(self._mps.end_clients, server, meant), partial(self._ended, event, server)
        self._worker.submit(f"end:{server.domain}", call, then)

    def _ended(self, event: ev.Ending, server: ServerId, ended: tuple[int, ...] | Exception) -> ev.Event | None:
        wrong = str(ended) if isinstance(ended, Exception) else ""
        pids = () if isinstance(ended, Exception) else ended
        self._peers.tell(event.ref, "ended", n=event.number)
        if pids or wrong:
            self._journal.append(rec.ClientEnded(task=event.ref, server=server, pids=pids, wrong=wrong))
        if not wrong:
            return ev.OnServer(ref=event.ref, server=server, on=False)
        # the supervisor does not wait for this
        self._worker.submit(f"mps:{server.domain}", partial(self._mps.state, server), partial(self._looked, server))
        return None

    @staticmethod
    def _looked(server: ServerId, state: ServerState | Exception) -> ev.Event | None:
        return ev.Unsure(server=server) if isinstance(state, Exception) else None
