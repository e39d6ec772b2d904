"""The figures made from a journal: what each record changes, what no record can do, and that Prometheus can read them.

The text is read by Prometheus's own Python client, which knows nothing of ours.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from resilience import catalog
from resilience.cli import leftovers
from resilience.cli.main import main
from resilience.contract import contract
from resilience.domain_plan import PAIR
from resilience.metrics import FAMILIES, Fold, Kind, fold
from resilience.model import effect as fx
from resilience.model import event as ev
from resilience.model.lease import Isolation
from resilience.model.observation import Source, What
from resilience.model.options import OnCulprit, Rung
from resilience.model.settings import Recovery
from resilience.model.world import Health, Sight
from tests.unit.machine_kit import UUID, Node, ref, server

WALL = 1790000000.5
BRIEFLY = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
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


def changed(records: list[dict[str, Any]]) -> dict[str, float]:
    """The samples that differ from those at the start, as they are written."""
    made, before = Fold(), samples(Fold().text())
    for record in records:
        made.take({"wall": WALL, **record})
    return {
        name + ",".join(f"{{{key}={word}}}" for key, word in labels): now
        for (name, labels), now in samples(made.text()).items()
        if now != before.get((name, labels), 0.0) and not name.endswith("_bucket")
    }


def journalled(node: Node) -> list[dict[str, Any]]:
    """What a machine has written, as it comes back from the file."""
    lines = [{"event": one.event, "wall": WALL, **one.fields} for one in node.log if isinstance(one, fx.Journal)]
    return [{key: item for key, item in json.loads(json.dumps(line)).items() if item is not None} for line in lines]


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
    assert name.endswith("_total") is (family.kind is Kind.COUNTER)
    assert bool(family.buckets) is (family.kind is Kind.HISTOGRAM)
    assert list(family.buckets) == sorted(set(family.buckets))
    if family.buckets:
        assert name.endswith("_duration_seconds")
    assert all(re.fullmatch(r"[a-z]+", label.name) and label.name != "le" for label in family.labels)


def test_series_that_can_be_known_are_there_from_the_start() -> None:
    met = {"mpsr_gpu_faults_total", "mpsr_agent_start_time_seconds"}
    there = {name for name, family in parsed(Fold().text()).items() if family.samples}
    assert there == set(FAMILIES) - met
    assert {count for (name, _), count in samples(Fold().text()).items()} == {0.0}


def test_events_are_the_contracts() -> None:
    assert set(fold._CHANGES) <= set(contract()["event"])


# ---------------------------------------------------------------- what each record changes
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


@pytest.mark.parametrize(("record", "expected"), RECORDS, ids=lambda row: row.get("event") if "event" in row else "")
def test_a_record_changes(record: dict[str, Any], expected: dict[str, float]) -> None:
    assert changed([record]) == expected


def test_every_metric_is_reached_and_every_handled_event_is_tried() -> None:
    told = {re.sub(r"(_sum|_count)?(\{.*)?$", "", key) for _, expected in RECORDS for key in expected}
    assert told == set(FAMILIES) - {"mpsr_journal_skipped_lines_total"}
    assert {record["event"] for record, _ in RECORDS} >= set(fold._CHANGES)


def test_a_time_falls_into_its_bucket() -> None:
    made = Fold()
    for ms in (5.0, 5.1, 60_000, 61_000):
        made.take({"event": "recovered", "wall": WALL, "action": "restore", "ms": ms})
    name = "mpsr_recovery_duration_seconds_bucket"
    counts = [value(made.text(), name, rung="restore", le=le) for le in ("0.005", "0.01", "30", "60", "+Inf")]
    assert counts == [1, 2, 2, 3, 4]


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


# ---------------------------------------------------------------- what the machine writes
def test_the_figures_of_a_fault_as_the_machine_tells_it() -> None:
    node = Node()
    guilty, other = node.task(1), node.task(2)
    node.culprit(guilty)
    node.xid(31, guilty)
    node.cuda(other)
    (incident,) = node.state.incidents
    node.do(ev.Stepped(ref=other, incident=incident, seq=3, ms=1.0, at=node.now))
    node.rebuilt("a")
    node.wait(5.0)
    figures = changed(journalled(node))
    assert figures["mpsr_faults_total{attribution=certain},{class=mmu}"] == 1
    assert figures[f"mpsr_gpu_faults_total{{gpu={UUID}}},{{xid=31}}"] == 1
    assert figures["mpsr_verdicts_total{action=promote}"] == 1
    assert figures["mpsr_recovery_duration_seconds_count{rung=standby}"] == 1
    assert figures["mpsr_task_outcomes_total{outcome=recovered},{part=bystander}"] == 1
    assert figures["mpsr_task_outcomes_total{outcome=failed},{part=culprit}"] == 1
    assert figures["mpsr_server_recovery_duration_seconds_count{how=rebuilt}"] == 1
    assert figures["mpsr_tasks_started_total"] == 2
    assert "mpsr_incidents_open" not in figures
    assert "mpsr_servers_unavailable{state=faulted}" not in figures
    assert not [key for key in figures if "other}" in key]


def test_a_server_is_unavailable_from_its_fault_on() -> None:
    node = Node()
    node.task(1)
    node.handling()
    figures = changed(journalled(node))
    assert (figures["mpsr_servers_unavailable{state=faulted}"], figures["mpsr_incidents_open"]) == (1, 1)


def test_a_lost_daemon_leaves_its_server_closed() -> None:
    node = Node()
    node.task(1)
    node.see(What.DAEMON_GONE, source=Source.PROCESS, color="a")
    assert changed(journalled(node))["mpsr_servers_unavailable{state=closed}"] == 1


def test_a_gpu_out_of_use_is_nobodys_doing() -> None:
    node = Node()
    first, _ = node.task(1), node.task(2, batch=False)
    node.xid(79)
    figures = changed(journalled(node))
    assert (figures["mpsr_servers_unavailable{state=down}"], figures["mpsr_incidents_open"]) == (2, 1)
    node.do(ev.Spilled(ref=first, seq=2))
    for ask, job in ((ev.Ask.DRAIN, None), (ev.Ask.REQUEUE, first.job)):
        node.do(ev.SlurmAnswered(ask=ask, job=job, ok=True, detail=""))
    figures = changed(journalled(node))
    assert figures["mpsr_faults_total{attribution=blameless},{class=device}"] == 1
    assert figures[f"mpsr_gpu_faults_total{{gpu={UUID}}},{{xid=79}}"] == 1
    assert figures["mpsr_task_outcomes_total{outcome=requeued},{part=bystander}"] == 1
    assert figures["mpsr_slurm_requests_total{outcome=done},{request=requeue}"] == 1
    assert figures["mpsr_slurm_requests_total{outcome=done},{request=drain}"] == 1


def test_a_fault_that_was_seen_in_two_partitions_is_one() -> None:
    node = Node()
    for number in (1, 2):
        node.task(number, isolation=Isolation.SM, slot=number)
        node.cuda(ref(number))
    assert changed(journalled(node))["mpsr_incidents_open"] == 2
    node.sight("a", Sight.FAULT)
    figures = changed(journalled(node))
    assert figures["mpsr_incidents_open"] == 1
    assert not [key for key in figures if key.startswith("mpsr_faults_total")]


def test_observe_mode_counts_only_what_would_be() -> None:
    node = Node(Recovery(mode="observe"))
    guilty, _ = node.task(1), node.task(2)
    node.culprit(guilty)
    node.xid(31, guilty)
    figures = changed(journalled(node))
    assert figures["mpsr_dry_run_verdicts_total{action=fail}"] == 1
    assert figures["mpsr_dry_run_verdicts_total{action=promote}"] == 1
    assert not [key for key in figures if key.startswith("mpsr_verdicts_total")]


@pytest.mark.parametrize("wish", [OnCulprit.REQUEUE, OnCulprit.FAIL])
def test_the_breaker_says_so_when_it_costs_a_task_its_requeue(wish: OnCulprit) -> None:
    node = Node(Recovery(max_requeues_per_hour=0))
    guilty = node.task(1, on_culprit=wish)
    node.task(2, session=False, retries=3, recover=(Rung.RELAUNCH, Rung.REQUEUE))
    node.task(3, session=False, retries=3, recover=(Rung.RELAUNCH,))
    node.culprit(guilty)
    node.xid(31, guilty)
    blocked = [row["job"] for row in node.journal("breaker.open")]
    assert sorted(map(str, blocked)) == (["1", "2"] if wish is OnCulprit.REQUEUE else ["2"])
    assert changed(journalled(node))["mpsr_breaker_blocked_total{request=requeue}"] == len(blocked)


def test_a_requeue_that_slurm_refuses_is_not_the_breakers() -> None:
    node = Node()
    guilty = node.task(1)
    node.task(2, session=False, batch=False, retries=3, recover=(Rung.RELAUNCH, Rung.REQUEUE))
    node.culprit(guilty)
    assert node.told()[2][0] == "fail"
    assert node.journal("breaker.open") == []


@BRIEFLY
@given(
    st.lists(
        st.one_of(
            st.tuples(st.sampled_from(["culprit", "cuda", "exit", "xid", "gone"]), st.integers(1, 4)),
            st.tuples(
                st.sampled_from(["handling", "fault", "active", "wait", "daemon", "opened", "failed"]),
                st.sampled_from([1, 2]),
            ),
        ),
        max_size=25,
    )
)
def test_whatever_happens_every_fault_is_counted_once(story: list[tuple[str, int]]) -> None:
    """Of the machine's own books: an incident is open, or counted, or was the same fault as another."""
    node = Node()
    tasks = {number: node.task(number) for number in range(1, 5)}
    for what, number in story:
        who, color = tasks.get(number), "ab"[number % 2]
        match what:
            case "culprit" | "cuda" | "exit" if who is not None:
                getattr(node, what)(who)
            case "xid" if who is not None:
                node.xid(31, who)
            case "gone" if who is not None:
                node.do(ev.Gone(ref=tasks.pop(number)))
            case "handling":
                node.see(What.HANDLING, color=color)
            case "fault" | "active":
                node.do(ev.ServerSeen(server=server(color), sight=Sight[what.upper()], asked=node.now))
            case "daemon":
                node.see(What.DAEMON_GONE, source=Source.PROCESS, color=color)
            case "opened" | "failed":
                node.do(ev.ServerOpened(server=server(color), ok=what == "opened", detail=""))
            case "wait":
                node.wait(3.0)
    records = journalled(node)
    figures = changed(records)

    def total(name: str) -> float:
        return sum(count for key, count in figures.items() if re.split(r"\{", key)[0] == name)

    merged = sum("same_as" in record for record in records)
    opened = sum(record["event"] == "incident.opened" for record in records)
    assert total("mpsr_faults_total") == total("mpsr_gpu_faults_total") == opened - merged - len(node.state.incidents)
    assert total("mpsr_incidents_open") == len(node.state.incidents)
    verdicts = [record for record in records if record["event"] == "verdict"]
    assert total("mpsr_verdicts_total") == len(verdicts)
    closed = [record for record in records if record["event"] == "incident.closed"]
    assert total("mpsr_task_outcomes_total") == sum(len(record.get("outcomes", ())) for record in closed)
    assert not [key for key in figures if "=other}" in key]
    servers = [(color, known) for pair in node.state.pairs.values() for color, known in pair.servers.items()]
    out = sum(color in PAIR and known.health is not Health.UP for color, known in servers)
    if len(tasks) == 4:
        assert total("mpsr_servers_unavailable") == out
    else:  # what the machine forgets with its last task is closed by an epilog, which is not part of this
        assert total("mpsr_servers_unavailable") >= out


# ---------------------------------------------------------------- what no record can do
WORDS = st.sampled_from(
    [
        "act",
        "guard",
        "certain",
        "mmu",
        "requeue",
        "standby",
        "promote",
        "u1001/g0/a",
        "i",
        "1.0.0",
        UUID,
        'a"\n}\\ 9',
        "",
    ]
)
VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), WORDS, st.text(max_size=5), st.floats(), st.integers(), st.just(10**400), st.just(31)
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(WORDS, inner, max_size=3)),
    max_leaves=4,
)
KEYS = st.sampled_from(
    "incident task server gpu mode isolation ms missing residue spill swept domain resumed refused parts outcomes fault_class xid "
    "confidence blameless isolated same_as action part dry_run rung ask ok outcome what state lost wall".split()
)
HOSTILE = st.fixed_dictionaries(
    {"event": st.sampled_from([*contract()["event"], "x"]), "wall": st.just(WALL)},
    optional={},
).flatmap(lambda head: st.dictionaries(KEYS, VALUES, max_size=6).map(lambda more: more | head))


def allowed(name: str) -> set[str]:
    """The values that labels of this name can have; no others, whatever the journal says."""
    known = {
        word for family in FAMILIES.values() for label in family.labels if label.name == name for word in label.values
    }
    return known | {"other"} | ({"none", *map(str, catalog.xids())} if name == "xid" else set())


@BRIEFLY
@given(st.lists(HOSTILE, max_size=12))
def test_no_record_breaks_the_text_or_adds_a_word(records: list[dict[str, Any]]) -> None:
    made = Fold()
    before = samples(made.text())
    for record in records:
        made.take(record)
        now = samples(made.text())
        for (name, labels), count in before.items():
            if not name.startswith(("mpsr_agent", "mpsr_incidents_open", "mpsr_servers_unavailable")):
                assert now[name, labels] >= count, f"{name} went back"
        before = now
    bounded(made.text())


def bounded(text: str) -> None:
    """Every label has a value that it may have, and histograms are histograms."""
    for name, family in parsed(text).items():
        for sample in family.samples:
            for key, word in sample.labels.items():
                assert key in ("gpu", "le") or word in allowed(key), f"{name}: {key}"
                assert key != "gpu" or re.fullmatch(r"other|GPU-[0-9A-Za-z-]+", word)
        if FAMILIES[name].kind is Kind.HISTOGRAM:
            assert cumulative(family)


@pytest.mark.parametrize("stranger", ['a"\n}\\ 9', "4711", 4711, None, ["x"]])
def test_a_word_that_is_new_counts_as_other(stranger: object) -> None:
    made = Fold()
    for record, _ in RECORDS:
        for key, known in record.items():
            strange = dict.fromkeys(known, stranger) if isinstance(known, dict) else stranger
            if key != "event":
                made.take({"wall": WALL, **record, key: strange})
    bounded(made.text())
    assert "4711" not in made.text()
    others = {name for (name, labels) in samples(made.text()) if ("other" in dict(labels).values())}
    assert len(others) >= 10, "the strangers were not met"


def cumulative(family: Metric) -> bool:
    """Buckets only grow, and the last one is the count."""
    for whole in (sample for sample in family.samples if sample.name.endswith("_count")):
        buckets = [
            sample.value
            for sample in family.samples
            if sample.name.endswith("_bucket") and whole.labels.items() <= sample.labels.items()
        ]
        if buckets != sorted(buckets) or buckets[-1] != whole.value:
            return False
    return True


@given(st.lists(st.text(max_size=40), max_size=8))
def test_no_line_breaks_it(lines: list[str]) -> None:
    made = Fold()
    for line in lines:
        made.line(line)
    assert value(made.text(), "mpsr_journal_skipped_lines_total") == sum(bool(line.strip()) for line in lines)


# ---------------------------------------------------------------- the pages
@pytest.mark.parametrize("page", ["how-to/metrics.md", "reference/metrics.md"])
def test_queries_on_the_pages_name_what_there_is(page: str) -> None:
    text = (Path(__file__).parents[2] / "docs" / page).read_text(encoding="utf-8")
    found = re.findall(r"\b(mpsr_[a-z_]+)(?:\{([^}]*)\})?", text)
    assert found
    for name, selector in found:
        family = FAMILIES.get(name) or FAMILIES[re.sub(r"_(bucket|count|sum)\Z", "", name)]
        assert (name != family.name) <= (family.kind is Kind.HISTOGRAM)
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
