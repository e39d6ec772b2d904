"""The heart: `step(state, event, now) -> (state, effects)`. Pure and total: every event has an answer in every state.

What it guarantees, whatever the order of events (tests/unit/test_machine_rules.py tries to break it):
  - only a task whose server was hit, or whose own process failed, gets a verdict; a requeue takes in its whole job;
  - a bystander is never failed or requeued while a faster allowed rung is open;
  - a culprit never goes on on a server that others use, and nobody is placed on the server of a culprit;
  - in a domain with SM partitions only a task that met the fault itself gets one;
  - a task gets one final verdict per incident, and within one incident its rungs only go down.
What the world must do comes out as effects, results come back as events; time comes in as `now`, timers are effects.
An event about something unknown (a task that has gone, an incident long closed, a stale timer) does nothing.

The parts, each calling only those before it: draft.py (the working copy), verdicts.py (a task is told),
jobs.py (Slurm), servers.py (health, swap, rebuild), outside.py (jobs' processes without a
supervisor), incidents.py (which one, what joins it), strikes.py (programs that fault again and again), recover.py (one task up
the ladder), decide.py (incident → who did it, who is told), sightings.py (sighting → incident), tasks.py (supervisors'
reports), replies.py (of MPS daemons and Slurm).
"""

from typing import assert_never

from resilience.machine import decide, jobs, outside, recover, replies, servers, sightings, tasks
from resilience.machine.draft import Turn
from resilience.model import event as ev
from resilience.model.effect import Effect
from resilience.model.timer import (
    AskState,
    Decide,
    LookUpAgain,
    PollState,
    ProveState,
    RebuildDue,
    RequeueAgain,
    RungDue,
    Settle,
    SpillDue,
    StandbyAgain,
    Timer,
    Unanswered,
    Window,
)
from resilience.model.world import Moment, State


def step(state: State, event: ev.Event, now: Moment) -> tuple[State, tuple[Effect, ...]]:
    """The state after `event`, and what is to be done about it, in order."""
    turn = Turn(state, now)
    _handle(turn, event)
    if isinstance(event, ev.ClientJoined | ev.ClientLeft):
        return turn.result()  # no task, server or incident is another for it, and a log can hold any number of them
    servers.sweep(turn)
    servers.reopen(turn)
    decide.settle_all(turn)
    servers.forget_jobs(turn)
    return turn.result()


def _handle(turn: Turn, event: ev.Event) -> None:
    match event:
        case ev.Hello():
            tasks.hello(turn, event)
        case ev.Started():
            tasks.started(turn, event)
        case ev.SessionOpened():
            tasks.session_opened(turn, event)
        case ev.Ready():
            tasks.ready(turn, event)
        case ev.RanksKnown():
            tasks.ranks_known(turn, event)
        case ev.Exited():
            tasks.exited(turn, event)
        case ev.Gone():
            tasks.gone(turn, event)
        case ev.OnServer():
            tasks.on_server(turn, event)
        case ev.Unsure():
            servers.daemon_gone(turn, event.server)
        case ev.Stepped():
            recover.stepped(turn, event)
        case ev.RungFailed():
            recover.rung_failed(turn, event)
        case ev.Spilled():
            jobs.parked(turn, event.ref)
        case ev.Seen():
            sightings.seen(turn, event)
        case ev.Missed():
            sightings.missed(turn, event)
        case ev.JobOpened():
            outside.opened(turn, event)
        case ev.JobClosed():
            outside.closed(turn, event)
        case ev.ClientJoined():
            servers.client_joined(turn, event)
        case ev.ClientLeft():
            servers.client_left(turn, event)
        case ev.ServerSeen():
            replies.server_seen(turn, event)
        case ev.ServerOpened():
            replies.server_opened(turn, event)
        case ev.JobKnown():
            jobs.known(turn, event)
        case ev.SlurmAnswered():
            replies.answered(turn, event)
        case ev.GuardTurned():
            servers.guard_turned(turn, event)
        case ev.Looked():
            _looked(turn, event)
        case ev.TimerFired():
            _fire(turn, event.timer)
        case _:
            assert_never(event)


def _fire(turn: Turn, timer: Timer) -> None:
    match timer:
        case Decide():
            decide.look(turn, timer.incident)
        case Window():
            pass  # every turn looks which incidents are over
        case RungDue():
            recover.look(turn, timer)
        case Settle():
            tasks.settle(turn, timer.ref, timer.pid)
        case StandbyAgain():
            tasks.restart_standby(turn, timer.ref)
        case AskState() | ProveState():
            servers.ask(turn, timer.server)
        case PollState():
            servers.poll(turn, timer.server)
        case RebuildDue():
            servers.rebuild_overdue(turn, timer.server)
        case SpillDue():
            jobs.look(turn, timer)
        case RequeueAgain():
            jobs.look_again(turn, timer)
        case Unanswered():
            replies.unanswered(turn, timer.job)
        case LookUpAgain():
            jobs.look_up(turn, timer.job)
        case _:
            assert_never(timer)


def _looked(turn: Turn, event: ev.Looked) -> None:
    stopped = bool(event.stopped)
    match event.about:
        case RungDue():
            recover.looked(turn, event.about, stopped=stopped)
        case SpillDue():
            jobs.looked(turn, event.about, stopped=stopped)
        case RequeueAgain():
            jobs.ask_again(turn, event.about, stopped=stopped)
        case _:
            assert_never(event.about)
