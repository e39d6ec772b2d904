"""The figures made from a journal: which there are, what each record changes, and that pages and command tell them."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from resilience.cli.main import main
from resilience.metrics import FAMILIES, Fold, MetricKind
from tests.unit.metrics_kit import RECORDS, WALL, changed, parsed, samples, take, value


# ---------------------------------------------------------------- the table
def test_every_family_is_told_with_its_help_and_kind() -> None:
    found = parsed(Fold().text())
    assert list(found) == list(FAMILIES)
    for name, family in FAMILIES.items():
        assert (found[name].documentation, found[name].type) == (family.help, family.kind.value)


@pytest.mark.parametrize("name", FAMILIES)
def test_names_follow_the_rules(name: str) -> None:
    """https://prometheus.io/docs/practices/naming/"""
    family = FAMILIES[name]
    assert re.fullmatch(r"mpsr_[a-z]+(_[a-z]+)*", name)
    assert name.endswith("_total") is (family.kind is MetricKind.COUNTER)
    assert bool(family.buckets) is (family.kind is MetricKind.HISTOGRAM)
    assert list(family.buckets) == sorted(set(family.buckets))
    if family.buckets:
        assert name.endswith("_duration_seconds")
    assert all(re.fullmatch(r"[a-z]+", label.name) and label.name != "le" for label in family.labels)


def test_series_that_can_be_known_are_there_from_the_start() -> None:
    met = {"mpsr_gpu_faults_total", "mpsr_agent_start_time_seconds"}
    there = {name for name, family in parsed(Fold().text()).items() if family.samples}
    assert there == set(FAMILIES) - met
    assert {count for (name, _), count in samples(Fold().text()).items()} == {0.0}


# ---------------------------------------------------------------- what each record changes
@pytest.mark.parametrize(("record", "expected"), RECORDS, ids=lambda row: row.get("event") if "event" in row else "")
def test_a_record_changes(record: dict[str, Any], expected: dict[str, float]) -> None:
    assert changed([record]) == expected


def test_every_metric_is_reached() -> None:
    told = {re.sub(r"(_sum|_count)?(\{.*)?$", "", key) for _, expected in RECORDS for key in expected}
    assert told == set(FAMILIES) - {"mpsr_journal_skipped_lines_total", "mpsr_saved_gpu_seconds_total"}


def test_a_time_falls_into_its_bucket() -> None:
    made = Fold()
    for ms in (5.0, 5.1, 60_000, 61_000):
        take(made, {"event": "recovered", "action": "restore", "ms": ms})
    name = "mpsr_recovery_duration_seconds_bucket"
    counts = [value(made.text(), name, rung="restore", le=le) for le in ("0.005", "0.01", "30", "60", "+Inf")]
    assert counts == [1, 2, 2, 3, 4]


def test_gpu_time_that_a_recovery_has_kept_is_counted() -> None:
    tasks = {"outcomes": {"7.0.0": "recovered"}, "parts": {"7.0.0": "bystander"}}
    found = changed(
        [
            {"event": "job.opened", "job": 7, "gpus": [0], "mono": 100},
            {"event": "incident.opened", "incident": "i", "mono": 200},
            {"event": "recovered", "incident": "i", "task": "7.0.0", "seq": 3, "ms": 500, "mono": 200.5},
            {"event": "incident.closed", "incident": "i", **tasks, "mono": 201},
        ]
    )
    assert found["mpsr_saved_gpu_seconds_total"] == 99.5


def test_torn_lines_are_counted_and_the_rest_goes_on() -> None:
    made = Fold()
    for line in ('{"event":"job.ref', "", '{"event":"job.refused","wall":1}', "[]", '{"event":"x"}'):
        made.line(line)
    assert value(made.text(), "mpsr_journal_skipped_lines_total") == 3
    assert value(made.text(), "mpsr_jobs_refused_total") == 1


@pytest.mark.parametrize(
    ("after", "left"),
    [
        ({"event": "server.rebuilt", "server": "u1001/g0/a"}, 0),
        ({"event": "server.replaced", "server": "u1001/g0/a", "ms": 3}, 0),
        ({"event": "domain.closed", "domain": "u1001", "gpu": 0, "color": "b"}, 0),
        ({"event": "domain.closed", "domain": "u1001", "gpu": 1, "color": "a"}, 1),
        ({"event": "domain.closed", "domain": "u100", "gpu": 0, "color": "a"}, 1),
        ({"event": "incident.closed", "incident": "i", "server": "u1001/g0/a"}, 0),
        ({"event": "incident.closed", "incident": "i", "server": "u1001/g0/b"}, 1),
        ({"event": "agent.started", "mode": "act"}, 0),
    ],
)
def test_a_server_is_unavailable_until(after: dict[str, Any], left: int) -> None:
    lost = {"event": "server.unavailable", "server": "u1001/g0/a", "state": "faulted"}
    assert changed([lost, after]).get("mpsr_servers_unavailable{state=faulted}", 0) == left


# ---------------------------------------------------------------- the pages
@pytest.mark.parametrize("page", ["how-to/metrics.md", "reference/metrics.md"])
def test_queries_on_the_pages_name_what_there_is(page: str) -> None:
    text = (Path(__file__).parents[2] / "docs" / page).read_text(encoding="utf-8")
    found = re.findall(r"\b(mpsr_[a-z_]+)(?:\{([^}]*)\})?", text)
    assert found
    for name, selector in found:
        family = FAMILIES.get(name) or FAMILIES[re.sub(r"_(bucket|count|sum)\Z", "", name)]
        assert (name != family.name) <= (family.kind is MetricKind.HISTOGRAM)
        labels = {label.name: label.values for label in family.labels}
        for label, pattern in re.findall(r'(\w+)!?=~?"([^"]*)"', selector):
            assert set(pattern.split("|")) <= set(labels[label]), f"{name}: {label}"


# ---------------------------------------------------------------- the command
def test_mpsr_metrics_prints_the_whole_journal(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    journal = tmp_path / "journal.jsonl"
    started = {"event": "agent.started", "wall": WALL, "mode": "act"}
    refused = {"event": "job.refused", "wall": WALL, "job": 4711}
    journal.write_text("\n".join(map(json.dumps, [started, refused, started, refused])) + '\n{"event"')
    assert main(["metrics", "--journal", str(journal)]) == 0
    text = capsys.readouterr().out
    assert value(text, "mpsr_jobs_refused_total") == 2
    assert value(text, "mpsr_journal_skipped_lines_total") == 1
    assert value(text, "mpsr_agent_start_time_seconds") == WALL
    assert "4711" not in text
    assert main(["metrics", "--journal", str(tmp_path / "none")]) == 1
    assert "cannot be read" in capsys.readouterr().err
