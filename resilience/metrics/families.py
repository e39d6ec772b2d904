"""The metrics that there are: name, kind, meaning and labels of each. docs/reference/metrics.md is made from this table.

Names and units follow Prometheus's rules (https://prometheus.io/docs/practices/naming/). A family whose labels all
have known values has every one of its series from the start, at 0: Prometheus cannot see the increase of a series that
begins with 1. Only what is labelled with a GPU begins with its first event.
"""

from dataclasses import dataclass
from enum import StrEnum
from itertools import product

from resilience.contract import contract
from resilience.model.event import Ask
from resilience.model.fault import FaultClass
from resilience.model.incident import Action, Confidence, Outcome, Part
from resilience.model.lease import Isolation
from resilience.model.world import Health

OTHER = "other"
"""Stands for a word that is not among a label's values: a reader of the journal must expect new ones."""
NO_XID = "none"
QUARANTINE = "quarantine"
VICTIM = "victim"
"""A job that was in a fault and is not known to have caused it."""
RUNGS = tuple(rung for rung in contract()["words"]["rungs"] if rung != "requeue")


class MetricKind(StrEnum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    name: str
    values: tuple[str, ...] = ()
    """All that there are; empty for a GPU or an Xid, which are met."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    name: str
    kind: MetricKind
    help: str
    labels: tuple[Label, ...] = ()
    buckets: tuple[float, ...] = ()
    """Upper bounds of a histogram, in seconds, but for +Inf."""
    late: bool = False
    """No series before the first event, although there are no labels: 0 would be a lie."""

    def first(self) -> tuple[tuple[str, ...], ...]:
        """The label values of the series that are there from the start."""
        if self.late or not all(label.values for label in self.labels):
            return ()
        return tuple(product(*(label.values for label in self.labels)))


def _words(name: str, *values: str) -> Label:
    return Label(name=name, values=values)


_GPU = Label(name="gpu")
_XID = Label(name="xid")
_ASK = _words("request", *(ask.value for ask in Ask))
_RUNG = _words("rung", *RUNGS)
_ACTION = _words("action", *(action.value for action in Action))
UNKNOWN, BLAMELESS, UNDECIDED = "unknown", "blameless", "undecided"
_SURE = tuple(confidence.value for confidence in Confidence if confidence is not Confidence.NONE)

_HOOK = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Opening a server takes some tenths of a second; the hooks' deadline is 30 s unless the site has another."""
_RECOVERY = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""From a standby's few milliseconds to a program that reads gigabytes before its first step."""
_SERVER = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family(
            name="mpsr_agent_start_time_seconds",
            kind=MetricKind.GAUGE,
            help="When the node agent started, in seconds since the epoch. Its counters began with 0 then.",
            late=True,
        ),
        Family(
            name="mpsr_agent_mode",
            kind=MetricKind.GAUGE,
            help="1 for the agent's recovery.mode: act, or observe, which only writes verdicts down.",
            labels=(_words("mode", "act", "observe"),),
        ),
        Family(
            name="mpsr_jobs_opened_total",
            kind=MetricKind.COUNTER,
            help="Jobs that got their fault domains, by what keeps the faults of others from them.",
            labels=(_words("isolation", *(level.value for level in Isolation)),),
        ),
        Family(
            name="mpsr_jobs_refused_total",
            kind=MetricKind.COUNTER,
            help="Jobs that could not have what they asked for.",
        ),
        Family(
            name="mpsr_processes_unattached_total",
            kind=MetricKind.COUNTER,
            help="Processes that computed outside their job's MPS servers or share: told of, or ended.",
            labels=(_words("outcome", "told", "ended"),),
        ),
        Family(
            name="mpsr_clients_ended_total",
            kind=MetricKind.COUNTER,
            help="Ends of processes before which their MPS clients were to be ended: ended, or failed where the daemon would not.",
            labels=(_words("outcome", "ended", "failed"),),
        ),
        Family(
            name="mpsr_clients_killed_busy_total",
            kind=MetricKind.COUNTER,
            help="Clients that were killed without terminate_client (SIGKILL), perhaps with work in flight.",
        ),
        Family(
            name="mpsr_jobs_closed_total",
            kind=MetricKind.COUNTER,
            help="Epilogs of jobs that asked for MPS: clean, or residue when something was left behind.",
            labels=(_words("outcome", "clean", "residue"),),
        ),
        Family(
            name="mpsr_prolog_duration_seconds",
            kind=MetricKind.HISTOGRAM,
            help="Time that a prolog took to open a job's servers.",
            buckets=_HOOK,
        ),
        Family(
            name="mpsr_epilog_duration_seconds",
            kind=MetricKind.HISTOGRAM,
            help="Time that an epilog took to close what a job held.",
            buckets=_HOOK,
        ),
        Family(
            name="mpsr_spills_total",
            kind=MetricKind.COUNTER,
            help="Spilled state that epilogs met: kept for the job's next run, removed later, or left behind.",
            labels=(_words("outcome", "kept", "removed", "left"),),
        ),
        Family(
            name="mpsr_tasks_started_total",
            kind=MetricKind.COUNTER,
            help="Tasks whose supervisor reported in.",
        ),
        Family(
            name="mpsr_supervisors_refused_total",
            kind=MetricKind.COUNTER,
            help="Connections that the agent refused: no lease, another user's process, a malformed message.",
        ),
        Family(
            name="mpsr_incidents_open",
            kind=MetricKind.GAUGE,
            help="Faults that are being dealt with.",
        ),
        Family(
            name="mpsr_faults_total",
            kind=MetricKind.COUNTER,
            help="Faults that were dealt with, by class and by how sure the culprit's name is.",
            labels=(
                _words("class", *(kind.value for kind in FaultClass)),
                _words("attribution", *_SURE, UNKNOWN, BLAMELESS, UNDECIDED),
            ),
        ),
        Family(
            name="mpsr_gpu_faults_total",
            kind=MetricKind.COUNTER,
            help="The same faults by GPU and Xid. Each series begins with its first fault.",
            labels=(_GPU, _XID),
        ),
        Family(
            name="mpsr_faults_isolated_total",
            kind=MetricKind.COUNTER,
            help="Faults that touched no neighbour, thanks to the guard module or an SM partition.",
        ),
        Family(
            name="mpsr_verdicts_total",
            kind=MetricKind.COUNTER,
            help="What tasks were told to do.",
            labels=(_ACTION,),
        ),
        Family(
            name="mpsr_dry_run_verdicts_total",
            kind=MetricKind.COUNTER,
            help="What tasks would have been told, had recovery.mode not been observe.",
            labels=(_ACTION,),
        ),
        Family(
            name="mpsr_recovery_duration_seconds",
            kind=MetricKind.HISTOGRAM,
            help="Time from the first sighting of a fault to a task's first step (or new start) after it.",
            labels=(_words("rung", *RUNGS, QUARANTINE),),
            buckets=_RECOVERY,
        ),
        Family(
            name="mpsr_recovery_failures_total",
            kind=MetricKind.COUNTER,
            help="Rungs that did not work; the task then went to the next one.",
            labels=(_RUNG,),
        ),
        Family(
            name="mpsr_task_outcomes_total",
            kind=MetricKind.COUNTER,
            help="Tasks that were in a fault, by their part in it and how it ended for them. gone: ended, or hit again.",
            labels=(
                _words("part", *(part.value for part in Part)),
                _words("outcome", *(one.value for one in Outcome if one.settled)),
            ),
        ),
        Family(
            name="mpsr_jobs_hit_total",
            kind=MetricKind.COUNTER,
            help="Jobs that a fault came to an end for, once for each fault: whether a task of theirs caused it, and the worst ending.",
            labels=(
                _words("part", Part.CULPRIT.value, VICTIM),
                _words("ending", *(one.value for one in Outcome if one.settled)),
            ),
        ),
        Family(
            name="mpsr_saved_gpu_seconds_total",
            kind=MetricKind.COUNTER,
            help="GPU time that jobs have kept which a requeue from scratch would have cost; how it is counted: how-to/report.md.",
        ),
        Family(
            name="mpsr_slurm_requests_total",
            kind=MetricKind.COUNTER,
            help="What Slurm was asked and how it answered. interrupted: the agent ended before the answer.",
            labels=(_ASK, _words("outcome", "done", "refused", "interrupted")),
        ),
        Family(
            name="mpsr_breaker_blocked_total",
            kind=MetricKind.COUNTER,
            help="Requeues and drains that the breaker kept the agent from asking for.",
            labels=(_words("request", Ask.REQUEUE.value, Ask.DRAIN.value),),
        ),
        Family(
            name="mpsr_servers_unavailable",
            kind=MetricKind.GAUGE,
            help="MPS servers that take no new clients: faulted, closed (its control daemon ended), down (no start worked).",
            labels=(_words("state", Health.FAULTED.value, Health.CLOSED.value, Health.DOWN.value),),
        ),
        Family(
            name="mpsr_server_recovery_duration_seconds",
            kind=MetricKind.HISTOGRAM,
            help="Time until a server accepted clients again: rebuilt by itself, or replaced by the agent.",
            labels=(_words("how", "rebuilt", "replaced"),),
            buckets=_SERVER,
        ),
        Family(
            name="mpsr_server_starts_failed_total",
            kind=MetricKind.COUNTER,
            help="MPS servers that could not be started, by who tried.",
            labels=(_words("by", "prolog", "agent"),),
        ),
        Family(
            name="mpsr_journal_lost_records_total",
            kind=MetricKind.COUNTER,
            help="Records that could not be written to the journal (full disk), so that nothing here counts them.",
        ),
        Family(
            name="mpsr_journal_skipped_lines_total",
            kind=MetricKind.COUNTER,
            help="Lines of the journal that are no record: torn by a full disk or a kill.",
        ),
    )
}
