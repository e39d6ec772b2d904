"""The supervisors that are connected, by task, and a word to one of them."""

from collections.abc import Iterator

from resilience.model.ids import JobId, TaskRef
from resilience.parse.packet import pack
from resilience.ports import Peer, Supervisors


class Peers:
    def __init__(self, supervisors: Supervisors) -> None:
        self._supervisors = supervisors
        self._of: dict[TaskRef, Peer] = {}

    def get(self, ref: TaskRef) -> Peer | None:
        return self._of.get(ref)

    def put(self, ref: TaskRef, peer: Peer) -> None:
        self._of[ref] = peer

    def remove(self, ref: TaskRef) -> None:
        del self._of[ref]

    def all(self) -> Iterator[TaskRef]:
        """Tasks whose supervisor is connected, in their order."""
        return iter(sorted(self._of))

    def of_job(self, job: JobId) -> Iterator[TaskRef]:
        """Tasks of a job whose supervisor is connected, in their order."""
        return iter(sorted(ref for ref in self._of if ref.job == job))

    def tell(self, ref: TaskRef, verb: str, /, **words: object) -> None:
        """Send to a task's supervisor, if it is there."""
        peer = self._of.get(ref)
        if peer is not None:
            self._supervisors.send(peer, pack(verb, **words))

    def tell_job(self, job: JobId, verb: str, /, **words: object) -> None:
        for ref in self.of_job(job):
            self.tell(ref, verb, **words)
