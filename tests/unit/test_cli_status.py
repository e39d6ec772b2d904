"""mpsr status: what is there is shown, what is wrong changes the exit status, and looking leaves no trace."""

import json
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from resilience.adapters.linux.leases import LeaseFiles
from resilience.cli import status
from resilience.cli.main import main
from resilience.config.node_name import node_name
from resilience.model.errors import ConfigError
from resilience.model.ids import Color, DomainKey, GpuMinor, GpuUuid, JobId, NodeName
from resilience.model.lease import Isolation, Lease, LeaseState
from resilience.model.options import JobOptions
from resilience.report import node_status
from resilience.report.node_status import ServerRow
from tests.unit.domain_world import MemoryJournal

NODE = NodeName("n0")
LEASE = Lease(
    job=JobId(12),
    uid=1001,
    gid=1001,
    user="alice",
    node=NODE,
    restart=0,
    state=LeaseState.OPEN,
    reason="",
    options=JobOptions(mps=True),
    domain=DomainKey("u1001"),
    isolation=Isolation.DOMAINS,
    slots=(),
    colors=(Color("a"), Color("b")),
    gpus=((GpuMinor(0), GpuUuid("GPU-1")),),
    run="/run/mpsr",
    log="/var/log/mpsr",
    agent="/run/mpsr/n0/agent.sock",
    python="/usr/bin/python3",
    spill="",
    opened=1790000000.0,
)
UP = ServerRow(domain="u1001", gpu=0, color="a", state="ACTIVE", clients=2, active=True, needed=True)
GOOD = status.Status(node="n0", agent=True, leases=(LEASE,), broken=(), servers=(UP,))


def told(seen: status.Status) -> list[str]:
    return node_status.lines(status.shown(seen))


@pytest.fixture
def run_dir() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="st-", dir="/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def test_what_is_there_is_shown() -> None:
    refused = replace(LEASE, job=JobId(13), state=LeaseState.REFUSED, reason="no GPU library")
    spare = replace(UP, color="b", clients=1, active=False, needed=False, state="ABSENT")
    assert told(replace(GOOD, leases=(LEASE, refused), servers=(UP, spare))) == [
        "node n0: the agent answers",
        "isolation of new jobs: domains (no guard module)",
        "server u1001/g0/a: ACTIVE, 2 clients, new tasks join it",
        "server u1001/g0/b: ABSENT, 1 client, no lease names it",
        "lease of job 12 (alice): open, domain u1001, GPU 0, isolation domains, standby yes",
        "lease of job 13 (alice): refused: no GPU library",
    ]


@pytest.mark.parametrize(
    ("changed", "good"),
    [
        (GOOD, True),
        (replace(GOOD, agent=False), False),
        (replace(GOOD, agent=False, leases=()), True),
        (replace(GOOD, broken=("12.lease: bad",)), False),
        (replace(GOOD, servers=(replace(UP, state="FAULT"),)), False),
        (replace(GOOD, servers=(replace(UP, state="ABSENT", needed=False),)), True),
        (replace(GOOD, servers=None), True),
    ],
)
def test_what_is_wrong_changes_the_exit_status(changed: status.Status, good: bool) -> None:
    assert changed.good() is good


def test_sm_partitions_are_shown_and_who_has_none() -> None:
    cut = replace(UP, domain="u1001-sm", partitions=4)
    inside = replace(LEASE, domain=DomainKey("u1001-sm"), isolation=Isolation.SM, slots=((GpuMinor(0), 2),))
    outside = replace(LEASE, job=JobId(13), reason="SM partition: none of 4 is free: GPU 0")
    shown = replace(GOOD, leases=(inside, outside), servers=(cut,), sm_partitions="auto")
    assert told(shown)[1:] == [
        "isolation of new jobs: domains (no guard module), and SM partitions where the driver isolates them",
        "server u1001-sm/g0/a: ACTIVE, 2 clients, 4 SM partitions, new tasks join it",
        "lease of job 12 (alice): open, domain u1001-sm, GPU 0, isolation sm (SM partition 2), standby yes",
        "lease of job 13 (alice): open, domain u1001, GPU 0, isolation domains, standby yes; "
        "SM partition: none of 4 is free: GPU 0",
    ]


def test_a_missing_agent_is_told_with_the_way_out() -> None:
    assert "systemctl start mpsr-agent" in "\n".join(told(replace(GOOD, agent=False)))


def test_an_agent_answers_when_it_takes_connections(run_dir: Path) -> None:
    name = str(run_dir / "agent.sock")
    assert not status.answers(name)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as agent:
        agent.bind(name)
        assert not status.answers(name)
        agent.listen()
        assert status.answers(name)
    assert not status.answers(name)


@pytest.mark.skipif(os.geteuid() != 0, reason="leases are trusted when root owns them")
def test_leases_are_read_and_nothing_is_changed(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = run_dir / "mpsr.yaml"
    settings.write_text(f"paths: {{run: {run_dir}/r, log: {run_dir}/l, mps_control: /nonexistent/control}}\n")
    LeaseFiles(f"{run_dir}/r", NODE, MemoryJournal()).write(LEASE)
    before = sorted(run_dir.rglob("*"))
    assert main(["status", "--config", str(settings), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["node"], found["agent"], found["good"]) == ("n0", False, False)
    assert [lease["job"] for lease in found["leases"]] == [12]
    assert [(row["color"], row["needed"]) for row in found["servers"]] == [("a", True), ("b", True)]
    assert all(row["state"] != "ACTIVE" for row in found["servers"])
    assert sorted(run_dir.rglob("*")) == before


def test_the_node_is_named_or_the_only_one(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURMD_NODENAME", raising=False)
    monkeypatch.setattr(socket, "gethostname", lambda: "host7.example.org")
    assert node_name(None, str(run_dir)) == "host7"
    (run_dir / "n0").mkdir()
    assert node_name(None, str(run_dir)) == "n0"
    (run_dir / "n1").mkdir()
    with pytest.raises(ConfigError, match="there are several: n0 n1"):
        node_name(None, str(run_dir))
    (run_dir / "host7").mkdir()
    assert node_name(None, str(run_dir)) == "host7"
    monkeypatch.setenv("SLURMD_NODENAME", "n1")
    assert (node_name(None, str(run_dir)), node_name("n9", str(run_dir))) == ("n1", "n9")
    with pytest.raises(ConfigError, match="--node: is not a node's name"):
        node_name("../etc", str(run_dir))
