"""What one user's log, words and processes say reaches nobody in another's domain."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from resilience.agent.clients import Clients
from resilience.model import effect as fx
from resilience.model.ids import Color, DomainKey, JobId
from resilience.model.lease import Lease
from resilience.model.observation import Client
from resilience.model.world import ServerState
from tests.unit.agent_kit import FakeLeases, FakeProcfs, Site, until
from tests.unit.machine_kit import lease, ref, server

ALICE, BOB = DomainKey("u1001"), DomainKey("u1002")


def bobs(job: int) -> Lease:
    return replace(lease(job), uid=1002, domain=BOB, user="bob")


@pytest.fixture
def procfs() -> FakeProcfs:
    return FakeProcfs()


@pytest.fixture
def clients(procfs: FakeProcfs) -> Clients:
    return Clients(procfs, FakeLeases({JobId(1): lease(1), JobId(5): bobs(5)}))


def _mine(clients: Clients, procfs: FakeProcfs, pid: int = 500) -> Client:
    """A living process of alice's task, whose supervisor is 400."""
    procfs.parents[pid] = 400
    assert clients.learn(pid, ref(1), ALICE, 400)
    return Client(pid=pid, task=ref(1), job=JobId(1))


# ---------------------------------------------------------------- lines of logs
def test_a_log_of_another_domain_cannot_make_a_client_a_daemon(clients: Clients, procfs: FakeProcfs) -> None:
    alices = _mine(clients, procfs)
    procfs.jobs[600] = JobId(1)
    for pid in (500, 600):
        clients.daemon(pid, BOB)
    assert clients.resolve(500, ALICE) == alices
    assert clients.resolve(600, ALICE) == Client(pid=600, job=JobId(1))
    assert clients.resolve(600, BOB) is None
    assert clients.resolve(500) == alices, "the kernel's word"


def test_a_log_of_another_domain_cannot_make_a_late_line_unreadable(clients: Clients, procfs: FakeProcfs) -> None:
    alices = _mine(clients, procfs)
    clients.forget(ref(1), ALICE)
    del procfs.parents[500]
    for pid in range(500, 9000):
        procfs.jobs[pid], procfs.uids[pid] = JobId(5), 1002
        clients.connected(pid, BOB)
    assert clients.resolve(500, ALICE) == alices


def test_a_process_is_of_a_job_of_its_own_user_only(clients: Clients, procfs: FakeProcfs) -> None:
    """The environment is the user's to change."""
    procfs.jobs[700], procfs.uids[700] = JobId(1), 1002
    assert clients.resolve(700, DomainKey("shared")) is None


def test_a_number_that_is_used_again_is_not_the_tasks(clients: Clients, procfs: FakeProcfs) -> None:
    _mine(clients, procfs)
    procfs.began[500] = 2
    procfs.parents[500], procfs.jobs[500], procfs.uids[500] = 1, JobId(5), 1002
    assert clients.connected(500, DomainKey("shared")) == Client(pid=500, job=JobId(5))


def test_a_decoy_in_another_log_does_not_hide_the_culprit(tmp_path: Path) -> None:
    with Site(tmp_path) as site:
        guilty, other = site.task(lease(1)).run(), site.task(lease(2)).run()
        site.task(bobs(5)).run(standby="")
        until(lambda: len(site.journal("task.hello")) == 3, "hellos")
        log = tmp_path / "log" / BOB / "g0" / "a" / "server.log"
        log.parent.mkdir(parents=True)
        decoy = f"[2026-03-02 08:12:00.001 Server {guilty.pid}] Client {{PID: 1, Context: 1}} connected\n"
        log.write_text(decoy + "[2026-03-02 08:12:00.001 Server 1] something\n")
        until(lambda: [row for row in site.journal("observation") if "something" in str(row["text"])], "the decoy")
        site.log("a", f"Client {{PID: {guilty.pid}, Context: 1}} encountered a fatal GPU error.")
        assert other.hear("verdict")["part"] == "bystander"
        assert guilty.hear("verdict")["part"] == "culprit"


# ---------------------------------------------------------------- daemons
def test_daemons_that_answer_nobody_hold_up_their_own_domain_alone(tmp_path: Path) -> None:
    with Site(tmp_path) as site, released(site, BOB) as stopped:
        for _ in range(30):
            site.task(bobs(5)).close()
        guilty, other = site.task(lease(1)).run(), site.task(lease(2)).run()
        site.mps.states[server("a")] = ServerState.FAULT
        guilty.say("exit", role="active", pid=guilty.pid, status=256)
        assert other.hear("verdict")["action"] in ("promote", "restore")
        site.mps.states[server("a")] = ServerState.ACTIVE
        until(lambda: site.journal("server.rebuilt"), "the server")
        assert not stopped.is_set()
        assert [call for call in site.mps.calls if call[0] == "unanswered"] == [("unanswered", server("a", BOB))]


@contextmanager
def released(site: Site, domain: DomainKey) -> Iterator[threading.Event]:
    """A domain whose daemons are stopped, until the test is over."""
    stopped = site.mps.stopped[domain] = threading.Event()
    try:
        yield stopped
    finally:
        stopped.set()


# ---------------------------------------------------------------- words of supervisors
def test_a_process_of_others_is_nobodys_to_claim(clients: Clients, procfs: FakeProcfs) -> None:
    alices = _mine(clients, procfs)
    assert not clients.learn(500, ref(5), BOB, 900), "it lives"
    del procfs.parents[500]
    assert not clients.learn(500, ref(5), BOB, 900), "it has gone, and is known"
    assert clients.resolve(500, ALICE) == alices


def test_a_number_that_nobody_has_is_claimed_in_the_own_domain_alone(clients: Clients, procfs: FakeProcfs) -> None:
    assert clients.learn(800, ref(5), BOB, 900)
    procfs.parents[800], procfs.jobs[800] = 1, JobId(1)
    assert clients.resolve(800, ALICE) == Client(pid=800, job=JobId(1))
    assert clients.resolve(800) == Client(pid=800, job=JobId(1)), "the kernel's word"


def test_a_hello_cannot_bring_a_process_of_others(tmp_path: Path) -> None:
    with Site(tmp_path) as site:
        site.procfs.parents[4000] = 1
        loud = site.task(lease(1), resumed=1, active_pid=4000, color="a")
        assert "active_pid names a process that is not the task's" in loud.hear("refuse")["reason"]


def test_a_hello_cannot_bring_a_server_that_there_is_not(tmp_path: Path) -> None:
    with Site(tmp_path) as site:
        refused = site.task(lease(1), resumed=1, color="q99999").hear("refuse")["reason"]
        assert "color names no server of job 1" in refused
        site.leases.there.append(server("q3"))
        assert site.task(lease(1), resumed=1, color="q3").hear("place")["color"] == "q3"
        assert list(site.agent.state.pairs[server("a").domain, server("a").gpu].servers) == [
            Color("a"),
            Color("b"),
            Color("q3"),
        ]


def test_only_a_living_process_of_the_task_is_terminated(tmp_path: Path) -> None:
    """Its number may have become another's since it was told to us."""
    with Site(tmp_path) as site:
        site.task(lease(1)).hear("place")
        site.procfs.parents |= {7001: 1, 7002: os.getpid()}
        site.mps.joined[server("a")] = (7000, 7001, 7002)
        for number in (7000, 7001, 7002):
            site.agent._actor.carry_out(fx.TerminateClient(ref=ref(1), server=server("a"), pid=number))
        until(lambda: ("end", server("a"), (7002,)) in site.mps.calls, "the task's own")
        assert [call for call in site.mps.calls if call[0] == "end"] == [("end", server("a"), (7002,))]
