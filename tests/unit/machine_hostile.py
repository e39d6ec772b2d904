"""A hostile node for the machine, which hypothesis plays under an onlooker's eyes.

Tasks come and go, every source says anything at any time, servers open or fail, timers fire early or late.
"""

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from resilience.model import event as ev
from resilience.model.ids import Color, IncidentId, JobId, TaskRef
from resilience.model.lease import Isolation
from resilience.model.observation import Client, Source, What
from resilience.model.options import OnCulprit, Rung
from resilience.model.world import ServerState
from tests.unit.machine_kit import lease, ref, server
from tests.unit.machine_onlooker import Known, Onlooker


class Hostile(Onlooker):
    """Events in any order; the rules after each."""

    @rule(
        job=st.integers(1, 4),
        number=st.integers(0, 1),
        session=st.booleans(),
        mpi=st.sampled_from([False, False, False, True]),
        batch=st.booleans(),
        retries=st.integers(0, 3),
        recover_by=st.sampled_from([tuple(Rung), (Rung.RELAUNCH, Rung.REQUEUE), (Rung.STANDBY,), (Rung.RESTORE,)]),
        on_culprit=st.sampled_from(OnCulprit),
        colors=st.sampled_from([("a", "b"), ("a", "b"), ("a",)]),
    )
    def join(
        self,
        job: int,
        number: int,
        session: bool,
        mpi: bool,
        batch: bool,
        retries: int,
        recover_by: tuple[Rung, ...],
        on_culprit: OnCulprit,
        colors: tuple[str, ...],
    ) -> None:
        who = ref(job, number)
        if who in self.tasks:
            return
        mates = [known for other, known in self.tasks.items() if other.job == job]
        batch = mates[0].batch if mates else batch
        isolation, slot = (Isolation.SM, job) if self.cut else (Isolation.DOMAINS, 0)
        given = lease(job, colors=colors, isolation=isolation, slot=slot, recover=recover_by, on_culprit=on_culprit)
        known = Known(options=given.options, mpi=mpi, batch=batch, server=server("a"), retries=retries)
        self.tasks[who] = known
        hello = ev.Hello(
            ref=who, lease=given, server=server("a"), mpi=mpi, resumed=False, retries=retries, active=0, session=False
        )
        self.event(hello)
        self.event(ev.JobKnown(job=JobId(job), batch=batch, requeueable=True))
        if session and not known.over:
            self.begin(who)

    def begin(self, who: TaskRef) -> None:
        known = self.tasks[who]
        self.pids += 1
        known.active, known.session, known.ended = self.pids, True, False
        self.event(ev.Started(ref=who, role=ev.Role.ACTIVE, pid=known.active, color=known.server.color))
        self.event(ev.SessionOpened(ref=who, role=ev.Role.ACTIVE, pid=known.active))

    @precondition(lambda self: self.tasks)
    @rule(data=st.data())
    def started(self, data: st.DataObject) -> None:
        who = self.pick(data)
        known = self.tasks[who]
        self.pids += 1
        known.active, known.ended = self.pids, False
        self.event(ev.Started(ref=who, role=ev.Role.ACTIVE, pid=known.active, color=known.server.color))

    @precondition(lambda self: self.tasks)
    @rule(data=st.data(), mpi=st.booleans())
    def ranks(self, data: st.DataObject, mpi: bool) -> None:
        who = self.pick(data)
        known = self.tasks[who]
        if mpi and not known.mpi:
            known.standby, known.standby_server, known.ready = 0, None, False
        known.mpi = mpi
        self.event(ev.RanksKnown(ref=who, mpi=mpi))

    @precondition(lambda self: self.tasks)
    @rule(data=st.data(), color=st.sampled_from(["a", "b"]))
    def standby(self, data: st.DataObject, color: str) -> None:
        who = self.pick(data)
        known = self.tasks[who]
        if known.server.color == color or known.standby or known.over or not known.session:
            return
        self.pids += 1
        known.standby, known.standby_server = self.pids, server(color)
        self.event(ev.Started(ref=who, role=ev.Role.STANDBY, pid=known.standby, color=Color(color)))
        known.ready = server(color) not in self.hit | self.down
        self.event(ev.Ready(ref=who, pid=known.standby))

    @precondition(lambda self: self.tasks)
    @rule(
        data=st.data(),
        what=st.sampled_from([What.CULPRIT, What.HANDLING, What.SERVER_GONE, What.RECREATING, What.DAEMON_GONE]),
        named=st.booleans(),
    )
    def server_log(self, data: st.DataObject, what: What, named: bool) -> None:
        who = self.pick(data)
        near = self.tasks[who].server
        if what is What.SERVER_GONE or (what in (What.HANDLING, What.CULPRIT) and not self.cut):
            self.struck(near)
        if what is What.DAEMON_GONE:
            self.gone.add(near)
        client = Client(pid=self.tasks[who].active or 1, task=who, job=who.job) if named else None
        self.see(what, near, Source.SERVER_LOG, client)

    @precondition(lambda self: self.tasks)
    @rule(data=st.data(), code=st.sampled_from([700, 719, 716, 806, 226, 810, 12345]))
    def report(self, data: st.DataObject, code: int) -> None:
        who = self.pick(data)
        known = self.tasks[who]
        known.failed = True
        self.see(What.CUDA, None, Source.CLIENT, Client(pid=known.active, task=who, job=who.job), cuda=code)

    @rule(data=st.data(), number=st.sampled_from([31, 13, 45, 94, 109, 43, 99999]), named=st.booleans())
    def xid(self, data: st.DataObject, number: int, named: bool) -> None:
        client = None
        if named and self.tasks:
            who = self.pick(data)
            client = Client(pid=self.tasks[who].active, task=who, job=who.job)
        self.see(What.XID, None, Source.KMSG, client, xid=number)

    @precondition(lambda self: not self.broken and len(self.tasks) > 2)
    @rule(
        number=st.sampled_from([79, 95]), source=st.sampled_from([Source.KMSG, Source.NVML]), really=st.integers(0, 4)
    )
    def break_gpu(self, number: int, source: Source, really: int) -> None:
        if really:
            return  # seldom: little happens afterwards
        self.broken = True
        self.see(What.XID, None, source, None, xid=number)

    @precondition(lambda self: self.tasks)
    @rule(data=st.data(), status=st.sampled_from([0, 9, 256]), old=st.booleans())
    def exit(self, data: st.DataObject, status: int, old: bool) -> None:
        who = self.pick(data)
        known = self.tasks[who]
        if old and known.left:
            self.event(ev.Exited(ref=who, role=ev.Role.ACTIVE, pid=known.left[-1], status=status))
        if old or known.ended:
            return
        known.ended, known.failed = True, known.failed or status != 0
        self.event(ev.Exited(ref=who, role=ev.Role.ACTIVE, pid=known.active, status=status))
        known.over = known.over or status == 0

    @precondition(lambda self: self.tasks)
    @rule(data=st.data())
    def standby_ends(self, data: st.DataObject) -> None:
        who = self.pick(data)
        known = self.tasks[who]
        if known.standby:
            pid, known.standby, known.standby_server, known.ready = known.standby, 0, None, False
            self.event(ev.Exited(ref=who, role=ev.Role.STANDBY, pid=pid, status=9))

    @precondition(lambda self: self.tasks)
    @rule(data=st.data(), fails=st.booleans(), right=st.booleans())
    def answer(self, data: st.DataObject, fails: bool, right: bool) -> None:
        who = self.pick(data)
        told = self.tasks[who].told
        name = IncidentId(list(told)[-1] if told and right else "nonsense")
        if fails:
            self.event(ev.RungFailed(ref=who, incident=name, rung="x", reason="tried"))
        else:
            self.event(ev.Stepped(ref=who, incident=name, seq=1, ms=1.0))

    @precondition(lambda self: self.tasks)
    @rule(data=st.data())
    def spill(self, data: st.DataObject) -> None:
        self.event(ev.Spilled(ref=self.pick(data), seq=1))

    @rule(color=st.sampled_from(["a", "b", "q1"]), sight=st.sampled_from(ServerState), late=st.booleans())
    def state_seen(self, color: str, sight: ServerState, late: bool) -> None:
        if sight is ServerState.FAULT:
            self.struck(server(color))
        asked = self.node.now - (1.0 if late else 0.0)
        self.event(ev.ServerSeen(server=server(color), sight=sight, asked=asked))

    @precondition(lambda self: self.opening)
    @rule(ok=st.booleans())
    def opened(self, ok: bool) -> None:
        one = self.opening.pop(0)
        (self.down.discard if ok else self.down.add)(one)
        self.event(ev.ServerOpened(server=one, ok=ok, detail="" if ok else "no"))

    @rule(job=st.integers(1, 4), ok=st.booleans(), away=st.booleans())
    def slurm(self, job: int, ok: bool, away: bool) -> None:
        if not ok:
            self.refused.add(JobId(job))
        answer = ev.SlurmAnswered(ask=ev.Ask.REQUEUE, job=JobId(job), ok=ok, detail="because", away=away and not ok)
        self.event(answer)

    @precondition(lambda self: self.tasks)
    @rule(data=st.data())
    def stop_or_go_on(self, data: st.DataObject) -> None:
        self.node.stopped ^= {self.pick(data)}

    @rule(seconds=st.sampled_from([0.001, 0.05, 0.2, 3.0, 40.0]))
    def time_passes(self, seconds: float) -> None:
        end = self.node.now + seconds
        timers = self.node.timers
        for _ in range(25):
            key = min(timers, key=lambda name: timers[name], default=None)
            if key is None or timers[key] > end:
                break
            self.node.now = max(self.node.now, timers.pop(key))
            self.event(ev.TimerFired(timer=key))
        self.node.now = end

    @precondition(lambda self: self.tasks)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        who = self.pick(data)
        del self.tasks[who]
        self.culprits.pop(who, None)
        self.event(ev.Gone(ref=who))
        if not any(other.job == who.job for other in self.tasks):
            self.requeued.discard(who.job)
            self.refused.discard(who.job)
        if not self.tasks:
            self.hit.clear()
            self.down.clear()
            self.gone.clear()
            self.broken = False

    def pick(self, data: st.DataObject) -> TaskRef:
        return data.draw(st.sampled_from(sorted(self.tasks)))


class Partitioned(Hostile):
    """The same in a domain with SM partitions."""

    cut = True
