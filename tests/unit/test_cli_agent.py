"""mpsr agent as a process of its own: it starts without GPU and Slurm, is alone, reloads, and leaves cleanly."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from resilience.cli.status import answers
from tests.cluster.sandbox import wait_for
from tests.unit.metrics_kit import value

ROOT = Path(__file__).parents[2]
SECONDS = 15.0


class Node:
    """A node in a directory, and its agent."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.config = home / "mpsr.yaml"
        self.errors = home / "stderr"
        self.journal = home / "l" / "n0" / "journal.jsonl"
        self.socket = str(home / "r" / "n0" / "agent.sock")
        (home / "kmsg").write_text("")
        self.settings("act")
        self.agents: list[subprocess.Popen[bytes]] = []

    def settings(self, mode: str, metrics: str = "") -> None:
        self.config.write_text(
            f"paths: {{run: {self.home}/r, log: {self.home}/l, state: {self.home}/s, kmsg: {self.home}/kmsg, scontrol: /nonexistent,"
            f' metrics: "{metrics}"}}\n'
            f"recovery: {{mode: {mode}}}\nslurm: {{adapter: scontrol}}\n"
        )

    def start(self) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "resilience.cli.main", "agent", "--node", "n0", "--config", str(self.config)]
        with self.errors.open("ab") as errors:
            agent = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors)
        self.agents.append(agent)
        return agent

    def events(self, name: str) -> list[dict[str, object]]:
        lines = self.journal.read_text().splitlines() if self.journal.exists() else []
        return [record for record in map(json.loads, lines) if record["event"] == name]


@pytest.fixture
def node() -> Iterator[Node]:
    home = Path(tempfile.mkdtemp(prefix="ag-", dir="/tmp"))
    home.chmod(0o755)
    made = Node(home)
    yield made
    for agent in made.agents:
        if agent.poll() is None:
            agent.kill()
        agent.wait(SECONDS)
    shutil.rmtree(home)


def until(what: Callable[[], object], node: Node) -> None:
    wait_for(what, SECONDS, node.errors.read_text)


def test_it_starts_answers_and_leaves_on_sigterm(node: Node) -> None:
    agent = node.start()
    until(lambda: node.events("agent.started") and answers(node.socket), node)
    assert node.events("agent.started")[0]["mode"] == "act"
    agent.send_signal(signal.SIGTERM)
    assert agent.wait(SECONDS) == 0
    assert len(node.events("agent.stopped")) == 1
    assert node.journal.stat().st_mode & 0o777 == 0o640


def test_a_second_one_is_refused_and_the_first_goes_on(node: Node) -> None:
    first = node.start()
    until(lambda: answers(node.socket), node)
    assert node.start().wait(SECONDS) == 1
    assert "mpsr: agent: already runs on this node: n0" in node.errors.read_text()
    assert first.poll() is None
    assert answers(node.socket)


def test_the_next_one_takes_over_after_a_kill(node: Node) -> None:
    node.start()
    until(lambda: node.events("agent.started"), node)
    node.agents[0].kill()
    node.agents[0].wait(SECONDS)
    node.start()
    until(lambda: len(node.events("agent.started")) == 2 and answers(node.socket), node)


def test_sighup_takes_good_settings_and_refuses_bad_ones(node: Node) -> None:
    agent = node.start()
    until(lambda: node.events("agent.started"), node)
    node.config.write_text("recovery: {mode: obsrve}\n")
    agent.send_signal(signal.SIGHUP)
    until(lambda: "the old settings stay in force" in node.errors.read_text(), node)
    assert "did you mean observe?" in node.errors.read_text()
    assert len(node.events("agent.started")) == 1
    node.settings("observe")
    agent.send_signal(signal.SIGHUP)
    until(lambda: len(node.events("agent.started")) == 2, node)
    assert node.events("agent.started")[1]["mode"] == "observe"
    assert agent.poll() is None
    agent.send_signal(signal.SIGTERM)
    assert agent.wait(SECONDS) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="root's directories alone are written to")
def test_metrics_are_there_while_the_agent_is_and_only_if_asked_for(node: Node) -> None:
    metrics = node.home / "textfile"
    file = metrics / "mpsr-n0.prom"
    metrics.mkdir(mode=0o755)
    agent = node.start()
    until(lambda: answers(node.socket), node)
    assert not file.exists()
    node.settings("observe", str(metrics))
    agent.send_signal(signal.SIGHUP)
    until(lambda: file.exists() and 'mpsr_agent_mode{mode="observe"} 1' in file.read_text(), node)
    started = node.events("agent.started")[1]["wall"]
    assert value(file.read_text(), "mpsr_agent_start_time_seconds") == started
    agent.send_signal(signal.SIGTERM)
    assert agent.wait(SECONDS) == 0
    assert not file.exists()


def test_directories_that_cannot_be_had_are_said(node: Node) -> None:
    (node.home / "r").write_text("a file")
    assert node.start().wait(SECONDS) == 1
    assert "cannot be used" in node.errors.read_text()


@pytest.mark.skipif(os.geteuid() != 0, reason="the hooks run as root")
@pytest.mark.parametrize("name", ["prolog", "epilog"])
@pytest.mark.parametrize("environ", [{}, {"SLURMD_NODENAME": "n0", "SLURM_JOB_ID": "7", "SLURM_JOB_UID": "65534"}])
def test_the_hooks_end_well_for_a_job_that_did_not_ask(node: Node, name: str, environ: dict[str, str]) -> None:
    command = [sys.executable, "-m", "resilience.cli.main", name]
    environment = {"PATH": os.defpath, "MPSR_CONFIG": str(node.config), **environ}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=SECONDS
    )
    assert done.returncode == 0
    assert ("no usable SLURMD_NODENAME" in done.stderr) is (not environ)


@pytest.mark.skipif(os.geteuid() != 0, reason="the hooks run as root")
def test_a_job_that_cannot_have_mps_gets_a_lease_that_says_why(node: Node) -> None:
    environment = {
        "PATH": os.defpath,
        "MPSR_CONFIG": str(node.config),
        "SLURMD_NODENAME": "n0",
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_UID": "65534",
        "SLURM_JOB_GPUS": "0",
        "SPANK_MPSR": "mps=on;domain=shared",
    }
    command = [sys.executable, "-m", "resilience.cli.main", "prolog"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=SECONDS
    )
    assert done.returncode == 0
    lease = (node.home / "r" / "n0" / "jobs" / "7.lease").read_text()
    assert "state=refused" in lease
    assert [record["job"] for record in node.events("job.refused")] == [7]
