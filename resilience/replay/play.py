"""The machine, played with a script: its timers fire when they are due, its wishes are answered as the journal has it.

What comes out is a journal of its own, entries with the script's clocks.
"""

import heapq
from dataclasses import dataclass, field, replace
from itertools import count

from resilience.machine import step
from resilience.model import effect as fx
from resilience.model import event as ev
from resilience.model import records as rec
from resilience.model.ids import Color, NodeName, TaskRef
from resilience.model.incident import Action
from resilience.model.records.journal import Entry, line, parse
from resilience.model.settings import Settings
from resilience.model.timer import Timer
from resilience.model.world import Moment, ServerState, State
from resilience.replay.script import Item, Life, Restart, Script, Shown

_ANSWER = 0.003
"""Seconds until a control daemon has answered."""
_START = 0.2
"""Seconds that a server, a standby or a new process takes where the journal does not say."""
_LEAVE = 0.1
"""Seconds until a task that was told to end has gone, where the journal has it go on."""
_NEAR = 5.0
"""Seconds within which something of the journal is the same as something played."""
_IDLE = 7200.0
"""Seconds after the last record that timers still fire; a day without records is skipped the same way."""
_PIDS = 1 << 24


@dataclass(slots=True)
class _Table:
    """What is still to come, by the monotonic clock."""

    due: list[tuple[float, int, ev.Event]] = field(default_factory=list)
    timers: dict[Timer, float] = field(default_factory=dict)
    order: "count[int]" = field(default_factory=count)

    def at(self, mono: float, event: ev.Event) -> None:
        heapq.heappush(self.due, (mono, next(self.order), event))

    def pop(self, until: float) -> tuple[float, ev.Event] | None:
        timer = min(self.timers.items(), key=lambda item: item[1], default=None)
        first = self.due[0][0] if self.due else float("inf")
        if timer is not None and timer[1] < first and timer[1] <= until:
            del self.timers[timer[0]]
            return timer[1], ev.TimerFired(timer=timer[0])
        if first <= until:
            mono, _, event = heapq.heappop(self.due)
            return mono, event
        return None


class Play:
    def __init__(self, script: Script, settings: Settings, *, recorded_mode: bool) -> None:
        """`recorded_mode`: act or observe as the journal's agent did, whatever the settings say."""
        self._script = script
        self._settings = settings
        self._recorded_mode = recorded_mode
        self._state = self._fresh("")
        self._table = _Table()
        self._lives: dict[TaskRef, Life] = {}
        self._now = Moment(wall=0.0, mono=0.0)
        self._pids = count(_PIDS)
        self.entries: list[Entry] = []

    def run(self) -> list[Entry]:
        """All of the script, and what its end still brings."""
        for item in self._script.items:
            self.feed(item)
        self.wait(_IDLE)
        return self.entries

    @property
    def state(self) -> State:
        """What the machine knows now."""
        return self._state

    @property
    def now(self) -> Moment:
        return self._now

    def feed(self, item: Item) -> None:
        """What was due before it, then the item."""
        self._until(item.mono)
        self._now = Moment(wall=item.wall, mono=item.mono)
        self._item(item)

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        end = self._now.mono + seconds
        self._until(end)
        self._now = Moment(wall=self._now.wall + end - self._now.mono, mono=end)

    def _fresh(self, mode: str) -> State:
        recovery = self._settings.recovery
        if self._recorded_mode and mode:
            recovery = replace(recovery, mode=mode)
        return State(node=NodeName(""), recovery=recovery, mps=self._settings.mps)

    def _until(self, mono: float) -> None:
        if mono < self._now.mono:  # another boot
            self._table = _Table()
            return
        while (one := self._table.pop(mono)) is not None:
            at = max(one[0], self._now.mono)
            self._now = Moment(wall=self._now.wall + at - self._now.mono, mono=at)
            self._take(one[1])

    def _item(self, item: Item) -> None:
        match item.what:
            case Restart(mode=mode):
                self._state, self._table = self._fresh(mode), _Table()
                self._keep(rec.AgentStarted(mode=self._state.recovery.mode))
            case Shown(record=record):
                self._keep(record)
            case ev.Hello() as hello:
                if item.life is None:
                    return
                life = self._lives[hello.ref] = item.life
                self._take(hello)
                if not hello.resumed and hello.ref in self._state.tasks:
                    self._start(hello.ref, life.pid, life.session)
            case ev.Exited() as exited:
                self._take(replace(exited, pid=self._current(exited.ref, exited.pid)))
            case ev.Seen(observation=seen, client=client) as sight if client is not None and client.task is not None:
                pid = self._current(client.task, client.pid)
                self._take(replace(sight, observation=replace(seen, pid=pid), client=replace(client, pid=pid)))
            case event:
                self._take(event)

    def _current(self, ref: TaskRef, pid: int) -> int:
        """The played process for one of the journal: its first one is the same, a later one is the one that runs now."""
        task, life = self._state.tasks.get(ref), self._lives.get(ref)
        if task is None or life is None or pid == life.pid or pid in (task.standby, *task.left):
            return pid
        return task.active or task.asking or pid

    def _start(self, ref: TaskRef, pid: int, session: bool) -> None:
        task = self._state.tasks[ref]
        self._take(ev.Started(ref=ref, role=ev.Role.ACTIVE, pid=pid, color=task.server.color))
        if session:
            self._take(ev.SessionOpened(ref=ref, role=ev.Role.ACTIVE, pid=pid))

    # ------------------------------------------------------------ the machine and its wishes
    def _take(self, event: ev.Event) -> None:
        self._state, effects = step(self._state, event, self._now)
        for effect in effects:
            self._answer(effect)

    def _answer(self, effect: fx.Effect) -> None:
        soon = self._now.mono
        match effect:
            case fx.WriteJournal():
                self._keep(effect.record)
            case fx.SetTimer():
                self._table.timers[effect.timer] = effect.at
            case fx.Poll():
                at = soon + _ANSWER
                down = any(start <= at < end for start, end in self._script.down.get(effect.server, ()))
                sight = ServerState.FAULT if down else ServerState.ACTIVE
                self._table.at(at, ev.ServerSeen(server=effect.server, sight=sight, asked=effect.asked))
            case fx.Open():
                self._table.at(soon + _START, ev.ServerOpened(server=effect.server, ok=True, detail=""))
            case fx.LookUpJob():
                self._table.at(soon + _ANSWER, ev.JobKnown(job=effect.job, batch=True, requeueable=True))
            case fx.Place() if effect.standby is not None and self._has_standby(effect.ref):
                self._standby(effect.ref, effect.standby.color)
            case fx.StartStandby() if self._has_standby(effect.ref):
                self._standby(effect.ref, effect.server.color)
            case fx.AskRequeue():
                self._slurm(ev.SlurmAnswered(ask=ev.Ask.REQUEUE, job=effect.job, ok=True, detail=""))
            case fx.AskDrain():
                self._slurm(ev.SlurmAnswered(ask=ev.Ask.DRAIN, job=None, ok=True, detail=""))
            case fx.AskComment():
                self._slurm(ev.SlurmAnswered(ask=ev.Ask.COMMENT, job=effect.job, ok=True, detail=""))
            case fx.Verdict():
                self._verdict(effect)
            case _:
                pass

    def _has_standby(self, ref: TaskRef) -> bool:
        life = self._lives.get(ref)
        return life is not None and life.standby and life.session

    def _standby(self, ref: TaskRef, color: Color) -> None:
        pid = next(self._pids)
        self._table.at(self._now.mono + _ANSWER, ev.Started(ref=ref, role=ev.Role.STANDBY, pid=pid, color=color))
        self._table.at(self._now.mono + _START, ev.Ready(ref=ref, pid=pid))

    def _slurm(self, answer: ev.SlurmAnswered) -> None:
        """As Slurm answered the same request then; else that it did it."""
        now = self._now.mono
        for at, said in self._script.slurm:
            if (said.ask, said.job) == (answer.ask.value, answer.job) and 0 <= at - now <= 60:
                self._table.at(at, replace(answer, ok=said.ok is True, detail=said.detail))
                return
        self._table.at(now + _START, answer)

    def _verdict(self, told: fx.Verdict) -> None:
        life = self._lives.get(told.ref)
        now = self._now.mono
        if life is None:
            return
        if told.action in (Action.FAIL, Action.REQUEUE):
            if told.action is Action.REQUEUE:
                self._table.at(now + _ANSWER, ev.Spilled(ref=told.ref, seq=0))
            if not any(said.action == told.action and abs(at - now) < _NEAR for at, said in life.verdicts):
                late = 10 * _START if told.action is Action.REQUEUE else _LEAVE
                self._table.at(now + late, ev.Gone(ref=told.ref))
            return
        if told.action is Action.NONE or told.server is None:
            return
        after, failed = self._as_then(life, told)
        if failed:
            self._table.at(now + after, ev.RungFailed(ref=told.ref, incident=told.incident, rung="", reason=failed))
            return
        pid = next(self._pids)
        if told.action is not Action.PROMOTE:
            started = ev.Started(ref=told.ref, role=ev.Role.ACTIVE, pid=pid, color=told.server.color)
            self._table.at(now + after, started)
            if told.action is not Action.RELAUNCH and life.session:
                self._table.at(now + after, ev.SessionOpened(ref=told.ref, role=ev.Role.ACTIVE, pid=pid))
        if told.action is not Action.RELAUNCH:
            self._table.at(now + after, ev.Stepped(ref=told.ref, incident=told.incident, seq=0, ms=0.0))

    def _as_then(self, life: Life, told: fx.Verdict) -> tuple[float, str]:
        """Seconds from the verdict to its result, and why it failed; as the journal has it of the same verdict."""
        near = [at for at, said in life.verdicts if said.action == told.action and abs(at - self._now.mono) < _NEAR]
        for at, result in life.back if near else ():
            if at < near[0]:
                continue
            if isinstance(result, rec.Recovered):
                return at - near[0], ""
            return at - near[0], result.reason or "it did not work"
        return _START, ""

    def _keep(self, record: rec.Record) -> None:
        found = parse(line(record, wall=self._now.wall, mono=self._now.mono))
        if found is not None:
            self.entries.append(found)
