"""Jobs' recovery logs: lines for people, and records for programs beside them, written by the jobs' own supervisors.

Where a log lies is known when Slurm has said where the job's output is; until then a bounded number of lines is held.
A line is cut so that its packet always fits, whatever a user's program has put into it; a record that is too long is left
out.
"""

import os
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime

from resilience.agent.peers import Peers
from resilience.model.ids import JobId, NodeName
from resilience.model.records import Record, journal
from resilience.model.records.told import for_job, log_line
from resilience.model.records.words import printable
from resilience.parse import recovery_log
from resilience.parse.packet import cut, encode
from resilience.ports import Clock, JobInfo

_LINE = 800
"""Characters of a line."""
_TEXT = 2400
"""Bytes of a line on the wire."""
_PATH_MAX = 4096
"""limits.h: bytes of the longest path that the kernel opens, with its NUL."""
_HELD = 200
"""Lines of one job that wait."""


@dataclass(slots=True)
class _Log:
    places: tuple[str, ...] = ()
    """Where it may lie: the supervisor takes the first that it can write."""
    held: deque[tuple[str, str]] = field(default_factory=lambda: deque(maxlen=_HELD))
    """Lines, and the records that they tell of."""


class JobLogs:
    def __init__(self, node: NodeName, clock: Clock, peers: Peers) -> None:
        self._node = node
        self._clock = clock
        self._peers = peers
        self._logs: dict[JobId, _Log] = {}

    def begin(self, job: JobId) -> None:
        self._logs.setdefault(job, _Log())

    def forget(self, job: JobId) -> None:
        """The job's last task here has gone."""
        self._logs.pop(job, None)

    def lies(self, info: JobInfo) -> None:
        """Slurm has said where the job's output is."""
        log = self._logs.get(info.job)
        named = recovery_log.places(info.stdout, info.workdir, info.job)
        places = tuple(place for place in named if len(os.fsencode(place)) < _PATH_MAX)
        if log is not None and places:
            log.places = places
            self._write(info.job, log)

    def tell(self, job: JobId, record: Record) -> None:
        wall = self._clock.wall()
        stamp = datetime.fromtimestamp(wall).astimezone().isoformat(timespec="milliseconds")
        name = f" {record.incident}:" if record.incident else ""
        line = cut(f"{stamp} mpsr[{self._node}]{name} {printable(log_line(record, job))}"[:_LINE], _TEXT)
        text = journal.line(for_job(record, job), wall=wall, mono=self._clock.monotonic())
        log = self._logs.setdefault(job, _Log())
        log.held.append((line, text if len(encode(text)) <= _TEXT else ""))
        self._write(job, log)

    def _write(self, job: JobId, log: _Log) -> None:
        """Have what is held written, once it is known where, by the first of the job's supervisors."""
        ref = next(self._peers.of_job(job), None)
        while log.places and log.held:
            line, record = log.held.popleft()
            if ref is not None:
                self._peers.tell(ref, "log", path=log.places[0], other=log.places[-1], line=line, record=record)
