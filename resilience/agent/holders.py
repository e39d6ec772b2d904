"""Which jobs hold a lease here: what has changed since the last look, as events of the machine.

A lease that was written anew (its job was requeued to this node) is a job closed and a job opened. Users with a lease, also
one that is not open yet, have a socket of their own.
"""

from collections.abc import Iterator

from resilience.agent.gpus import KnownGpus
from resilience.agent.job_logs import JobLogs
from resilience.model import event as ev
from resilience.model.ids import Color, JobId, ServerId
from resilience.model.lease import Lease, LeaseState
from resilience.ports import Leases, Supervisors


class Holders:
    def __init__(self, leases: Leases, logs: JobLogs, gpus: KnownGpus, supervisors: Supervisors) -> None:
        self._supervisors = supervisors
        self._leases = leases
        self._logs = logs
        self._gpus = gpus
        self._known: dict[JobId, Lease] = {}

    def look(self) -> Iterator[ev.Event]:
        leases = self._leases.all()
        found = {lease.job: lease for lease in leases if lease.state is LeaseState.OPEN}
        for job, lease in list(self._known.items()):
            if found.get(job) != lease:
                del self._known[job]
                self._logs.closed(job)
                yield ev.JobClosed(job=job)
        for job, lease in found.items():
            if job not in self._known:
                self._known[job] = lease
                self._logs.opened(job, lease.uid, lease.gid)
                yield self._opened(lease)
        self._supervisors.admit({lease.uid for lease in leases})

    @property
    def leases(self) -> dict[JobId, Lease]:
        """The open ones."""
        return self._known

    def _opened(self, lease: Lease) -> ev.JobOpened:
        first = lease.colors[0] if lease.colors else Color("a")
        active = []
        for minor, uuid in lease.gpus:
            self._gpus.learn(uuid, minor)
        for (minor, _), *_ in lease.spans:
            here = ServerId(domain=lease.domain, gpu=minor, color=first)
            active.append((minor, self._leases.active(here) or first))
        return ev.JobOpened(lease=lease, active=tuple(active))
