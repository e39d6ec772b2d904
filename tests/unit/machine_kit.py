"""For tests of the machine: a node with two servers per domain, tasks of several jobs, readable events."""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import TypeVar

from resilience.machine import step
from resilience.model import effect as fx
from resilience.model import event as ev
from resilience.model.ids import (
    Color,
    DomainKey,
    GpuMinor,
    GpuUuid,
    IncidentId,
    JobId,
    NodeName,
    ServerId,
    StepId,
    TaskId,
    TaskRef,
)
from resilience.model.lease import Devices, Isolation, Lease, LeaseState
from resilience.model.observation import Client, Observation, Source, What
from resilience.model.options import JobOptions
from resilience.model.records.told import admin_comment, log_line
from resilience.model.settings import MpsSettings, Recovery
from resilience.model.timer import Timer
from resilience.model.world import Moment, ServerState, State

DOMAIN = DomainKey("u1001")
GPU = GpuMinor(0)
UUID = GpuUuid("GPU-1d5f7a52-9f0a-4a3e-8c37-2f3f0a6a7f11")
_E = TypeVar("_E", bound=fx.Effect)


def server(color: str, domain: str = DOMAIN) -> ServerId:
    return ServerId(domain=DomainKey(domain), gpu=GPU, color=Color(color))


def ref(job: int, task: int = 0, step_id: int = 0) -> TaskRef:
    return TaskRef(job=JobId(job), step=StepId(step_id), task=TaskId(task))


def lease(
    job: int,
    *,
    colors: tuple[str, ...] = ("a", "b"),
    isolation: Isolation = Isolation.DOMAINS,
    slot: int = 0,
    gpus: Devices = ((GPU, UUID),),
    **options: object,
) -> Lease:
    return Lease(
        job=JobId(job),
        uid=1001,
        gid=1001,
        user="alice",
        node=NodeName("n0"),
        restart=0,
        state=LeaseState.OPEN,
        reason="",
        options=replace(JobOptions(mps=True), **options),  # type: ignore[arg-type]
        domain=DOMAIN,
        isolation=isolation,
        slots=((GPU, slot),) if slot else (),
        colors=tuple(Color(color) for color in colors),
        gpus=gpus,
        run="/run/mpsr",
        log="/var/log/mpsr",
        agent="/run/mpsr/n0/agent.sock",
        python="/usr/bin/python3",
        spill="",
        opened=0.0,
    )


class Node:
    """The machine with a clock of its own; `do` takes one event and keeps its effects."""

    def __init__(self, recovery: Recovery | None = None, mps: MpsSettings | None = None) -> None:
        self.state = State(node=NodeName("n0"), recovery=recovery or Recovery(), mps=mps or MpsSettings())
        self.now = 1000.0
        self.last: tuple[fx.Effect, ...] = ()
        self.log: list[fx.Effect] = []
        self.timers: dict[Timer, float] = {}
        self.stopped: set[TaskRef] = set()
        """Tasks of which a process is stopped."""

    def do(self, event: ev.Event) -> tuple[fx.Effect, ...]:
        """One event, and the looks at processes that follow from it."""
        self.state, done = step(self.state, event, Moment(wall=1.79e9 + self.now, mono=self.now))
        self.log.extend(done)
        for effect in done:
            if isinstance(effect, fx.SetTimer):
                self.timers[effect.timer] = effect.at
        for effect in done:
            if isinstance(effect, fx.Look):
                done += self.do(ev.Looked(about=effect.about, stopped=frozenset(effect.refs) & self.stopped))
        self.last = done
        return done

    def wait(self, seconds: float) -> list[fx.Effect]:
        """Let time pass and its timers fire in order."""
        end, effects = self.now + seconds, list[fx.Effect]()
        while self.timers:
            key, at = min(self.timers.items(), key=lambda item: item[1])
            if at > end:
                break
            del self.timers[key]
            self.now = max(self.now, at)
            effects += self.do(ev.TimerFired(timer=key))
        self.now = end
        return effects

    def of(self, kind: type[_E], effects: Sequence[fx.Effect] | None = None) -> list[_E]:
        return [effect for effect in (self.last if effects is None else effects) if isinstance(effect, kind)]

    def lines(self, job: int | None = None, effects: Sequence[fx.Effect] | None = None) -> list[str]:
        """What recovery logs tell, without time and incident."""
        said = self.of(fx.JobLine, self.log if effects is None else effects)
        return [log_line(one.record, one.job) for one in said if job is None or one.job == job]

    def comments(self, job: int | None = None, effects: Sequence[fx.Effect] | None = None) -> list[str]:
        """AdminComments that Slurm is asked to take."""
        asked = self.of(fx.AskComment, self.log if effects is None else effects)
        return [admin_comment(one.account) for one in asked if job is None or one.job == job]

    def verdicts(self, effects: Sequence[fx.Effect] | None = None) -> dict[TaskRef, fx.Verdict]:
        return {effect.ref: effect for effect in self.of(fx.Verdict, effects)}

    def told(self, effects: Sequence[fx.Effect] | None = None) -> dict[int, tuple[str, str, str]]:
        """job → (action, part, colour) of the verdicts."""
        return {
            one.ref.job: (one.action.value, one.part.value, one.server.color if one.server else "")
            for one in self.verdicts(effects).values()
        }

    def journal(self, name: str) -> list[dict[str, object]]:
        """The records of an event, as JSON; what was not said is None."""
        records = [one.record for one in self.log if isinstance(one, fx.WriteJournal) and name == one.record.EVENT]
        return [dict.fromkeys(item.name for item in fields(record)) | record.json() for record in records]

    # ------------------------------------------------------------ a task's life
    def task(
        self,
        job: int,
        task: int = 0,
        *,
        step: int = 0,
        session: bool = True,
        ready: bool = True,
        mpi: bool = False,
        retries: int = 0,
        batch: bool | None = True,
        colors: tuple[str, ...] = ("a", "b"),
        isolation: Isolation = Isolation.DOMAINS,
        slot: int = 0,
        gpus: Devices = ((GPU, UUID),),
        **options: object,
    ) -> TaskRef:
        """A task that runs: pid is 1000·job + 100·step + 10·task, its standby's one more."""
        who = ref(job, task, step)
        self.do(
            ev.Hello(
                ref=who,
                lease=lease(job, colors=colors, isolation=isolation, slot=slot, gpus=gpus, **options),
                server=server("a"),
                mpi=mpi,
                resumed=False,
                retries=retries,
                active=0,
                session=False,
            )
        )
        (placed,) = self.of(fx.Place)
        if batch is not None:
            self.do(ev.JobKnown(job=JobId(job), batch=batch, requeueable=True))
        self.do(ev.Started(ref=who, role=ev.Role.ACTIVE, pid=pid(who), color=placed.server.color))
        if session:
            self.do(ev.SessionOpened(ref=who, role=ev.Role.ACTIVE, pid=pid(who)))
        if session and ready and placed.standby is not None:
            self.standby(who, placed.standby.color)
        return who

    def standby(self, who: TaskRef, color: str, number: int = 1) -> None:
        self.do(ev.Started(ref=who, role=ev.Role.STANDBY, pid=pid(who) + number, color=Color(color)))
        self.do(ev.Ready(ref=who, pid=pid(who) + number))

    # ------------------------------------------------------------ sightings
    def see(
        self,
        what: What,
        *,
        source: Source = Source.SERVER_LOG,
        color: str | None = None,
        client: Client | None = None,
        gpu: GpuMinor = GPU,
        **fields: object,
    ) -> tuple[fx.Effect, ...]:
        return self.do(
            ev.Seen(
                observation=Observation(
                    source=source,
                    what=what,
                    text=what.value,
                    wall=1.79e9 + self.now,
                    mono=self.now,
                    boot_id="boot",
                    gpu=gpu,
                    server=server(color) if color else None,
                    pid=client.pid if client else None,
                    **fields,  # type: ignore[arg-type]
                ),
                client=client,
            )
        )

    def culprit(self, who: TaskRef, color: str = "a") -> tuple[fx.Effect, ...]:
        """The server's log names a task's process."""
        return self.see(What.CULPRIT, color=color, client=client(who))

    def handling(self, color: str = "a") -> tuple[fx.Effect, ...]:
        return self.see(What.HANDLING, color=color)

    def cuda(self, who: TaskRef, code: int = 700, number: int = 0) -> tuple[fx.Effect, ...]:
        return self.see(What.CUDA, source=Source.CLIENT, client=client(who, number), cuda=code)

    def xid(self, number: int, who: TaskRef | None = None, **fields: object) -> tuple[fx.Effect, ...]:
        return self.see(What.XID, source=Source.KMSG, client=client(who) if who else None, xid=number, **fields)  # type: ignore[arg-type]

    def exit(
        self, who: TaskRef, status: int = 256, number: int = 0, role: ev.Role = ev.Role.ACTIVE
    ) -> tuple[fx.Effect, ...]:
        return self.do(ev.Exited(ref=who, role=role, pid=pid(who) + number, status=status))

    def sight(self, color: str, sight: ServerState) -> tuple[fx.Effect, ...]:
        return self.do(ev.ServerSeen(server=server(color), sight=sight, asked=self.now))

    def rebuilt(self, color: str) -> list[fx.Effect]:
        """The server goes through its fault state and takes clients again."""
        effects = list(self.sight(color, ServerState.FAULT))
        return effects + list(self.sight(color, ServerState.ACTIVE))


def pid(who: TaskRef) -> int:
    return 1000 * who.job + 100 * who.step % 1000 + 10 * who.task


def client(who: TaskRef, number: int = 0) -> Client:
    return Client(pid=pid(who) + number, task=who, job=who.job)


def newest_incident(node: Node) -> IncidentId:
    return list(node.state.incidents)[-1]
