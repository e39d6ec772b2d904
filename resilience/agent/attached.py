"""Every process that computes on a job's GPU is a client of that job's servers, with its job's share; or it is told.

News of contexts comes from NVML (ports.Computing). Whose a process is, and what its environment says, is looked up on the
loop: a few reads of /proc for a process that is new. A domain's servers are asked for their clients on its worker lane,
once for all that are new. One line for each process: in the job's log, its output, the journal. Where the job wants it
(--mps-unattached=fail) the process is ended: no verdict, since nothing else of the job is at fault.
"""

import sys
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from resilience.agent.act import lane
from resilience.agent.clients import Clients
from resilience.agent.job_logs import JobLogs
from resilience.machine.attached import Facts, lack
from resilience.model import records as rec
from resilience.model.errors import ResilienceError
from resilience.model.ids import DomainKey, GpuMinor, GpuUuid, JobId, ProcessId, ServerId
from resilience.model.lease import Lease
from resilience.model.observation import Client
from resilience.model.options import JobOptions, Unattached
from resilience.model.world import State
from resilience.ports import Context, Ports

_TOLD = 4096
"""Processes that have been told of, so that none is told of twice."""


@dataclass(frozen=True, slots=True)
class _News:
    context: Context
    lease: Lease
    client: Client
    process: ProcessId


@dataclass(frozen=True, slots=True)
class _Clients:
    servers: dict[int, ServerId]
    """Of a domain, by process id."""
    silent: bool
    """There is a server that did not answer."""


class Attached:
    def __init__(self, ports: Ports, clients: Clients, logs: JobLogs, *, state: Callable[[], State], act: bool) -> None:
        self._ports = ports
        self._clients = clients
        self._logs = logs
        self._state = state
        self._act = act
        self._leases: dict[JobId, Lease] = {}
        self._told: OrderedDict[ProcessId, None] = OrderedDict()
        self._asked: dict[DomainKey, list[_News]] = {}
        """Domains whose servers are being asked, and what has come since."""

    def leases(self, leases: dict[JobId, Lease]) -> None:
        """The open leases of now: their GPUs are watched."""
        self._leases = leases
        if self._ports.computing is not None:
            self._ports.computing.watch(frozenset(uuid for lease in leases.values() for _, uuid in lease.gpus))

    def context(self, context: Context) -> None:
        """A process holds a context on a GPU of a job's."""
        began = self._ports.procfs.starttime(context.pid)
        if began is None or self._clients.is_daemon(context.pid) or not self._ports.procfs.has_cuda(context.pid):
            return
        client = self._clients.resolve(context.pid) or self._only_one(context)
        lease = self._leases.get(client.job) if client is not None and client.job is not None else None
        if client is None or lease is None:
            return
        process = ProcessId(pid=context.pid, starttime=began)
        asking = lease.domain in self._asked
        self._asked.setdefault(lease.domain, []).append(_News(context, lease, client, process))
        if not asking:
            self._ask(lease.domain)

    def _only_one(self, context: Context) -> Client | None:
        """A process that has thrown its environment away, and left its job's processes: its user's one job on this GPU."""
        environ = self._ports.procfs.environ(context.pid)
        if environ is None or self._ports.procfs.job(context.pid) is not None:
            return None
        uid = self._ports.procfs.uid(context.pid)
        mine = [
            job for job, lease in self._leases.items() if lease.uid == uid and _minor(lease, context.uuid) is not None
        ]
        return Client(pid=context.pid, job=mine[0]) if len(mine) == 1 else None

    def _ask(self, domain: DomainKey) -> None:
        """For the clients of all servers that the domain has now; what is news by then is judged by the answer."""
        servers, mps = self._ports.leases.servers(domain), self._ports.mps
        news, self._asked[domain] = self._asked[domain], []

        def call() -> _Clients:
            found, silent = dict[int, ServerId](), False
            for server in servers:
                try:
                    found |= dict.fromkeys(mps.clients(server), server)
                except ResilienceError:
                    silent = True
            return _Clients(found, silent)

        if servers:
            self._ports.worker.submit(lane(servers[0]), call, partial(self._answered, domain, news))
        else:
            self._answered(domain, news, _Clients({}, silent=False))

    def _answered(self, domain: DomainKey, news: list[_News], clients: _Clients | Exception) -> None:
        """What has come since is asked for anew."""
        if isinstance(clients, Exception):
            clients = _Clients({}, silent=True)
        for one in news:
            server = clients.servers.get(one.process.pid)
            if server is None and clients.silent and one.context.mps:
                continue  # it may be a client of the one that does not answer
            if self._ports.procfs.starttime(one.process.pid) == one.process.starttime:
                self._judge(one, server)
        if self._asked[domain]:
            self._ask(domain)
        else:
            del self._asked[domain]

    def _judge(self, news: _News, server: ServerId | None) -> None:
        """`server`: the one of the job's domain that has it as a client, whatever NVML's lists say."""
        lease, client, process = news.lease, news.client, news.process
        gpu = _minor(lease, news.context.uuid)
        slot = lease.slot(gpu) if gpu is not None else 0
        why = lack(
            Facts(
                lease=lease,
                options=self._options(client, lease),
                gpu=gpu,
                mps=news.context.mps or server is not None,
                ours=server is not None,
                environ=self._ports.procfs.environ(process.pid),
                partition=self._ports.mps.partition(server, slot) if server is not None and slot else "",
            )
        )
        if not why or process in self._told:
            return
        self._told[process] = None
        if len(self._told) > _TOLD:
            self._told.popitem(last=False)
        ends = lease.options.unattached is Unattached.FAIL
        record = rec.ProcessUnattached(
            job=lease.job,
            task=client.task,
            pid=process.pid,
            program=self._ports.procfs.name(process.pid),
            gpu=news.context.uuid,
            reason=why,
            ended=(ends and self._act) or None,
            dry_run=(ends and not self._act) or None,
        )
        self._ports.journal.append(record)
        self._logs.tell(lease.job, record)
        if record.ended and self._ports.end_client is not None:
            end = partial(self._ports.end_client, process, server)
            self._ports.worker.submit(lane(server) if server is not None else "end", end, partial(_ended, process))

    def _options(self, client: Client, lease: Lease) -> JobOptions:
        task = self._state().tasks.get(client.task) if client.task is not None else None
        return replace(task.options, unattached=lease.options.unattached) if task is not None else lease.options


def _minor(lease: Lease, uuid: GpuUuid) -> GpuMinor | None:
    return next((minor for minor, one in lease.gpus if one == uuid), None)


def _ended(process: ProcessId, answer: str | Exception) -> None:
    """A server is told first, as for every client that we end."""
    if answer:
        print(f"mpsr: agent: process {process.pid} outside its servers: {answer}", file=sys.stderr, flush=True)
