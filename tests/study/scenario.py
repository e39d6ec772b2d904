"""One scenario: clients that share a GPU, one of which makes it fault again and again, until it has gone or is alone."""

from dataclasses import dataclass, field, replace
from random import Random

from resilience.model import event as ev
from resilience.model import records as rec
from resilience.model.ids import Color, DomainKey, GpuMinor, GpuUuid, JobId, NodeName, ServerId, StepId, TaskId, TaskRef
from resilience.model.lease import Isolation, Lease, LeaseState
from resilience.model.observation import Client, Observation, Source, What
from resilience.model.options import JobOptions
from resilience.model.settings import Recovery, Settings
from resilience.replay.play import Play
from resilience.replay.script import Item, Life, Restart, Script

GPU = GpuMinor(0)
DOMAIN = DomainKey("u1001")
HOUR = 3600.0
_REBUILD = 1.1
"""Seconds that a server takes clients no more after a fault: NVIDIA's example."""
_SETTLED = 5.0
"""Seconds after which recoveries are over."""
_WALL = 1_790_000_000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceKind:
    """How likely each thing is at a fault."""

    log: float = 0.0
    """The server's log names the culprit's process."""
    xid: float = 0.0
    """The kernel log names it."""
    wrong: float = 0.0
    """The kernel log names another client."""
    deaf: float = 0.0
    """A client that is hit ends without a word of the fault."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    clients: int
    evidence: EvidenceKind
    gap: float
    """Mean seconds between two faults of the culprit, exponentially distributed."""
    retries: int = 3
    """--mps-retries of every job."""
    churn: float = 0.0
    """How likely each bystander has left, and a new job has come, before the next fault."""
    faults: int = 16
    """The scenario ends after so many."""


@dataclass(slots=True)
class ScenarioEnd:
    faults: int = 0
    alone_at: int | None = None
    """The fault at which nobody but the culprit was hit, or at which it was named."""
    named: list[bool] = field(default_factory=list)
    """Each name that was said: whether it was the culprit's."""
    hurt: dict[TaskRef, int] = field(default_factory=dict)
    """Bystanders: how often each was hit."""

    @property
    def twice(self) -> int:
        return sum(count > 1 for count in self.hurt.values())


def play(setting: Setting, seed: int) -> ScenarioEnd:
    random, script = Random(seed), Script()
    node = Play(script, Settings(recovery=Recovery(max_requeues_per_hour=1000)), recorded_mode=False)
    refs = [TaskRef(job=JobId(number + 1), step=StepId(0), task=TaskId(0)) for number in range(setting.clients)]
    culprit = random.choice(refs)
    now = 1000.0
    _feed(node, now, Restart(mode="act"))
    for ref in refs:
        _feed(node, now, _hello(ref, setting), _life(ref))
    ending, newest = ScenarioEnd(), setting.clients
    for _ in range(setting.faults):
        now += _SETTLED + random.expovariate(1 / setting.gap)
        node.wait(now - 1 - node.now.mono)
        task = node.state.tasks.get(culprit)
        if task is None or task.over:
            break
        if ending.faults:
            newest = _churn(node, culprit, setting, newest, random)
        task = node.state.tasks[culprit]
        ending.faults += 1
        hit = [ref for ref, one in node.state.tasks.items() if one.server == task.server and not one.over]
        for ref in hit:
            if ref != culprit:
                ending.hurt[ref] = ending.hurt.get(ref, 0) + 1
        _fault(node, script, now, task.server, culprit, hit, setting.evidence, random)
        node.wait(_SETTLED - 1)
        said = _names(node)
        ending.named += [name == culprit for name in said]
        if ending.alone_at is None and (hit == [culprit] or culprit in said):
            ending.alone_at = ending.faults
    return ending


def _churn(node: Play, culprit: TaskRef, setting: Setting, newest: int, random: Random) -> int:
    """Some bystanders leave, and as many jobs come. Gives the newest job's number."""
    for ref in sorted(node.state.tasks):
        if ref != culprit and random.random() < setting.churn:
            newest += 1
            new = TaskRef(job=JobId(newest), step=ref.step, task=ref.task)
            _feed(node, node.now.mono, ev.Gone(ref=ref))
            _feed(node, node.now.mono, _hello(new, setting), _life(new))
    return newest


def _life(ref: TaskRef) -> Life:
    return Life(ref=ref, pid=1000 + ref.job, session=True, standby=True)


def _names(node: Play) -> list[TaskRef]:
    """Who was named since this was last asked."""
    found = [
        entry.record.culprit.task
        for entry in node.entries
        if isinstance(entry.record, rec.IncidentAttributed) and entry.record.culprit is not None
    ]
    node.entries.clear()
    return [name for name in found if name is not None]


def _fault(
    node: Play, script: Script, at: float, server: ServerId, culprit: TaskRef, hit: list[TaskRef], says: EvidenceKind,
    random: Random,
) -> None:  # fmt: skip
    """What the node's sources say of one fault, in the order and with the delays of the simulated GPU."""
    script.down.setdefault(server, []).append((at + 0.005, at + _REBUILD))
    others = [ref for ref in hit if ref != culprit]
    events: list[tuple[float, ev.Event]] = []
    wrong = bool(others) and random.random() < says.wrong
    named = random.choice(others) if wrong else culprit if random.random() < says.xid else None
    events.append((0.0, _seen(node, Source.KMSG, What.XID, None, named, xid=31)))
    for ref in hit:
        late = random.uniform(0.001, 0.02)
        if random.random() < says.deaf:
            pid = node.state.tasks[ref].active
            events.append((late, ev.Exited(ref=ref, role=ev.Role.ACTIVE, pid=pid, status=256)))
        else:
            events.append((late, _seen(node, Source.CLIENT, What.CUDA, server, ref, cuda=700)))
    if random.random() < says.log:
        events.append((random.uniform(0.005, 0.03), _seen(node, Source.SERVER_LOG, What.CULPRIT, server, culprit)))
    events.append((random.uniform(0.006, 0.04), _seen(node, Source.SERVER_LOG, What.HANDLING, server, None)))
    for late, event in sorted(events, key=lambda one: one[0]):
        _feed(node, at + late, event)


def _feed(node: Play, at: float, what: ev.Event | Restart, life: Life | None = None) -> None:
    node.feed(Item(wall=_WALL + at, mono=at, what=what, life=life))


def _seen(
    node: Play, source: Source, what: What, server: ServerId | None, ref: TaskRef | None, xid: int = 0, cuda: int = 0
) -> ev.Event:
    pid = node.state.tasks[ref].active if ref is not None else 0
    client = Client(pid=pid, task=ref, job=ref.job) if ref is not None else None
    seen = Observation(
        source=source, what=what, text="", wall=0.0, mono=0.0, boot_id="", gpu=GPU, server=server, pid=pid or None,
        xid=xid, cuda=cuda,
    )  # fmt: skip
    return ev.Seen(observation=seen, client=client)


def _hello(ref: TaskRef, setting: Setting) -> ev.Event:
    lease = Lease(
        job=ref.job,
        uid=1001,
        gid=1001,
        user="alice",
        node=NodeName("n0"),
        restart=0,
        state=LeaseState.OPEN,
        reason="",
        options=replace(JobOptions(mps=True), retries=setting.retries),
        domain=DOMAIN,
        isolation=Isolation.DOMAINS,
        slots=(),
        colors=(Color("a"), Color("b")),
        gpus=((GPU, GpuUuid("GPU-simulated")),),
        run="",
        log="",
        agent="",
        python="",
        spill="",
        opened=0.0,
    )
    server = ServerId(domain=DOMAIN, gpu=GPU, color=Color("a"))
    return ev.Hello(ref=ref, lease=lease, server=server, mpi=False, resumed=False, retries=0, active=0, session=False)
