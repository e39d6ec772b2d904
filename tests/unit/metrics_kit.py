"""For tests of the figures: records with what they change, and the text as Prometheus reads it.

The text is read by Prometheus's own Python client, which knows nothing of ours.
"""

import json
from collections.abc import Mapping
from typing import Any

from hypothesis import settings
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from resilience.hooks import leftovers
from resilience.metrics import Fold
from resilience.model import effect as fx
from resilience.model.records.journal import entry, line
from tests.unit.machine_kit import UUID, Node

WALL = 1790000000.5
BRIEFLY = settings(max_examples=40)
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def parsed(text: str) -> dict[str, Metric]:
    """Families by name as Prometheus knows them, a counter's with _total."""
    found = list(text_string_to_metric_families(text))
    names = [one.name + "_total" * (one.type == "counter") for one in found]
    assert len(set(names)) == len(names), "a family comes twice"
    return dict(zip(names, found, strict=True))


def samples(text: str) -> Samples:
    every = [sample for family in parsed(text).values() for sample in family.samples]
    found = {(sample.name, tuple(sorted(sample.labels.items()))): float(sample.value) for sample in every}
    assert len(found) == len(every), "a series comes twice"
    return found


def value(text: str, name: str, **labels: str) -> float:
    return samples(text)[name, tuple(sorted(labels.items()))]


def take(made: Fold, record: Mapping[str, Any]) -> None:
    """One record as a journal's reader has it; one without a time is no record."""
    if (found := entry({"wall": WALL, **record})) is not None:
        made.take(found)


def changed(records: list[dict[str, Any]]) -> dict[str, float]:
    """The samples that differ from those at the start, as they are written."""
    made, before = Fold(), samples(Fold().text())
    for record in records:
        take(made, record)
    return {
        name + ",".join(f"{{{key}={word}}}" for key, word in labels): now
        for (name, labels), now in samples(made.text()).items()
        if now != before.get((name, labels), 0.0) and not name.endswith("_bucket")
    }


def journalled(node: Node) -> list[dict[str, Any]]:
    """What a machine has written, as it comes back from the file."""
    records = [one.record for one in node.log if isinstance(one, fx.WriteJournal)]
    return [json.loads(line(record, wall=WALL, mono=0.0)) for record in records]


CLOSED = {"event": "incident.closed", "incident": "i", "gpu": UUID, "fault_class": "mmu", "xid": 31}
RECORDS: list[tuple[dict[str, Any], dict[str, float]]] = [
    (
        {"event": "agent.started", "mode": "observe"},
        {"mpsr_agent_start_time_seconds": WALL, "mpsr_agent_mode{mode=observe}": 1},
    ),
    (
        {"event": "job.opened", "isolation": "guard", "ms": 250.0, "missing": ["g0/b: no"]},
        {
            "mpsr_jobs_opened_total{isolation=guard}": 1,
            "mpsr_prolog_duration_seconds_sum": 0.25,
            "mpsr_prolog_duration_seconds_count": 1,
            "mpsr_server_starts_failed_total{by=prolog}": 1,
        },
    ),
    ({"event": "job.refused", "job": 7}, {"mpsr_jobs_refused_total": 1}),
    ({"event": "client.ended", "task": "7.0.0", "pids": [8]}, {"mpsr_clients_ended_total{outcome=ended}": 1}),
    ({"event": "client.ended", "task": "7.0.0", "wrong": "no answer"}, {"mpsr_clients_ended_total{outcome=failed}": 1}),
    ({"event": "client.killed_busy", "task": "7.0.0", "pid": 8}, {"mpsr_clients_killed_busy_total": 1}),
    ({"event": "process.unattached", "job": 7, "pid": 8}, {"mpsr_processes_unattached_total{outcome=told}": 1}),
    (
        {"event": "process.unattached", "job": 7, "pid": 8, "ended": True},
        {"mpsr_processes_unattached_total{outcome=ended}": 1},
    ),
    (
        {"event": "job.closed", "residue": [], "ms": 40, "spill": f"{leftovers.KEPT}: /d", "swept": {"3": "removed"}},
        {
            "mpsr_jobs_closed_total{outcome=clean}": 1,
            "mpsr_epilog_duration_seconds_sum": 0.04,
            "mpsr_epilog_duration_seconds_count": 1,
            "mpsr_spills_total{outcome=kept}": 1,
            "mpsr_spills_total{outcome=removed}": 1,
        },
    ),
    (
        {
            "event": "job.closed",
            "residue": ["x"],
            "spill": "left behind: /d",
            "swept": {"3": leftovers.KEPT, "4": "left behind: /d"},
        },
        {"mpsr_jobs_closed_total{outcome=residue}": 1, "mpsr_spills_total{outcome=left}": 2},
    ),
    ({"event": "task.hello", "resumed": False}, {"mpsr_tasks_started_total": 1}),
    ({"event": "task.hello", "resumed": True}, {}),
    ({"event": "task.gone", "refused": True}, {"mpsr_supervisors_refused_total": 1}),
    ({"event": "task.gone", "task": "1.0.0"}, {}),
    ({"event": "incident.opened", "incident": "i"}, {"mpsr_incidents_open": 1}),
    (
        {
            **CLOSED,
            "confidence": "certain",
            "isolated": True,
            "parts": {"2.0.0": "culprit"},
            "outcomes": {"1.0.0": "gone", "2.0.0": "failed"},
        },
        {
            "mpsr_faults_total{attribution=certain},{class=mmu}": 1,
            f"mpsr_gpu_faults_total{{gpu={UUID}}},{{xid=31}}": 1,
            "mpsr_faults_isolated_total": 1,
            "mpsr_task_outcomes_total{outcome=gone},{part=other}": 1,
            "mpsr_task_outcomes_total{outcome=failed},{part=culprit}": 1,
        },
    ),
    (
        {**CLOSED, "confidence": "none"},
        {
            "mpsr_faults_total{attribution=unknown},{class=mmu}": 1,
            f"mpsr_gpu_faults_total{{gpu={UUID}}},{{xid=31}}": 1,
        },
    ),
    (
        {**CLOSED, "confidence": "none", "blameless": True, "xid": None},
        {
            "mpsr_faults_total{attribution=blameless},{class=mmu}": 1,
            f"mpsr_gpu_faults_total{{gpu={UUID}}},{{xid=none}}": 1,
        },
    ),
    (
        {"event": "incident.closed", "incident": "i", "ok": False, "outcome": "interrupted"},
        {
            "mpsr_faults_total{attribution=undecided},{class=unknown}": 1,
            "mpsr_gpu_faults_total{gpu=other},{xid=none}": 1,
        },
    ),
    ({"event": "incident.closed", "incident": "i", "same_as": "j"}, {}),
    (
        {"event": "verdict", "incident": "i", "task": "1.0.0", "action": "promote", "part": "bystander"},
        {"mpsr_verdicts_total{action=promote}": 1},
    ),
    ({"event": "verdict", "task": "1.0.0", "action": "none"}, {"mpsr_verdicts_total{action=none}": 1}),
    ({"event": "verdict", "dry_run": True, "would": "AskDrain"}, {}),
    (
        {"event": "verdict", "task": "1.0.0", "action": "fail", "dry_run": True},
        {"mpsr_dry_run_verdicts_total{action=fail}": 1},
    ),
    (
        {"event": "recovered", "action": "promote", "ms": 4.8},
        {
            "mpsr_recovery_duration_seconds_sum{rung=standby}": 0.0048,
            "mpsr_recovery_duration_seconds_count{rung=standby}": 1,
        },
    ),
    ({"event": "recovery.failed", "rung": "restore"}, {"mpsr_recovery_failures_total{rung=restore}": 1}),
    (
        {"event": "slurm.outcome", "ask": "requeue", "ok": True},
        {"mpsr_slurm_requests_total{outcome=done},{request=requeue}": 1},
    ),
    (
        {"event": "slurm.outcome", "ask": "drain", "ok": False, "outcome": "interrupted"},
        {"mpsr_slurm_requests_total{outcome=interrupted},{request=drain}": 1},
    ),
    (
        {"event": "job.accounted", "incident": "i", "job": 7, "own": True, "outcome": "failed"},
        {"mpsr_jobs_hit_total{ending=failed},{part=culprit}": 1},
    ),
    ({"event": "job.accounted", "incident": "i", "job": 7}, {"mpsr_jobs_hit_total{ending=passed},{part=victim}": 1}),
    ({"event": "breaker.open", "what": "drain"}, {"mpsr_breaker_blocked_total{request=drain}": 1}),
    (
        {"event": "server.unavailable", "server": "u1001/g0/a", "state": "closed"},
        {"mpsr_servers_unavailable{state=closed}": 1},
    ),
    ({"event": "server.unavailable", "server": "u1001/g0/q1", "state": "faulted"}, {}),
    (
        {"event": "server.rebuilt", "server": "u1001/g0/a", "ms": 500},
        {
            "mpsr_server_recovery_duration_seconds_sum{how=rebuilt}": 0.5,
            "mpsr_server_recovery_duration_seconds_count{how=rebuilt}": 1,
        },
    ),
    (
        {"event": "server.replaced", "server": "u1001/g0/a", "ok": False},
        {"mpsr_servers_unavailable{state=down}": 1, "mpsr_server_starts_failed_total{by=agent}": 1},
    ),
    ({"event": "domain.closed", "domain": "u1001", "gpu": 0, "lost": 3}, {"mpsr_journal_lost_records_total": 3}),
    ({"event": "one.of.tomorrow", "ms": 5}, {}),
]
