"""Faults that came and went while no agent was there, from the past lines of the servers' logs.

A server recovers by itself within seconds. An agent that is started then finds it ACTIVE, and only the log says why programs
have failed. So lines of the last minute that an agent has not written down as seen are kept for a while, and handed over
with the first failure of a task that was here before.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime

from resilience.agent.clients import Clients
from resilience.model import event as ev
from resilience.model import records as rec
from resilience.model.ids import ServerId, TaskRef
from resilience.model.mpslog import LogKind, LogLine
from resilience.model.observation import Client, Observation, Source, What
from resilience.model.records.journal import Entry
from resilience.model.world import State
from resilience.ports import Clock, ServerLine

_SIGHTS = {LogKind.CULPRIT: What.CULPRIT, LogKind.HANDLING: What.HANDLING}
"""A server that has ended is seen when it is asked."""
_BEFORE = 60.0
"""Seconds before the agent's start from which lines count: no supervisor waits longer for an agent."""
_KEPT = 64
"""Lines of one server, the first."""


class MissedFaults:
    """`keep`: seconds from the agent's start in which programs find out about such a fault."""

    def __init__(self, clients: Clients, clock: Clock, keep: float) -> None:
        self._clients = clients
        self._clock = clock
        self._lines: dict[ServerId, list[Observation]] = {}
        self._known: dict[tuple[ServerId, str], float] = {}
        self._since = clock.wall() - _BEFORE
        self._until = clock.monotonic() + keep

    def recall(self, entries: Iterable[Entry]) -> None:
        """What the agents before this one have seen."""
        for entry in entries:
            seen = entry.record
            if isinstance(seen, rec.Sighting) and seen.server is not None and seen.at is not None:
                self._known[seen.server, seen.text] = seen.at

    def past(self, line: ServerLine, parsed: LogLine) -> None:
        """A line from before a log was followed."""
        if (what := _SIGHTS.get(parsed.kind)) is None or line.control:
            return
        wall = _wall(parsed.stamp)
        if wall < self._since or self._known.get((line.server, parsed.text), 0.0) >= wall:
            return
        kept = self._lines.setdefault(line.server, [])
        if len(kept) < _KEPT:
            kept.append(
                Observation(
                    source=Source.SERVER_LOG,
                    what=what,
                    text=parsed.text,
                    wall=wall,
                    mono=self._clock.monotonic() - (self._clock.wall() - wall),
                    boot_id=self._clock.boot_id(),
                    gpu=line.server.gpu,
                    server=line.server,
                    pid=parsed.pid or None,
                )
            )

    def before(self, event: ev.Event, state: State) -> Iterator[ev.Event]:
        """What has to be known before the machine hears of a failure. Whose the named processes are may be known only now."""
        task = state.tasks.get(ref) if (ref := _failing(event)) is not None else None
        if task is None or not task.resumed or self._clock.monotonic() > self._until:
            return
        lines = self._lines.get(task.server, ())
        if lines:
            mine = (
                {event.pid: Client(pid=event.pid, task=task.ref, job=task.ref.job)}
                if isinstance(event, ev.Exited)
                else {}
            )
            named = (mine.get(line.pid or 0) or self._clients.user_of(task.server, line.pid, state) for line in lines)
            yield ev.Missed(ref=task.ref, seen=tuple(zip(lines, named, strict=True)))


def _failing(event: ev.Event) -> TaskRef | None:
    """The task whose process has failed or met a fault."""
    match event:
        case ev.Exited(role=ev.Role.ACTIVE, told=False, ours=False) if event.status:
            return event.ref
        case ev.Seen() if event.observation.what is What.CUDA and event.client is not None:
            return event.client.task
        case _:
            return None


def _wall(stamp: str) -> float:
    """Seconds since the epoch; 0 for a date that does not exist."""
    try:
        return datetime.strptime(stamp, "%Y-%m-%d %H:%M:%S.%f").timestamp()
    except (ValueError, OverflowError, OSError):
        return 0.0
