"""A record of the guard module, through the agent: the client is acknowledged and ended, its neighbour hears nothing of it.

The agent, its sockets and its files are real (agent_kit); the module is the other end of a packet socket.
"""

import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from resilience.adapters.gpu.guard import GuardDevice
from resilience.cli import status
from resilience.hooks import prolog
from resilience.model.errors import ConfigError
from resilience.model.guard import Level
from resilience.model.ids import GpuMinor, JobId, ProcessId, ServerId
from resilience.model.lease import Isolation
from resilience.model.options import JobOptions, Require
from resilience.model.settings import Recovery
from resilience.placement import domain_plan
from resilience.ports import Gpu
from resilience.report import node_status
from tests.unit.agent_kit import BOUND, OneGpu, Site, Supervisor, until
from tests.unit.machine_kit import UUID, lease, server
from tests.unit.test_guard_records import changed


class Device(GuardDevice):
    """A module that stays, and isolates."""

    def isolates(self) -> bool:
        return True


class Module:
    """The kernel's end of the device."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        ours, self.socket = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        self.socket.settimeout(BOUND)
        with monkeypatch.context() as patch:
            patch.setattr("os.open", lambda path, flags: ours.detach())
            self.device = Device("/dev/mps_guard")
        self.ended: list[tuple[ProcessId, ServerId | None]] = []

    def end(self, process: ProcessId, where: ServerId | None) -> str:
        self.ended.append((process, where))
        return ""

    def told(self) -> bytes:
        return self.socket.recv(200)


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Iterator[Module]:
    made = Module(monkeypatch)
    yield made
    made.device.close()
    made.socket.close()


def two_tasks(site: Site) -> tuple[Supervisor, Supervisor]:
    guilty, other = (site.task(lease(job, isolation=Isolation.GUARD)).run() for job in (1, 2))
    other.say("keeper", state="restored")
    until(lambda: [row for row in site.journal("observation") if row["what"] == "keeper"], "all messages are taken")
    return guilty, other


def test_an_isolated_client_is_ended_and_its_neighbour_left_alone(tmp_path: Path, module: Module) -> None:
    with Site(tmp_path, guard=module.device, end_client=module.end) as site:
        guilty, other = two_tasks(site)
        assert module.told() == f"gpu {UUID.removeprefix('GPU-').replace('-', '')}".encode()
        module.socket.send(changed(kind=1, pid=0) + changed(pid=guilty.pid))
        assert module.told() == b"ack 79"
        until(lambda: module.ended, "the end of the client")
        assert module.ended == [(ProcessId(pid=guilty.pid, starttime=1187), server("a"))]
        words = other.hear("log")
        assert (
            f"GPU fault on {UUID}: illegal address, by job 1 step 0 task 0 certain (the guard names job 1 step 0 task 0)"
            in words["line"]
        )
        assert words["line"].endswith("step 0 task 0 bystander; isolation: guard; isolated, no neighbour touched")
        guilty.say("exit", role="active", pid=guilty.pid, status=9)
        verdict = guilty.hear("verdict")
        assert (verdict["action"], verdict["part"]) == ("fail", "culprit")
        # The same client faults again before it is gone: it is being ended already.
        module.socket.send(changed(pid=guilty.pid) + changed(kind=5, pid=guilty.pid))
        until(lambda: [row for row in site.journal("observation") if row["what"] == "released"], "the release")
        assert len(module.ended) == 1
        assert {row["task"] for row in site.journal("verdict")} == {"1.0.0"}
        assert [row["what"] for row in site.journal("observation") if row["source"] == "guard"] == [
            "isolated",
            "ended",
            "isolated",
            "released",
        ]


class MigGpu(OneGpu):
    def all(self) -> tuple[Gpu, ...]:
        return tuple(replace(gpu, mig=True) for gpu in super().all())


def test_a_gpu_in_mig_mode_is_not_taught(tmp_path: Path, module: Module) -> None:
    """Its tasks say hello, which teaches any other GPU; the module then hears of the acknowledgement first."""
    with Site(tmp_path, guard=module.device, end_client=module.end, gpus=MigGpu()) as site:
        guilty, _ = two_tasks(site)
        module.socket.send(changed(pid=guilty.pid))
        assert module.told() == b"ack 79"
        (said,) = [row for row in site.journal("observation") if row["what"] == "mig"]
        assert said["text"] == f"guard module: {UUID} is in MIG mode: faults on its instances are not isolated"


def test_a_client_outside_our_supervisors_is_ended_on_its_server(tmp_path: Path, module: Module) -> None:
    with Site(tmp_path, guard=module.device, end_client=module.end) as site:
        two_tasks(site)
        site.leases.leases[JobId(9)] = lease(9)
        site.procfs.jobs[7777] = JobId(9)
        site.log("a", "NEW CLIENT 7777 from user 1001: Server already exists", control=True)
        until(lambda: 7777 in site.agent.state.pairs[server("a").domain, server("a").gpu].strangers, "the connection")
        module.socket.send(changed(pid=7777))
        until(lambda: module.ended, "the end of the client")
        assert module.ended == [(ProcessId(pid=7777, starttime=1187), server("a"))]
        assert until(lambda: site.journal("incident.attributed"), "attribution")[0]["culprit"] == "job 9 process 7777"


def test_observing_only_leaves_the_end_to_the_module(tmp_path: Path, module: Module) -> None:
    with Site(tmp_path, Recovery(mode="observe"), guard=module.device, end_client=module.end) as site:
        guilty, _ = two_tasks(site)
        assert module.told().startswith(b"gpu ")
        module.socket.send(changed(pid=guilty.pid))
        until(lambda: [row for row in site.journal("observation") if row["what"] == "isolated"], "the record")
        module.socket.send(changed(kind=4, pid=guilty.pid))
        until(lambda: [row for row in site.journal("observation") if row["what"] == "killed"], "the next record")
        assert module.ended == []
        module.socket.setblocking(False)
        with pytest.raises(BlockingIOError):
            module.socket.recv(200)


def test_records_of_another_version_do_not_stop_the_agent(tmp_path: Path, module: Module) -> None:
    with Site(tmp_path, guard=module.device, end_client=module.end) as site:
        guilty, _ = two_tasks(site)
        module.socket.send(changed(version=7))
        module.socket.send(changed(pid=guilty.pid))
        until(lambda: module.ended, "the end of the client")


def test_what_passed_is_journalled_and_opens_no_incident(tmp_path: Path, module: Module) -> None:
    with Site(tmp_path, guard=module.device, end_client=module.end) as site:
        guilty, _ = two_tasks(site)
        module.socket.send(changed(kind=2, why=13, pid=guilty.pid))
        (row,) = until(lambda: [row for row in site.journal("observation") if row["what"] == "passed"], "the record")
        assert row["text"].endswith("not isolated: not a process that is guarded")
        assert not site.journal("incident.opened")


# ---------------------------------------------------------------- what a node says it has
@pytest.mark.parametrize(
    ("isolation", "refused"), [(Isolation.GUARD, False), (Isolation.SM, False), (Isolation.DOMAINS, True)]
)
def test_isolation_that_is_required(isolation: Isolation, refused: bool) -> None:
    options = JobOptions(mps=True, require=Require.ISOLATION)

    def opening() -> None:
        domain_plan.opening(options, server("a").domain, ((GpuMinor(0), UUID),), lambda _: None, isolation=isolation)

    if refused:
        with pytest.raises(ConfigError, match="--mps-require=isolation"):
            opening()
    else:
        opening()


@pytest.mark.parametrize(
    ("level", "word"),
    [(Level.ON, "guard"), (Level.OBSERVE, "only observes"), (Level.OFF, "off"), (Level.BLIND, "knows no GPU")],
)
def test_status_names_the_level(level: Level, word: str) -> None:
    seen = status.Status(node="n0", agent=True, leases=(), broken=(), servers=None, guard=level)
    assert word in node_status.lines(status.shown(seen))[1]


@pytest.mark.parametrize(
    ("level", "isolation"),
    [(Level.ON, Isolation.GUARD), (Level.OFF, Isolation.DOMAINS), (Level.BLIND, Isolation.DOMAINS)],
)
def test_the_prolog_asks_the_module(level: Level, isolation: Isolation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resilience.adapters.gpu.guard.level", lambda: level)
    assert prolog.isolation() is isolation


@pytest.mark.parametrize(
    ("began", "level", "words"),
    [
        (Isolation.DOMAINS, Level.OFF, "isolation domains,"),
        (Isolation.DOMAINS, Level.ON, "isolation guard (domains when the job began),"),
        (Isolation.GUARD, Level.ON, "isolation guard,"),
        (Isolation.GUARD, Level.OFF, "isolation domains (guard when the job began),"),
        (Isolation.GUARD, Level.BLIND, "isolation domains (guard when the job began),"),
        (Isolation.GUARD, Level.ABSENT, "isolation domains (guard when the job began),"),
        (Isolation.SM, Level.OFF, "isolation sm (SM partition 3),"),
        (Isolation.SM, Level.ON, "isolation guard (sm when the job began) (SM partition 3),"),
    ],
)
def test_status_tells_what_keeps_a_jobs_faults_now(began: Isolation, level: Level, words: str) -> None:
    held = lease(1, isolation=began, slot=3 if began is Isolation.SM else 0)
    seen = status.Status(node="n0", agent=True, leases=(held,), broken=(), servers=None, guard=level)
    assert words in "\n".join(node_status.lines(status.shown(seen)))
