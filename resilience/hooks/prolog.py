"""`mpsr prolog`: open a job's fault domains and write its lease, as root, before the job's first process.

Relies on slurmd's environment and on nothing else of the user. Guarantees (protocols.md §4): a job that did not
ask costs nothing; a job that cannot have MPS gets a lease that says so and why, and the node stays in service;
two prologs at once, a prolog killed in the middle and a prolog run twice all end in a whole state: the lease says
`refused` until everything is open, and servers that no open lease names are closed by the next epilog.
"""

import pwd
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

from resilience.adapters.gpu import guard
from resilience.adapters.linux.processes import has_any
from resilience.contract import exit_code
from resilience.hooks import mapping, partitions, spans
from resilience.hooks.beginning import begin, failed
from resilience.hooks.closing import close_unused
from resilience.hooks.node import Node, agent_socket, at_once
from resilience.model.errors import ConfigError, MpsControlError, ResilienceError, ServerFaulted
from resilience.model.guard import Level
from resilience.model.ids import Color, GpuMinor, ServerId
from resilience.model.lease import Devices, Isolation, Lease, LeaseState
from resilience.model.options import Domain, JobOptions, Require, Servers
from resilience.model.records import DomainOpened, JobOpened, JobRefused
from resilience.model.settings import Settings
from resilience.model.world import ServerState
from resilience.parse.hostlist import expand
from resilience.parse.job_environment import JobEnvironment
from resilience.parse.options import serialize
from resilience.placement import domain_plan, partition_plan
from resilience.ports import Clock, Gpus, Journal, ServerOwner

_LOOK = 0.1
"""Seconds between two looks at a server that is in its fault state."""


def prolog(
    environ: Mapping[str, str], settings: Settings, *, gpus: Callable[[], Gpus], clock: Clock, journal: Journal
) -> int:
    """Exit status: 0, or 1 and the word `drain` when the site wants that for failures of ours and there was one that the
    job's user cannot have caused."""
    if (begun := begin(environ, settings, gpus=gpus, clock=clock, journal=journal)) is None:
        return failed(settings)
    job, node = begun
    if not job.asked:
        return exit_code("ok")
    lease = _refused(job, settings, clock)
    others = settings.prolog.on_failure == "drain" and _may_be_the_users(node, lease)
    try:
        options = domain_plan.in_force(job.asked, settings.options, job.partition)
        if not options.mps:
            return exit_code("ok")
        lease = replace(lease, options=options, domain=domain_plan.domain_key(options, job.job, job.uid))
        if not job.gpus and domain_plan.by_default(settings.options, job.partition):
            node.leases.write(replace(lease, state=LeaseState.WITHOUT, reason=domain_plan.NO_GPU))
            return exit_code("ok")
        node.leases.write(lease)
        _open(node, job, lease)
    except ConfigError as error:
        _refuse(node, lease, error)
    except (ResilienceError, OSError) as error:
        _refuse(node, lease, error)
        return exit_code("ok") if others or _may_be_the_users(node, lease) else failed(settings)
    except Exception as error:
        sys.excepthook(type(error), error, error.__traceback__)
        _refuse(node, lease, error)
        return failed(settings)
    return exit_code("ok")


def _may_be_the_users(node: Node, lease: Lease) -> bool:
    """Whether the job's user could have made it fail: with a process here, which may stop or end what runs as the user,
    or with a room that is full. Neither is of use against servers that run as root."""
    if lease.options.domain is Domain.SHARED:
        return False
    return node.rooms.full(lease.domain) or has_any(lease.uid)


def _open(node: Node, job: JobEnvironment, lease: Lease) -> None:
    """Have all servers of a job, then its lease. Raises when the job cannot have what it requires."""
    present = node.gpus().all() if job.gpus else ()
    devices = node.settings.paths.devices.replace("{node}", job.node)
    files = expand(devices, "paths.devices") if devices else ()
    cut = frozenset(gpu.uuid for gpu in present if gpu.mig)
    there = tuple((GpuMinor(gpu.minor), gpu.uuid) for gpu in present)
    gpus = domain_plan.pick_gpus(job.gpus, there, files, cut)
    options = spans.settle(node, job.job, lease.options, gpus)
    lease = replace(
        lease,
        options=options,
        domain=domain_plan.domain_key(options, job.job, job.uid),
        numbers=domain_plan.slurm_numbers(gpus, there, files),
    )
    without = ""
    for gpu in present:
        if gpu.unanswered and gpu.uuid in dict(gpus).values():
            print(f"mpsr: prolog: job {lease.job}: {gpu.uuid}: {'; '.join(gpu.unanswered)}", file=sys.stderr)
    if node.settings.mps.sm_partitions == "auto" and options.servers is Servers.JOB:
        without = spans.NO_PARTITION
    elif node.settings.mps.sm_partitions == "auto" and options.domain is not Domain.JOB:
        try:
            partitions.possible([gpu for gpu in present if gpu.uuid in dict(gpus).values()])
            key = domain_plan.partitioned(lease.domain)
            percent = partition_plan.share(lease.options, job.share)
            _open_domain(node, job, replace(lease, domain=key), gpus, percent=percent)
            mapping.enter(node, job.job, present, dict(gpus).values())
            return
        except (ConfigError, MpsControlError, OSError) as error:
            without = partitions.words(error)
            print(f"mpsr: prolog: job {lease.job} has no SM partition: {without}", file=sys.stderr)
    _open_domain(node, job, lease, gpus, without=without)
    mapping.enter(node, job.job, present, dict(gpus).values())


def _open_domain(
    node: Node,
    job: JobEnvironment,
    lease: Lease,
    gpus: Devices,
    *,
    percent: int | None = None,
    without: str = "",
) -> None:
    """Open the lease's domain for it. `percent`: with an SM partition of that share; `without`: why it has none.

    A server of others that is in its fault state is waited for without the domain's lock: to recover them the agent
    may need servers of their own.
    """
    started = node.clock.monotonic()
    until = min(started + node.settings.mps.rebuild_timeout, node.deadline)
    while hit := _open_locked(node, job, lease, gpus, percent=percent, without=without, started=started, until=until):
        while _faulted(node, hit) and node.clock.monotonic() < until:
            time.sleep(_LOOK)


def _faulted(node: Node, server: ServerId) -> bool:
    try:
        return node.mps.state(server) is ServerState.FAULT
    except MpsControlError:  # it is being replaced
        return False


def _open_locked(
    node: Node,
    job: JobEnvironment,
    lease: Lease,
    gpus: Devices,
    *,
    percent: int | None,
    without: str,
    started: float,
    until: float,
) -> ServerId | None:
    """None when it is done; before `until` a server to wait for first, when one is in its fault state."""
    kept = isolation(partition=percent is not None)
    shared = lease.options.domain is Domain.SHARED
    owner = (
        ServerOwner(uid=0, gid=0, shared=True) if shared else ServerOwner(uid=lease.uid, gid=lease.gid, shared=False)
    )
    with node.locks.domain(lease.domain, timeout=node.left(), create=True):
        pair = node.settings.mps.compute_mode != "exclusive"
        try:
            plan = domain_plan.opening(
                lease.options,
                lease.domain,
                gpus,
                node.leases.active,
                pair=pair,
                isolation=kept,
                unpartitioned=without,
            )
            servers = plan.servers()
            fresh = domain_plan.unused(servers, node.leases.survey()[0])
            if percent is not None:
                partitions.plan(node, plan, fresh, percent)
            work = {
                one: partial(node.mps.open, one, uuids, owner, in_use=one not in fresh)
                for one, uuids in servers.items()
            }
            results = at_once(work, node.left())
            failures = {server: error for server, error in results.items() if isinstance(error, Exception)}
            hit = [server for server, error in failures.items() if isinstance(error, ServerFaulted)]
            if hit and node.clock.monotonic() < until:
                return hit[0]
            colors = tuple(color for color in plan.colors if color not in {server.color for server in failures})
            if failures and lease.options.require is Require.STANDBY:
                raise next(iter(failures.values()))
            active = dict(plan.active)
            if not set(active.values()) <= set(colors):
                if any(server in fresh for server in failures):
                    raise next(iter(failures.values()))
                colors = _elsewhere(node, plan, colors, failures, owner)
                active = dict.fromkeys(active, colors[0])
            for error in failures.values():
                print(f"mpsr: prolog: no standby for job {lease.job}: {error}", file=sys.stderr)
            slots = partitions.slots(node, lease, gpus, colors) if percent is not None else ()
            for server in servers:
                one = replace(server, color=active[server.gpu])
                if node.leases.active(one) is None or active[server.gpu] != plan.active[server.gpu]:
                    node.leases.set_active(one)
            lease = replace(
                lease, state=LeaseState.OPEN, reason=without, isolation=kept, slots=slots, colors=colors, gpus=gpus
            )
            node.leases.make_job_dir(lease, node.rooms)
            node.leases.write(lease)
        except Exception:
            for wrong in close_unused(node, lease.domain):
                print(f"mpsr: prolog: left behind: {wrong}", file=sys.stderr)
            raise
    for server in fresh:
        if server not in failures:
            node.journal.append(DomainOpened(domain=server.domain, gpu=server.gpu, color=server.color))
    node.journal.append(
        JobOpened(
            job=lease.job,
            uid=lease.uid,
            domain=lease.domain,
            gpus=tuple(minor for minor, _ in gpus),
            colors=colors,
            isolation=kept,
            slots=tuple(slot for _, slot in slots),
            options=serialize(lease.options),
            no_partition=without,
            missing=tuple(f"g{server.gpu}/{server.color}: {error}" for server, error in failures.items()),
            late=job.late or None,
            ms=round((node.clock.monotonic() - started) * 1000, 1),
        )
    )
    return None


def _elsewhere(
    node: Node,
    plan: domain_plan.Opening,
    colors: tuple[Color, ...],
    failures: Mapping[ServerId, Exception],
    owner: ServerOwner,
) -> tuple[Color, ...]:
    """The one colour that serves all of the job's GPUs in place of an active one that cannot be joined, though others
    still use it (a script has removed its directory, or said quit to it). Raises what is wrong where there is none."""
    if node.settings.mps.compute_mode == "exclusive":
        raise next(iter(failures.values()))
    broken = {server.color for server in failures}
    for color in colors or tuple(color for color in domain_plan.PAIR if color not in broken):
        servers = plan.servers([color])
        fresh = domain_plan.unused(servers, node.leases.survey()[0])
        work = {
            one: partial(node.mps.open, one, uuids, owner, in_use=one not in fresh) for one, uuids in servers.items()
        }
        if not any(isinstance(error, Exception) for error in at_once(work, node.left()).values()):
            return (color,)
    raise next(iter(failures.values()))


def isolation(*, partition: bool = False) -> Isolation:
    """What keeps a fault from neighbours on this node now, for a job with or without an SM partition."""
    if guard.level() is Level.ON:
        return Isolation.GUARD
    return Isolation.SM if partition else Isolation.DOMAINS


def _refused(job: JobEnvironment, settings: Settings, clock: Clock) -> Lease:
    """The lease that stands until everything is open, and for good when this process does not get that far."""
    try:
        entry = pwd.getpwuid(job.uid)
        name, group = entry.pw_name, entry.pw_gid
    except KeyError:
        name, group = "", job.uid
    return Lease(
        job=job.job,
        uid=job.uid,
        gid=group if job.gid is None else job.gid,
        user=job.user or name,
        node=job.node,
        restart=job.restart,
        state=LeaseState.REFUSED,
        reason="the prolog of mpsr did not finish on this node",
        options=JobOptions(),
        domain=domain_plan.domain_key(JobOptions(), job.job, job.uid),
        isolation=Isolation.NONE,
        slots=(),
        colors=(),
        gpus=(),
        run=settings.paths.run,
        log=settings.paths.log,
        agent=agent_socket(settings, job),
        python=settings.paths.python,
        spill=settings.paths.spill,
        opened=clock.wall(),
        partition=job.partition,
    )


def _refuse(node: Node, lease: Lease, error: Exception) -> None:
    """Tell the job why in its lease, the admin in slurmd's log and in the journal."""
    reason = str(error) if isinstance(error, ResilienceError) else f"{type(error).__name__}: {error}"
    if isinstance(error, ResilienceError) and error.hint:
        reason = f"{reason} ({error.hint})"
    reason = " ".join(reason.split())[:1000]
    print(f"mpsr: prolog: job {lease.job} cannot have MPS: {reason}", file=sys.stderr)
    try:
        node.leases.write(replace(lease, state=LeaseState.REFUSED, reason=reason, slots=(), colors=(), gpus=()))
    except (ResilienceError, OSError) as wrong:
        print(f"mpsr: prolog: no lease for job {lease.job}: {wrong}", file=sys.stderr)
    node.journal.append(JobRefused(job=lease.job, uid=lease.uid, reason=reason, domain=lease.domain))
