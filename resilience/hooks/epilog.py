"""`mpsr epilog`: give back a job's fault domains as root after its last process, and prove that nothing is left.

Relies on the lease alone, not on the GPUs in the environment, so that a job whose prolog was killed is cleaned up too.
Guarantees: idempotent, bounded in time, safe beside other prologs and epilogs (the domain's lock). A server goes when
no open lease names its domain and GPU; of processes only those are ended that carry this job's id, run as its user,
and hold its servers or are our own helpers; spilled state goes when the job is over for good. What is left after all is told
in `job.closed` as `residue`, never hidden. Files are no residue: a user makes as many as he likes, and would have nodes
drained with that. They are taken away at once, and what is not removed yet is told as `later`.
"""

import pwd
import sys
import time
from collections.abc import Callable, Mapping

from resilience.adapters.linux.processes import ObservedProcess, living, look
from resilience.adapters.mps.client_end import end
from resilience.contract import exit_code
from resilience.hooks import mapping
from resilience.hooks.beginning import begin, failed
from resilience.hooks.closing import close_unused, prune_logs
from resilience.hooks.leftovers import settle, sweep
from resilience.hooks.node import Node
from resilience.model.errors import ConfigError, GpuError, MpsControlError, ResilienceError
from resilience.model.ids import DomainKey
from resilience.model.lease import Lease
from resilience.model.records import JobClosed
from resilience.model.settings import Settings
from resilience.parse.job_environment import JobEnvironment, process_job
from resilience.placement import domain_plan
from resilience.ports import Clock, Gpus, Journal

_CLEARING = 2.0
"""Seconds for files that users have left. Others go on with the rest."""
_KEEPER = "resilience.state.keeper"


def epilog(
    environ: Mapping[str, str], settings: Settings, *, gpus: Callable[[], Gpus], clock: Clock, journal: Journal
) -> int:
    """Exit status: 0, or 1 and the word `drain` when something was left and the site wants that."""
    if (begun := begin(environ, settings, gpus=gpus, clock=clock, journal=journal)) is None:
        return failed(settings)
    job, node = begun
    started = clock.monotonic()
    residue: list[str] = []
    lease = None
    try:
        lease = node.leases.read(job.job)
    except ResilienceError as error:
        residue.append(str(error))
    if lease is None and not residue and not _asked(job, settings):
        return exit_code("ok")
    key = lease.domain if lease else _asked_key(job, settings)
    residue += _give_back(node, job, key)
    residue += _sweep(node, key)
    spill = settle(node, job, _gid(job, lease))
    later = node.leases.remove_job_dir(job.job)
    mapping.leave(node, job.job)
    swept = {str(record.job): outcome for record, outcome in sweep(node)}
    prune_logs(node, job.node)
    later += node.discards.clear(until=time.monotonic() + min(_CLEARING, node.left()))
    on_gpu, unproven = _on_gpu(node, job, lease)
    residue += on_gpu
    for wrong in residue:
        print(f"mpsr: epilog: job {job.job} left behind: {wrong}", file=sys.stderr)
    journal.append(
        JobClosed(
            job=job.job,
            uid=job.uid,
            domain=key,
            residue=tuple(residue),
            later=later,
            unproven=tuple(unproven),
            spill=spill,
            swept=swept,
            ms=round((clock.monotonic() - started) * 1000, 1),
        )
    )
    return failed(settings) if residue else exit_code("ok")


def _gid(job: JobEnvironment, lease: Lease | None) -> int:
    """The group of the job's user."""
    if lease is not None and lease.uid == job.uid:
        return lease.gid
    try:
        return pwd.getpwuid(job.uid).pw_gid if job.gid is None else job.gid
    except KeyError:
        return job.uid


def _asked(job: JobEnvironment, settings: Settings) -> bool:
    """Whether the job wanted MPS. Options that cannot be read had a lease with a refusal: then it did."""
    try:
        return bool(job.asked) and domain_plan.in_force(job.asked, settings.options).mps
    except ConfigError:
        return True


def _asked_key(job: JobEnvironment, settings: Settings) -> DomainKey:
    """The domain of a job without a readable lease, by what it asked for; its own when that cannot be told."""
    try:
        options = domain_plan.in_force(job.asked, settings.options)
    except ConfigError:
        return DomainKey(f"j{job.job}")
    return domain_plan.domain_key(options, job.job, job.uid)


def _give_back(node: Node, job: JobEnvironment, key: DomainKey) -> list[str]:
    """The job's own domain: end its leftovers, remove its lease, close what nobody else holds."""
    if key not in node.leases.domains():
        return [*_end_leftovers(node, job, key), *node.leases.remove(job.job)]
    try:
        with node.locks.domain(key, timeout=node.left()):
            left = _end_leftovers(node, job, key)
            return [*left, *node.leases.remove(job.job), *close_unused(node, key)]
    except MpsControlError as error:
        closed = key not in node.leases.domains()
        return [*([] if closed else [str(error)]), *node.leases.remove(job.job)]


def _sweep(node: Node, own: DomainKey) -> list[str]:
    """Domains that a killed prolog or epilog left without any lease. One that is locked is in good hands."""
    left: list[str] = []
    for key in node.leases.domains():
        if key == own:
            continue
        try:
            with node.locks.domain(key, timeout=0):
                left += close_unused(node, key)
        except MpsControlError:
            continue
    return left


def _end_leftovers(node: Node, job: JobEnvironment, key: DomainKey) -> list[str]:
    """End what Slurm did not end and what still holds a server or kept state; returns what outlives that."""
    processes = [seen for seen in living(job.uid) if _of_job(seen, job)]
    if not processes:
        return []
    servers = [one for twin in domain_plan.twins(key) for one in node.leases.servers(twin)]
    clients: set[int] = set()
    for server in servers:
        try:
            clients.update(node.mps.clients(server))
        except MpsControlError as error:
            print(f"mpsr: epilog: {error}", file=sys.stderr)
    launcher = node.settings.paths.launcher
    meant = [
        seen
        for seen in processes
        if seen.process.pid in clients or _KEEPER in seen.command or launcher in seen.command[:1]
    ]
    grace = min(node.settings.recovery.grace, node.left())
    alive, wrong = end(node.mps, servers, meant, grace=grace, still_meant=lambda seen: _of_job(seen, job))
    for words in wrong:
        print(f"mpsr: epilog: {words}", file=sys.stderr)
    return [f"{seen} outlives SIGKILL" for seen in alive]


def _of_job(seen: ObservedProcess, job: JobEnvironment) -> bool:
    return seen.uid == job.uid and process_job(seen.environ) == job.job


def _on_gpu(node: Node, job: JobEnvironment, lease: Lease | None) -> tuple[list[str], str]:
    """Processes of the job that still hold one of its GPUs, and why that could not be looked at."""
    if lease is None or not lease.gpus:
        return [], ""
    try:
        gpus = node.gpus()
        pids = {pid: uuid for _, uuid in lease.gpus for pid in (*gpus.mps_processes(uuid), *gpus.plain_processes(uuid))}
    except GpuError as error:
        return [], str(error)
    seen = ((look(pid), uuid) for pid, uuid in pids.items())
    return [f"{one} holds {uuid}" for one, uuid in seen if one and _of_job(one, job)], ""
