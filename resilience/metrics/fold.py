"""What each record of the journal changes in the figures. Records come in the journal's order, one at a time.

Total: whatever a record holds (a field that is missing, of another type, a word that is new) is counted as far as it
can be read, and never raises. What is remembered is small: the incidents that are open and the servers that take no
clients; a new agent begins without any, as it does itself.
"""

import re
from collections.abc import Callable

from resilience.machine.policy import ACTIONS
from resilience.metrics.families import BLAMELESS, QUARANTINE, UNDECIDED, UNKNOWN
from resilience.metrics.series import Series
from resilience.model.fault import FaultClass
from resilience.model.incident import Action, Confidence
from resilience.model.world import Health
from resilience.parse.journal import Record, parse
from resilience.placement.domain_plan import PAIR

_RUNGS = {action.value: rung.value for rung, action in ACTIONS.items()} | {Action.QUARANTINE.value: QUARANTINE}
"""What a task was told → the rung by which it came back."""
_HUGE = 1e15
_SERVER = re.compile(r"(?P<domain>[^/]+)/g(?P<gpu>[0-9]+)/(?P<color>[^/]+)\Z")


class Fold:
    def __init__(self) -> None:
        self._series = Series()
        self._open: set[str] = set()
        """Incidents that are open."""
        self._unavailable: dict[str, str] = {}
        """Servers of pairs that take no clients → why not."""

    def line(self, text: str) -> None:
        """One line of a journal."""
        if not text.strip():
            return
        record = parse(text)
        if record is None:
            self.skip(1)
        else:
            self.take(record)

    def skip(self, lines: int) -> None:
        """There were lines that are no record."""
        self._series.add("mpsr_journal_skipped_lines_total", by=lines)

    def take(self, record: Record) -> None:
        lost = record.get("lost")
        if type(lost) is int and 0 < lost < _HUGE:
            self._series.add("mpsr_journal_lost_records_total", by=lost)
        if (change := _CHANGES.get(record["event"])) is not None:
            change(self, record)

    def text(self) -> str:
        """All metrics as they are now, in Prometheus's text format."""
        self._series.set("mpsr_incidents_open", len(self._open))
        for state in (Health.FAULTED, Health.CLOSED, Health.DOWN):
            count = sum(why == state for why in self._unavailable.values())
            self._series.set("mpsr_servers_unavailable", count, state.value)
        return self._series.text()

    # ------------------------------------------------------------ agent, hooks, tasks
    def _agent_started(self, record: Record) -> None:
        self._open.clear()
        self._unavailable.clear()
        if (began := number(record, "wall")) is not None:
            self._series.set("mpsr_agent_start_time_seconds", began)
        for mode in ("act", "observe"):
            self._series.set("mpsr_agent_mode", int(record.get("mode") == mode), mode)

    def _job_opened(self, record: Record) -> None:
        self._series.add("mpsr_jobs_opened_total", record.get("isolation"))
        self._duration("mpsr_prolog_duration_seconds", record)
        if isinstance(missing := record.get("missing"), list) and missing:
            self._series.add("mpsr_server_starts_failed_total", "prolog", by=len(missing))

    def _job_refused(self, record: Record) -> None:
        self._series.add("mpsr_jobs_refused_total")

    def _job_closed(self, record: Record) -> None:
        self._series.add("mpsr_jobs_closed_total", "residue" if record.get("residue") else "clean")
        self._duration("mpsr_epilog_duration_seconds", record)
        if isinstance(spill := record.get("spill"), str):
            self._series.add("mpsr_spills_total", "kept" if spill.startswith("kept") else "left")
        swept = record.get("swept")
        for outcome in swept.values() if isinstance(swept, dict) else ():
            if outcome == "removed":
                self._series.add("mpsr_spills_total", "removed")
            elif not str(outcome).startswith("kept"):  # that was counted when its own epilog kept it
                self._series.add("mpsr_spills_total", "left")

    def _domain_closed(self, record: Record) -> None:
        """Nobody holds this domain's servers on this GPU any more."""
        for server in list(self._unavailable):
            if server.startswith(f"{record.get('domain')}/g{record.get('gpu')}/"):
                del self._unavailable[server]

    def _task_hello(self, record: Record) -> None:
        if record.get("resumed") is not True:
            self._series.add("mpsr_tasks_started_total")

    def _task_gone(self, record: Record) -> None:
        if record.get("refused") is True:
            self._series.add("mpsr_supervisors_refused_total")

    # ------------------------------------------------------------ faults
    def _incident_opened(self, record: Record) -> None:
        self._open.add(str(record.get("incident")))

    def _incident_closed(self, record: Record) -> None:
        self._open.discard(str(record.get("incident")))
        if record.get("same_as") is not None:
            return
        server = str(record.get("server"))
        if self._unavailable.get(server) == Health.FAULTED:  # forgotten with its last task, before it came back
            del self._unavailable[server]
        self._series.add("mpsr_faults_total", record.get("fault_class", FaultClass.UNKNOWN.value), attribution(record))
        self._series.add("mpsr_gpu_faults_total", record.get("gpu"), record.get("xid"))
        if record.get("isolated") is True:
            self._series.add("mpsr_faults_isolated_total")
        parts, outcomes = record.get("parts"), record.get("outcomes")
        for task, outcome in outcomes.items() if isinstance(outcomes, dict) else ():
            part = parts.get(task) if isinstance(parts, dict) else None
            self._series.add("mpsr_task_outcomes_total", part, outcome)

    def _verdict(self, record: Record) -> None:
        if (action := record.get("action")) is None:
            return  # of observe mode: what else would have been done
        dry = record.get("dry_run") is True
        self._series.add("mpsr_dry_run_verdicts_total" if dry else "mpsr_verdicts_total", action)

    def _recovered(self, record: Record) -> None:
        action = record.get("action")
        self._duration(
            "mpsr_recovery_duration_seconds", record, _RUNGS.get(action) if isinstance(action, str) else None
        )

    def _recovery_failed(self, record: Record) -> None:
        self._series.add("mpsr_recovery_failures_total", record.get("rung"))

    # ------------------------------------------------------------ Slurm and servers
    def _slurm_outcome(self, record: Record) -> None:
        interrupted = record.get("outcome") == "interrupted"
        outcome = "interrupted" if interrupted else "done" if record.get("ok") is True else "refused"
        self._series.add("mpsr_slurm_requests_total", record.get("ask"), outcome)

    def _breaker_open(self, record: Record) -> None:
        self._series.add("mpsr_breaker_blocked_total", record.get("what"))

    def _server_unavailable(self, record: Record) -> None:
        self._lost(record, str(record.get("state")))

    def _server_rebuilt(self, record: Record) -> None:
        self._unavailable.pop(str(record.get("server")), None)
        self._duration("mpsr_server_recovery_duration_seconds", record, "rebuilt")

    def _server_replaced(self, record: Record) -> None:
        if record.get("ok") is False:
            self._lost(record, Health.DOWN.value)
            self._series.add("mpsr_server_starts_failed_total", "agent")
            return
        self._unavailable.pop(str(record.get("server")), None)
        self._duration("mpsr_server_recovery_duration_seconds", record, "replaced")

    def _lost(self, record: Record, state: str) -> None:
        """A server takes no clients. One for a culprit's quarantine is nobody's loss: it ends when it is empty."""
        server = str(record.get("server"))
        if (found := _SERVER.match(server)) is not None and found["color"] in PAIR:
            self._unavailable[server] = state

    def _duration(self, name: str, record: Record, *labels: object) -> None:
        """The record's `ms`, observed in seconds. Without a number there is nothing to observe."""
        if (ms := number(record, "ms")) is not None:
            self._series.observe(name, ms / 1000, *labels)


def number(record: Record, key: str) -> float | None:
    """A number that makes sense as a time; None when there is none."""
    value = record.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value < _HUGE else None


def attribution(record: Record) -> str:
    """How sure the culprit's name is, of a closed incident; `blameless`: it was the hardware or a daemon."""
    if record.get("blameless") is True:
        return BLAMELESS
    confidence = record.get("confidence", UNDECIDED)
    return UNKNOWN if confidence == Confidence.NONE else str(confidence)


_CHANGES: dict[str, Callable[[Fold, Record], None]] = {
    "agent.started": Fold._agent_started,
    "job.opened": Fold._job_opened,
    "job.refused": Fold._job_refused,
    "job.closed": Fold._job_closed,
    "domain.closed": Fold._domain_closed,
    "task.hello": Fold._task_hello,
    "task.gone": Fold._task_gone,
    "incident.opened": Fold._incident_opened,
    "incident.closed": Fold._incident_closed,
    "verdict": Fold._verdict,
    "recovered": Fold._recovered,
    "recovery.failed": Fold._recovery_failed,
    "slurm.outcome": Fold._slurm_outcome,
    "breaker.open": Fold._breaker_open,
    "server.unavailable": Fold._server_unavailable,
    "server.rebuilt": Fold._server_rebuilt,
    "server.replaced": Fold._server_replaced,
}
