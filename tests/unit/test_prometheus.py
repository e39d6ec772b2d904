"""Rules and dashboard: promtool's own tests, and a real Prometheus that scrapes our figures and answers every query with data."""

import json
import os
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from resilience.metrics import FAMILIES, Fold
from tests.unit.metrics_kit import RECORDS, take

ROOT = Path(__file__).parents[2]
RULES, DASHBOARD = ROOT / "templates/prometheus/mpsr.rules.yml", ROOT / "templates/grafana/mpsr.json"
PATH = f"{os.environ.get('PATH', '')}:{ROOT}/build/prometheus/usr/bin"
PROMETHEUS, PROMTOOL = shutil.which("prometheus", path=PATH), shutil.which("promtool", path=PATH)
needs_it = pytest.mark.skipif(
    not (PROMETHEUS and PROMTOOL), reason="no promtool: bash tests/setup/prometheus.sh fetches it"
)
OURS = "node_systemd_unit_state"
"""The one metric that is node_exporter's."""
VARIABLES = {"$__range": "5m", "$__rate_interval": "1m", "$instance": ".*"}


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"] for rule in group["rules"]]


def queries() -> list[tuple[str, str]]:
    """Title of a panel and an expression, with Grafana's variables filled in."""
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    found = [(panel["title"], target["expr"]) for panel in panels for target in panel["targets"]]
    for name, value in VARIABLES.items():
        found = [(title, query.replace(name, value)) for title, query in found]
    return found


# ---------------------------------------------------------------- what they name is there
def test_rules_and_dashboard_name_what_there_is() -> None:
    texts = [query for _, query in queries()] + [rule["expr"] for rule in rules()]
    for name, selector in re.findall(r"\b(mpsr_[a-z_]+)\{([^}]*)\}", " ".join(texts)):
        family = FAMILIES.get(name) or FAMILIES[re.sub(r"_(bucket|count|sum)\Z", "", name)]
        labels = {label.name: label.values for label in family.labels}
        for label, pattern in re.findall(r'(\w+)!?=~?"([^"]*)"', selector):
            assert label == "instance" or set(pattern.split("|")) <= set(labels[label]), f"{name}: {label}"


def test_panels_do_not_overlap_and_each_has_what_grafana_needs() -> None:
    taken: set[tuple[int, int]] = set()
    panels = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells
        assert panel["targets"]
        for one in (panel, *panel["targets"]):
            assert one["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


def test_grafanas_own_types_take_the_dashboard_without_loss() -> None:
    raw = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    plugins.register_default_plugins()
    back = json.loads(json.dumps(Dashboard.from_json(raw), cls=JSONEncoder))
    assert lost(raw, back) == []
    assert lost(raw | {"panles": 1}, back) == [".panles"]


def lost(given: Any, back: Any, path: str = "") -> list[str]:
    """What is not in `back` as it was given. Defaults that were added do not count."""
    if isinstance(given, dict) and isinstance(back, dict):
        there = [found for key in given.keys() & back.keys() for found in lost(given[key], back[key], f"{path}.{key}")]
        return [*there, *(f"{path}.{key}" for key in given.keys() - back.keys())]
    if isinstance(given, list) and isinstance(back, list) and len(given) == len(back):
        pairs = enumerate(zip(given, back, strict=True))
        return [found for number, (one, two) in pairs for found in lost(one, two, f"{path}[{number}]")]
    return [] if given == back else [path]


def test_every_alert_has_a_test_that_it_fires_and_one_that_it_is_quiet() -> None:
    tests = yaml.safe_load((RULES.parent / "mpsr.test.yml").read_text(encoding="utf-8"))["tests"]
    told = [one for test in tests for one in test.get("alert_rule_test", ())]
    alerts = {rule["alert"] for rule in rules() if "alert" in rule}
    assert {one["alertname"] for one in told if one["exp_alerts"]} == alerts
    assert {one["alertname"] for one in told if not one["exp_alerts"]} == alerts
    recorded = {one["expr"] for test in tests for one in test.get("promql_expr_test", ())}
    assert recorded == {rule["record"] for rule in rules() if "record" in rule}


@needs_it
def test_promtool_takes_the_rules_and_their_tests_hold() -> None:
    assert PROMTOOL
    for words in (["check", "rules", RULES.name], ["test", "rules", "mpsr.test.yml"]):
        done = subprocess.run([PROMTOOL, *words], cwd=RULES.parent, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


# ---------------------------------------------------------------- a real Prometheus
class Node:
    """What node_exporter shows of a node whose journal grows: at first nothing has happened, later all of it."""

    def __init__(self) -> None:
        self.fold = Fold()
        self.scrapes = 0
        take(self.fold, {"event": "agent.started", "mode": "act"})
        node = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                text = f'{OURS}{{name="mpsr-agent.service",state="active"}} 0\n{node.fold.text()}'
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.end_headers()
                self.wfile.write(text.encode())
                node.scrapes += 1

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def happen(self) -> None:
        """Every kind of record, and a recovery that has kept GPU time."""
        made = Fold()
        take(made, {"event": "agent.started", "mode": "act"})
        tasks = {"outcomes": {"7.0.0": "recovered"}, "parts": {"7.0.0": "bystander"}}
        for record in (
            {"event": "job.opened", "job": 7, "gpus": [0], "mono": 100},
            {"event": "incident.opened", "incident": "k", "mono": 200},
            {
                "event": "recovered",
                "action": "restore",
                "incident": "k",
                "task": "7.0.0",
                "seq": 3,
                "ms": 500,
                "mono": 200,
            },
            {"event": "incident.closed", "incident": "k", **tasks, "mono": 201},
        ):
            take(made, record)
        failed = {"outcomes": {"8.0.0": "failed"}, "parts": {"8.0.0": "bystander"}}
        device = {"event": "incident.closed", "fault_class": "device", "blameless": True, **failed}
        silent = {"event": "incident.closed", "fault_class": "mmu", "confidence": "none"}
        down = {"event": "server.replaced", "server": "u1001/g0/a", "ok": False}
        events: list[dict[str, Any]] = [device, *[silent] * 6, *(one for one, _ in RECORDS), down]
        for record in events:
            take(made, record)
        self.fold = made


def wait_for(condition: Callable[[], bool], seconds: float, says: Callable[[], str]) -> None:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise AssertionError(says())
        threading.Event().wait(0.1)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prometheus that has seen a node before and after its faults, with our rules."""
    assert PROMETHEUS
    directory, node = tmp_path_factory.mktemp("prometheus"), Node()
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(RULES)],
        "scrape_configs": [
            {"job_name": "node", "static_configs": [{"targets": [f"127.0.0.1:{node.server.server_port}"]}]}
        ],
    }
    (directory / "prometheus.yml").write_text(yaml.safe_dump(config))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [PROMETHEUS, f"--config.file={directory}/prometheus.yml", f"--storage.tsdb.path={directory}/data"]
    with (
        (directory / "log").open("w") as log,
        subprocess.Popen(
            [*command, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=subprocess.STDOUT
        ) as server,
    ):
        try:
            wait_for(lambda: node.scrapes >= 2, 60, (directory / "log").read_text)
            node.happen()
            before = node.scrapes
            wait_for(lambda: node.scrapes >= before + 3, 60, (directory / "log").read_text)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            node.server.shutdown()


def ask(address: str, path: str, **parameters: str) -> Any:
    url = f"{address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
    with urllib.request.urlopen(url, timeout=30) as answer:
        found = json.load(answer)
    assert found["status"] == "success"
    return found["data"]


def has_data(address: str, query: str) -> bool:
    result = ask(address, "query", query=query)["result"]
    return any(one["value"][1] != "NaN" for one in result)


@needs_it
def test_every_query_of_the_dashboard_returns_data(address: str) -> None:
    asked = queries()
    assert len(asked) > 20
    for title, query in asked:
        wait_for(lambda query=query: has_data(address, query), 30, lambda title=title, query=query: f"{title}: {query}")  # type: ignore[misc]


@needs_it
def test_every_rule_records_or_fires(address: str) -> None:
    for rule in rules():
        query = rule.get("record") or f'ALERTS{{alertname="{rule["alert"]}"}}'
        wait_for(lambda query=query: has_data(address, query), 30, lambda rule=rule: f"{rule}")  # type: ignore[misc]
    found = [rule for group in ask(address, "rules")["groups"] for rule in group["rules"]]
    assert [rule.get("lastError") for rule in found if rule.get("lastError")] == []
    assert len(found) == len(rules())
