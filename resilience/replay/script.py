"""From a journal's entries to what happened, in order: the machine's events as far as they do not follow from its own decisions."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from resilience.model import event as ev
from resilience.model import records as rec
from resilience.model.errors import ConfigError
from resilience.model.ids import Color, DomainKey, GpuMinor, GpuUuid, JobId, NodeName, ServerId, TaskRef
from resilience.model.incident import Action
from resilience.model.lease import Isolation, Lease, LeaseState
from resilience.model.observation import Client, Observation, Source, What
from resilience.model.options import JobOptions
from resilience.model.records.journal import Entry
from resilience.parse import options as option_parser
from resilience.parse import xid

_STRANGE = 1 << 23
"""Process ids from here on are ours: Linux has none above 2^22."""
_BACK = 60.0
"""Seconds after which a server takes clients again whose return the journal does not have."""
_DIGITS = 6
"""Of a CUDA error's number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restart:
    """The agent started: all that the machine knew is gone."""

    mode: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A record of the hooks: it changes nothing here, and belongs into the played journal."""

    record: rec.Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    wall: float
    mono: float
    what: ev.Event | Restart | Shown
    life: "Life | None" = None
    """Of a hello: the task that begins."""


@dataclass(slots=True)
class Life:
    """A task from its supervisor's hello on, as the journal has it."""

    ref: TaskRef
    pid: int = 0
    """Its first active process."""
    session: bool = False
    standby: bool = False
    """It had one that was ready."""
    verdicts: list[tuple[float, rec.Verdict]] = field(default_factory=list)
    back: list[tuple[float, rec.Recovered | rec.RecoveryFailed]] = field(default_factory=list)


@dataclass(slots=True)
class Script:
    items: list[Item] = field(default_factory=list)
    down: dict[ServerId, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    """When each server took no clients."""
    slurm: list[tuple[float, rec.SlurmOutcome]] = field(default_factory=list)
    guessed: int = 0
    """Jobs whose options the journal does not have."""


def write(entries: Iterable[Entry], defaults: JobOptions) -> Script:
    """`defaults`: what a job is taken to have asked for where the journal does not say."""
    every = [entry for entry in entries if entry.mono is not None]
    made, lives, now = Script(), _lives(every), dict[TaskRef, Life]()
    leases: dict[JobId, Lease] = {}
    for place, entry in enumerate(every):
        wall, mono = entry.wall, entry.mono or 0.0
        what: list[ev.Event | Restart | Shown] = []
        match entry.record:
            case rec.AgentStarted() as started:
                what.append(Restart(mode=started.mode))
            case rec.JobOpened() as opened if opened.job is not None:
                leases[opened.job] = lease = _lease(opened, defaults)
                made.guessed += not opened.options
                what.append(Shown(record=replace(opened, options=option_parser.serialize(lease.options))))
            case rec.JobClosed() as closed:
                what.append(Shown(record=closed))
            case rec.TaskHello() as hello if hello.task is not None and hello.server is not None:
                now[hello.task] = lives[place]
                what += _hello(hello, lives[place], leases.get(hello.task.job))
            case rec.TaskExit() as exit if exit.task is not None:
                what += _exit(exit, now.get(exit.task), mono)
            case rec.TaskGone() as gone if gone.task is not None:
                what.append(ev.Gone(ref=gone.task))
            case rec.Sighting() as seen:
                what += _seen(seen, wall, mono)
            case rec.SlurmOutcome() as outcome:
                made.slurm.append((mono, outcome))
            case rec.ServerUnavailable() as lost if lost.server is not None:
                made.down[lost.server].append((mono, mono + _BACK))
            case rec.ServerRebuilt() | rec.ServerReplaced() as back if back.server is not None:
                _back(made, back.server, mono)
            case rec.DomainOpened() | rec.DomainClosed() as domain if domain.gpu is not None:
                key, gpu, color = DomainKey(domain.domain), GpuMinor(domain.gpu), Color(domain.color)
                _back(made, ServerId(domain=key, gpu=gpu, color=color), mono)
                what.append(Shown(record=domain))
            case _:
                pass
        made.items += [Item(wall=wall, mono=mono, what=one, life=lives.get(place)) for one in what]
    return made


def _back(made: Script, server: ServerId, mono: float) -> None:
    """The server takes clients again, or there is another in its place."""
    if spans := made.down.get(server):
        start, end = spans[-1]
        spans[-1] = start, min(end, mono)


def _lives(every: list[Entry]) -> dict[int, Life]:
    """Each hello's place → all that the journal says of that task until the next hello of its name."""
    made: dict[int, Life] = {}
    now: dict[TaskRef, Life] = {}
    for place, entry in enumerate(every):
        record, mono = entry.record, entry.mono or 0.0
        match record:
            case rec.TaskHello() if record.task is not None:
                made[place] = now[record.task] = Life(ref=record.task, pid=_STRANGE + 4 * place)
            case rec.Sighting() if record.who is not None and record.who.task in now:
                _first(now[record.who.task], record.pid)
            case rec.TaskExit() if record.task in now:
                if record.role == "standby":
                    now[record.task].standby = True
                else:
                    _first(now[record.task], record.pid)
            case rec.Verdict() if record.task in now:
                life = now[record.task]
                life.verdicts.append((mono, record))
                life.session = life.session or record.action in (Action.PROMOTE, Action.RESTORE)
                life.standby = life.standby or record.action == Action.PROMOTE
            case rec.Recovered() | rec.RecoveryFailed() if record.task in now:
                life = now[record.task]
                life.back.append((mono, record))
                kept = isinstance(record, rec.Recovered) and record.seq is not None and record.seq >= 0
                life.session = life.session or kept
            case _:
                pass
    return made


def _first(life: Life, pid: int | None) -> None:
    if pid and life.pid >= _STRANGE:
        life.pid = pid


def _lease(opened: rec.JobOpened, defaults: JobOptions) -> Lease:
    try:
        options = option_parser.parse(opened.options) if opened.options else defaults
    except ConfigError:  # of another version
        options = defaults
    known = [level for level in Isolation if level.value == opened.isolation]
    gpus = [GpuMinor(minor) for minor in opened.gpus]
    return Lease(
        job=JobId(opened.job or 0),
        uid=opened.uid or 0,
        gid=opened.uid or 0,
        user=str(opened.uid or 0),
        node=NodeName(""),
        restart=0,
        state=LeaseState.OPEN,
        reason="",
        options=options,
        domain=DomainKey(opened.domain),
        isolation=known[0] if known else Isolation.DOMAINS,
        slots=tuple(zip(gpus, opened.slots, strict=False)),
        colors=tuple(map(Color, opened.colors)),
        gpus=tuple((minor, GpuUuid(f"GPU {minor}")) for minor in gpus),
        run="",
        log="",
        agent="",
        python="",
        spill="",
        opened=0.0,
    )


def _hello(hello: rec.TaskHello, life: Life, lease: Lease | None) -> Iterator[ev.Event]:
    server = hello.server
    if lease is None or server is None or server.gpu not in dict(lease.gpus):
        return
    resumed = hello.resumed is True
    active = life.pid if resumed else 0
    yield ev.Hello(
        ref=life.ref, lease=lease, server=server, mpi=hello.mpi is True, resumed=resumed, retries=0, active=active,
        session=resumed and life.session,
    )  # fmt: skip


def _exit(record: rec.TaskExit, life: Life | None, mono: float) -> Iterator[ev.Event]:
    if life is None or record.pid is None or record.status is None:
        return
    role = ev.Role.STANDBY if record.role == "standby" else ev.Role.ACTIVE
    unanswered = not any(at >= mono or said.action == Action.FAIL for at, said in life.verdicts)
    told = record.status != 0 and role is ev.Role.ACTIVE and unanswered
    yield ev.Exited(ref=life.ref, role=role, pid=record.pid, status=record.status, told=told)


def _seen(seen: rec.Sighting, wall: float, mono: float) -> Iterator[ev.Event]:
    try:
        source, what = Source(seen.source), What(seen.what)
    except ValueError:  # the guard's level, a lease that cannot be read, a word of another version
        return
    line = xid.parse_line(seen.text) if what is What.XID and source is Source.KMSG else None
    number = line.xid if isinstance(line, xid.XidLine) else _number(seen.text, "Xid ") if what is What.XID else 0
    client = seen.who and Client(pid=seen.pid or seen.who.pid, task=seen.who.task, job=seen.who.job)
    yield ev.Seen(
        observation=Observation(
            source=source,
            what=what,
            text=seen.text,
            wall=wall if seen.at is None else seen.at,
            mono=mono if seen.at_mono is None else seen.at_mono,
            boot_id=seen.boot,
            gpu=None if seen.gpu is None else GpuMinor(seen.gpu),
            server=seen.server,
            pid=seen.pid,
            xid=number,
            cuda=_number(seen.text, "CUDA ") if what is What.CUDA else 0,
            recovery=line.recovery if isinstance(line, xid.XidLine) else None,
        ),
        client=client,
    )


def _number(text: str, after: str) -> int:
    """The number that follows a word; 0 when none does."""
    word = text.partition(after)[2].split(" ")[0]
    return int(word) if word.isascii() and word.isdigit() and len(word) <= _DIGITS else 0
