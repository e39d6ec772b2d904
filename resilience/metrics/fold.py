"""What each record of the journal changes in the figures. Records come in the journal's order, one at a time.

Total: whatever a record holds (a field that is missing, of another type, a word that is new) is counted as far as it
can be read, and never raises. What is remembered is small: the incidents that are open and the servers that take no
clients; a new agent begins without any, as it does itself.
"""

from resilience.machine.policy import ACTIONS
from resilience.metrics.families import BLAMELESS, QUARANTINE, UNDECIDED, UNKNOWN, VICTIM
from resilience.metrics.saved import Savings
from resilience.metrics.series import Series
from resilience.model import records as rec
from resilience.model.fault import FaultClass
from resilience.model.ids import ServerId
from resilience.model.incident import Action, Confidence, Outcome, Part
from resilience.model.records.journal import Entry, parse
from resilience.model.world import Health
from resilience.placement.domain_plan import PAIR

_RUNGS = {action.value: rung.value for rung, action in ACTIONS.items()} | {Action.QUARANTINE.value: QUARANTINE}
"""What a task was told → the rung by which it came back."""


class Fold:
    def __init__(self) -> None:
        self._series = Series()
        self._open: dict[str, ServerId | None] = {}
        """Incidents that are open → their server."""
        self._savings = Savings()
        self._unavailable: dict[ServerId, str] = {}
        """Servers of pairs that take no clients → why not."""

    def line(self, text: str) -> None:
        """One line of a journal."""
        if not text.strip():
            return
        entry = parse(text)
        if entry is None:
            self.skip(1)
        else:
            self.take(entry)

    def skip(self, lines: int) -> None:
        """There were lines that are no record."""
        self._series.add("mpsr_journal_skipped_lines_total", by=lines)

    def text(self) -> str:
        """All metrics as they are now, in Prometheus's text format."""
        self._series.set("mpsr_incidents_open", len(self._open))
        for state in (Health.FAULTED, Health.CLOSED, Health.DOWN):
            count = sum(why == state for why in self._unavailable.values())
            self._series.set("mpsr_servers_unavailable", count, state.value)
        return self._series.text()

    def take(self, entry: Entry) -> None:
        if saved := sum(one.seconds for one in self._savings.take(entry)):
            self._series.add("mpsr_saved_gpu_seconds_total", by=saved)
        if entry.lost:
            self._series.add("mpsr_journal_lost_records_total", by=entry.lost)
        match entry.record:
            case rec.AgentStarted() as started:
                self._agent_started(started, entry.wall)
            case rec.JobOpened() as job:
                self._series.add("mpsr_jobs_opened_total", job.isolation)
                self._duration("mpsr_prolog_duration_seconds", job.ms)
                if job.missing:
                    self._series.add("mpsr_server_starts_failed_total", "prolog", by=len(job.missing))
            case rec.ProcessUnattached() as process:
                self._series.add("mpsr_processes_unattached_total", "ended" if process.ended is True else "told")
            case rec.ClientEnded() as client:
                self._series.add("mpsr_clients_ended_total", "failed" if client.wrong else "ended")
            case rec.ClientKilledBusy():
                self._series.add("mpsr_clients_killed_busy_total")
            case rec.JobRefused():
                self._series.add("mpsr_jobs_refused_total")
            case rec.JobClosed() as job:
                self._job_closed(job)
            case rec.DomainClosed() as domain:  # nobody holds its servers on this GPU any more
                for server in list(self._unavailable):
                    if (server.domain, server.gpu) == (domain.domain, domain.gpu):
                        del self._unavailable[server]
            case rec.TaskHello() as hello:
                if hello.resumed is not True:
                    self._series.add("mpsr_tasks_started_total")
            case rec.TaskGone() as gone:
                if gone.refused is True:
                    self._series.add("mpsr_supervisors_refused_total")
            case _:
                self._take_fault(entry.record)

    # ------------------------------------------------------------ faults
    def _take_fault(self, record: rec.Record) -> None:
        match record:
            case rec.IncidentOpened():
                self._open[record.incident] = record.server
            case rec.IncidentClosed():
                self._incident_closed(record)
            case rec.Verdict():
                if record.action or not record.would:  # else it says what more observe mode would have done
                    dry = record.dry_run is True
                    self._series.add("mpsr_dry_run_verdicts_total" if dry else "mpsr_verdicts_total", record.action)
            case rec.Recovered():
                self._duration("mpsr_recovery_duration_seconds", record.ms, _RUNGS.get(record.action))
            case rec.RecoveryFailed():
                self._series.add("mpsr_recovery_failures_total", record.rung)
            case rec.JobAccounted():
                part = Part.CULPRIT if record.own else VICTIM
                self._series.add("mpsr_jobs_hit_total", part, record.outcome or Outcome.PASSED)
            case rec.SlurmOutcome():
                outcome = "done" if record.ok is True else "refused"
                outcome = "interrupted" if record.outcome == "interrupted" else outcome
                self._series.add("mpsr_slurm_requests_total", record.ask, outcome)
            case rec.BreakerOpen():
                self._series.add("mpsr_breaker_blocked_total", record.what)
            case rec.ServerUnavailable():
                self._lost(record.server, record.state)
            case rec.ServerRebuilt():
                self._back(record.server, record.ms, "rebuilt")
            case rec.ServerReplaced() if record.ok is False:
                self._lost(record.server, Health.DOWN)
                self._series.add("mpsr_server_starts_failed_total", "agent")
            case rec.ServerReplaced():
                self._back(record.server, record.ms, "replaced")
            case _:
                pass

    def _incident_closed(self, record: rec.IncidentClosed) -> None:
        self._open.pop(record.incident, None)
        if record.same_as:
            return
        faulted = record.server is not None and self._unavailable.get(record.server) == Health.FAULTED
        if faulted and record.server is not None and record.server not in self._open.values():
            del self._unavailable[record.server]  # forgotten with its last task, before it came back
        if record.blameless is True:
            attribution = BLAMELESS
        else:
            attribution = UNKNOWN if record.confidence == Confidence.NONE else record.confidence or UNDECIDED
        self._series.add("mpsr_faults_total", record.fault_class or FaultClass.UNKNOWN, attribution)
        self._series.add("mpsr_gpu_faults_total", record.gpu, record.xid)
        if record.isolated is True:
            self._series.add("mpsr_faults_isolated_total")
        for task, outcome in record.outcomes.items():
            self._series.add("mpsr_task_outcomes_total", record.parts.get(task), outcome)

    # ------------------------------------------------------------ agent, hooks, servers
    def _agent_started(self, record: rec.AgentStarted, wall: float) -> None:
        self._open.clear()
        self._unavailable.clear()
        self._series.set("mpsr_agent_start_time_seconds", wall)
        for mode in ("act", "observe"):
            self._series.set("mpsr_agent_mode", int(record.mode == mode), mode)

    def _job_closed(self, record: rec.JobClosed) -> None:
        self._series.add("mpsr_jobs_closed_total", "residue" if record.residue else "clean")
        self._duration("mpsr_epilog_duration_seconds", record.ms)
        if record.spill:
            self._series.add("mpsr_spills_total", "kept" if record.spill.startswith("kept") else "left")
        for outcome in record.swept.values():
            if outcome == "removed":
                self._series.add("mpsr_spills_total", "removed")
            elif not outcome.startswith("kept"):  # that was counted when its own epilog kept it
                self._series.add("mpsr_spills_total", "left")

    def _lost(self, server: ServerId | None, state: str) -> None:
        """A server takes no clients. One for a culprit's quarantine is nobody's loss: it ends when it is empty."""
        if server is not None and server.color in PAIR:
            self._unavailable[server] = state

    def _back(self, server: ServerId | None, ms: float | None, how: str) -> None:
        if server is not None:
            self._unavailable.pop(server, None)
        self._duration("mpsr_server_recovery_duration_seconds", ms, how)

    def _duration(self, name: str, ms: float | None, *labels: object) -> None:
        """Milliseconds, observed in seconds. Without a number there is nothing to observe."""
        if ms is not None and ms >= 0:
            self._series.observe(name, ms / 1000, *labels)
