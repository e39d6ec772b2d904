"""Jobs' recovery logs: lines for people, and records for programs beside them, written by the jobs' own supervisors, and
as the job's user when none of them is there. What became of processes without a supervisor stands in the job's output, too, and which
process is not where its job asked to be.

Where a log lies is known when Slurm has said where the job's output is; until then a bounded number of lines is held.
A line is cut so that its packet always fits, whatever a user's program has put into it; a record that is too long is left
out.
"""

import os
import sys
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

from resilience.agent.peers import Peers
from resilience.model.errors import ResilienceError
from resilience.model.ids import JobId, NodeName
from resilience.model.records import JobAccounted, ProcessUnattached, Record, journal
from resilience.model.records.told import for_job, log_line, records_file
from resilience.model.records.words import printable
from resilience.parse import recovery_log
from resilience.parse.packet import cut, encode
from resilience.ports import Clock, JobInfo, Notes, Worker

_LINE = 800
"""Characters of a line."""
_TEXT = 2400
"""Bytes of a line on the wire."""
_PATH_MAX = 4096
"""limits.h: bytes of the longest path that the kernel opens, with its NUL."""
_HELD = 200
"""Lines of one job that wait."""
_CLOSED = 64
"""Jobs without a lease whose files are still known."""


@dataclass(slots=True)
class _Log:
    places: tuple[str, ...] = ()
    """Where it may lie: the first that can be written."""
    output: str = ""
    """The batch job's output file; empty without one."""
    held: deque[tuple[str, str]] = field(default_factory=lambda: deque(maxlen=_HELD))
    """Lines, and the records that they tell of."""
    said: deque[str] = field(default_factory=lambda: deque(maxlen=_HELD))
    """Lines for the job's output that wait."""


class JobLogs:
    def __init__(self, node: NodeName, clock: Clock, peers: Peers, notes: Notes | None, worker: Worker) -> None:
        self._node = node
        self._clock = clock
        self._peers = peers
        self._notes = notes
        self._worker = worker
        self._logs: dict[JobId, _Log] = {}
        self._owners: dict[JobId, tuple[int, int]] = {}
        """Whose files they are: of jobs that hold a lease, and of the last that did."""
        self._closed: deque[JobId] = deque()

    def begin(self, job: JobId) -> None:
        self._logs.setdefault(job, _Log())

    def opened(self, job: JobId, uid: int, gid: int) -> None:
        """The job holds a lease."""
        self._owners[job] = uid, gid
        if job in self._closed:
            self._closed.remove(job)

    def closed(self, job: JobId) -> None:
        """It does no more; there may be more to tell."""
        self._closed.append(job)
        if len(self._closed) > _CLOSED:
            last = self._closed.popleft()
            del self._owners[last]
            self.forget(last)

    def forget(self, job: JobId) -> None:
        """The job's last task here has gone."""
        if job not in self._owners:
            self._logs.pop(job, None)

    def lies(self, info: JobInfo) -> None:
        """Slurm has said where the job's output is."""
        log = self._logs.get(info.job)
        named = recovery_log.places(info.stdout, info.workdir, info.job)
        places = tuple(place for place in named if len(os.fsencode(place)) < _PATH_MAX)
        if log is not None and places:
            log.places, log.output = places, info.stdout
            self._write(info.job, log)

    def tell(self, job: JobId, record: Record) -> None:
        wall = self._clock.wall()
        stamp = datetime.fromtimestamp(wall).astimezone().isoformat(timespec="milliseconds")
        name = f" {record.incident}:" if record.incident else ""
        line = cut(f"{stamp} mpsr[{self._node}]{name} {printable(log_line(record, job))}"[:_LINE], _TEXT)
        text = journal.line(for_job(record, job), wall=wall, mono=self._clock.monotonic())
        log = self._logs.setdefault(job, _Log())
        log.held.append((line, text if len(encode(text)) <= _TEXT else ""))
        said = f"mpsr: {printable(log_line(record, job))}"[:_LINE]
        if isinstance(record, ProcessUnattached):
            ref = record.task if record.task and self._peers.get(record.task) else next(self._peers.of_job(job), None)
            if ref is not None:
                self._peers.tell(ref, "say", line=cut(said.removeprefix("mpsr: "), _TEXT))
            else:
                log.said.append(said)
        elif isinstance(record, JobAccounted) and record.outside:
            log.said.append(said)
        self._write(job, log)

    def _write(self, job: JobId, log: _Log) -> None:
        """Have what is held written, once it is known where, by the first of the job's supervisors."""
        ref = next(self._peers.of_job(job), None)
        while log.places and log.held:
            line, record = log.held.popleft()
            if ref is None:
                self._note(job, log.places, line, create=True)
                if record:
                    self._note(job, tuple(map(records_file, log.places)), record, create=True)
                continue
            self._peers.tell(ref, "log", path=log.places[0], other=log.places[-1], line=line, record=record)
        while log.places and log.said:
            line = log.said.popleft()
            if log.output:
                self._note(job, (log.output,), line, create=False)

    def _note(self, job: JobId, places: tuple[str, ...], line: str, *, create: bool) -> None:
        """Written by ourselves, as the job's user, at the first place that takes it."""
        notes, owner = self._notes, self._owners.get(job)
        if notes is None or owner is None:
            return

        def call() -> None:
            for place in places[:-1]:
                with suppress(ResilienceError, OSError):
                    notes.write(*owner, place, line, create=create)
                    return
            notes.write(*owner, places[-1], line, create=create)

        def told(answer: Exception | None) -> None:
            if isinstance(answer, Exception):
                where = printable(places[-1])
                print(f"mpsr: job {job}: {where}: cannot be written: {answer}", file=sys.stderr, flush=True)

        self._worker.submit("notes", call, told)
