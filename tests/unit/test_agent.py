"""The agent end to end over its real socket and real logs: news in at one end, verdicts out at the other."""

import json
import os
import socket
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from resilience.adapters.linux.processes import starttime
from resilience.agent.unread import LINES
from resilience.contract import exit_code
from resilience.model.ids import JobId, ProcessId
from resilience.model.options import Domain, Rung
from resilience.model.settings import Options, PartitionRules, Recovery
from resilience.model.world import ServerState
from tests.unit.agent_kit import BOUND, Site, Supervisor, until
from tests.unit.machine_kit import lease, server


def test_a_line_of_the_server_log_becomes_verdicts(tmp_path: Path) -> None:
    with Site(tmp_path) as site:
        guilty, other = site.task(lease(1)).run(), site.task(lease(2)).run()
        until(lambda: len(site.journal("task.hello")) == 2, "hellos")
        other.say("keeper", state="restored")
        until(lambda: [row for row in site.journal("observation") if row["what"] == "keeper"], "all messages are taken")
        site.log("a", f"Client {{PID: {guilty.pid}, Context: 1}} encountered a fatal GPU error.")
        verdict = other.hear("verdict")
        assert (verdict["action"], verdict["part"], verdict["color"]) == ("promote", "bystander", "b")
        assert verdict["pipe"] == "/p/u1001/g0/b"
        site.kernel(
            f"NVRM: Xid (PCI:0000:06:00): 31, pid={guilty.pid}, name=python3, Ch 00000008, intr 00000000. MMU Fault: "
            "ENGINE GRAPHICS GPCCLIENT_T1_3 faulted @ 0x7f29_5b8c9000. Fault is of type FAULT_PDE ACCESS_TYPE_VIRT_READ"
        )
        last = guilty.hear("verdict")
        assert (last["action"], last["part"]) == ("fail", "culprit")
        assert "illegal address, Xid 31" in last["reason"]
        other.say("stepped", incident=verdict["incident"], seq=7, ms="1.25")
        until(lambda: [call for call in site.slurm.calls if call[:2] == ("comment", 2)], "the account")
        (comment,) = [call[2] for call in site.slurm.calls if call[:2] == ("comment", 2)]
        assert str(comment).startswith("mpsr: 1 fault by job 1 step 0 task 0 (illegal address, Xid 31) on GPU-1d5f7a52")
        assert "recovered on standby in" in str(comment)
        assert site.leases.actives == [server("b")]
        assert until(lambda: site.journal("recovered"), "the outcome")[0]["supervisor_ms"] == 1.25


@pytest.mark.parametrize("ours", [True, False], ids=["host", "container"])
def test_a_number_of_another_count_makes_nobody_the_culprit(tmp_path: Path, ours: bool) -> None:
    """In a container the kernel log's process id may by chance be a bystander's."""
    with Site(tmp_path) as site:
        site.kernel_log.names_our_processes = ours
        one, two = site.task(lease(1)).run(), site.task(lease(2)).run()
        until(lambda: len(site.journal("task.hello")) == 2, "hellos")
        site.kernel(
            f"NVRM: Xid (PCI:0000:06:00): 31, pid={one.pid}, name=python3, Ch 00000008, intr 00000000. MMU Fault: "
            "ENGINE GRAPHICS GPCCLIENT_T1_3 faulted @ 0x7f29_5b8c9000. Fault is of type FAULT_PDE ACCESS_TYPE_VIRT_READ"
        )
        for each in (one, two):
            each.say("fault", role="active", pid=each.pid, cuda=700, call="cuCtxSynchronize", seq=4, text="x")
        two.hear("verdict")
        (row,) = until(lambda: site.journal("incident.attributed"), "the verdict on who did it")
        assert (row.get("culprit") == "job 1 step 0 task 0") is ours


def test_tasks_stay_until_slurm_has_their_jobs_account(tmp_path: Path) -> None:
    """Slurm takes no comment on a job that ends: the task that fails is told to stay before it is told to fail."""
    with Site(tmp_path) as site:
        site.slurm.busy = threading.Event()
        guilty, mate = site.task(lease(1)).run(), site.task(lease(1), task=1).run()
        mate.say("keeper", state="restored")
        until(lambda: [row for row in site.journal("observation") if row["what"] == "keeper"], "all messages are taken")
        site.log("a", f"Client {{PID: {guilty.pid}, Context: 1}} encountered a fatal GPU error.")
        assert guilty.verbs("verdict") == ["hold", "verdict"]
        assert "hold" in mate.verbs("hold")
        until(lambda: [call for call in site.slurm.calls if call[:2] == ("comment", 1)], "the account")
        guilty.close()  # nobody has to wait for one that has gone
        mate.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            mate.verbs("release")
        mate.socket.settimeout(BOUND)
        site.slurm.busy.set()
        assert mate.verbs("release")[-1] == "release"


def test_a_requeue_does_not_hold_up_the_account_of_another_job(tmp_path: Path) -> None:
    """Requeues take seconds, accounts must not wait for them."""
    with Site(tmp_path) as site:
        first = threading.Event()
        site.worker.submit("slurm", lambda: first.wait(BOUND), lambda _: None)
        guilty = site.task(lease(1)).run()
        guilty.say("fault", role="active", pid=guilty.pid, cuda=716, call="c", seq=4, text="misaligned address")
        assert guilty.hear("verdict")["action"] == "fail"
        assert guilty.hear("release") == {}
        first.set()


def test_the_sites_times_go_with_the_place(tmp_path: Path) -> None:
    with Site(tmp_path, Recovery(grace=2.5, restore_timeout=7, requeue_timeout=90)) as site:
        place = site.task(lease(1)).hear("place")
        assert (place["grace_ms"], place["restore_ms"], place["requeue_ms"]) == ("2500", "7000", "90000")
        assert place["spill_ms"] == "60000"


def test_the_jobs_log_tells_the_story_beside_its_output(tmp_path: Path) -> None:
    with Site(tmp_path) as site:
        guilty, other = site.task(lease(1)).run(), site.task(lease(2)).run()
        other.say("keeper", state="restored")
        until(lambda: [row for row in site.journal("observation") if row["what"] == "keeper"], "all messages are taken")
        site.log("a", f"Client process {guilty.pid} encountered a fatal GPU error.")
        other.hear("verdict")
        words = other.hear("log")
        assert words["path"] == f"{tmp_path}/mpsr-2.log"
        assert "GPU fault on GPU-1d5f7a52" in words["line"]
        assert "by job 1 step 0 task 0 certain" in words["line"]


def test_a_fault_report_of_the_only_client(tmp_path: Path) -> None:
    with Site(tmp_path) as site:
        only = site.task(lease(1)).run()
        only.say(
            "fault", role="active", pid=only.pid, cuda=716, call="cuCtxSynchronize", seq=4, text="misaligned address"
        )
        verdict = only.hear("verdict")
        assert (verdict["action"], verdict["part"]) == ("fail", "culprit")


def test_a_new_agent_blames_nobody_by_elimination_until_the_others_are_back(tmp_path: Path) -> None:
    """The first to come back after an agent's death is no more guilty for being the only one known."""
    site = Site(tmp_path, leases=(lease(1), lease(2)))
    with site:
        first = site.task(lease(1), resumed=1, active_pid=os.getpid(), color="a", session=1)
        first.hear("place")
        first.say("fault", role="active", pid=os.getpid(), cuda=715, call="cuCtxSynchronize", seq=4, text="x")
        verdict = first.hear("verdict")
        assert (verdict["action"], verdict["part"]) == ("restore", "suspect")
    assert "culprit" not in site.journal("incident.attributed")[0]


def test_the_daemon_of_an_idle_server_is_missed_at_once(tmp_path: Path) -> None:
    with Site(tmp_path) as site, subprocess.Popen(["sleep", "60"]) as daemon:
        started = starttime(daemon.pid)
        assert started is not None
        site.mps.daemons[server("b")] = ProcessId(pid=daemon.pid, starttime=started)
        site.task(lease(1)).run()
        daemon.kill()
        until(lambda: [call for call in site.mps.calls if call[:2] == ("open", server("b"))], "another server b")
        assert until(lambda: site.journal("server.replaced"), "the outcome")[0]["server"] == "u1001/g0/b"


def test_a_daemon_that_had_died_before_anybody_watched_it_is_missed_too(tmp_path: Path) -> None:
    """As when the agent was away, or when it died between the prolog and the first task."""
    with Site(tmp_path) as site:
        site.mps.daemons[server("b")] = None
        site.task(lease(1))
        until(lambda: [call for call in site.mps.calls if call[:2] == ("open", server("b"))], "another server b")
        assert until(lambda: site.journal("server.replaced"), "the outcome")[0]["server"] == "u1001/g0/b"


def test_the_first_tasks_do_not_join_a_daemon_that_has_gone(tmp_path: Path) -> None:
    """As when the job's script has said quit to it: CUDA would run outside MPS, and not say so."""
    with Site(tmp_path) as site:
        site.mps.daemons[server("a")] = None
        tasks = [site.task(lease(1, colors=("a", "b"))), site.task(lease(2))]
        assert [task.hear("place")["color"] for task in tasks] == ["b", "b"]
        until(lambda: [call for call in site.mps.calls if call[:2] == ("open", server("a"))], "another server a")
        seen = [row for row in site.journal("observation") if row["what"] == "daemon_gone"]
        assert seen[0]["text"] == "its control daemon had gone before the first task came"
        assert site.leases.actives[0] == server("b")


def test_a_domain_whose_only_daemon_has_gone_gets_another_before_its_first_task(tmp_path: Path) -> None:
    with Site(tmp_path) as site:
        site.mps.daemons[server("a")] = None
        one = site.task(lease(1, colors=("a",)))
        assert one.hear("place")["color"] == "a"
        assert ("open", server("a")) in [call[:2] for call in site.mps.calls]


def test_a_supervisor_that_leaves_while_its_daemon_is_looked_at_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Site(tmp_path) as site:
        gate = threading.Event()
        monkeypatch.setattr(site.mps, "daemon", lambda server: gate.wait(BOUND) and None)
        one, two = site.task(lease(1)), site.task(lease(2))
        one.socket.close()
        until(lambda: len(list(site.agent._actor._peers.of_job(JobId(1)))) == 0, "the end of the first")
        gate.set()
        two.hear("place")
        assert [row["task"] for row in site.journal("task.hello")] == ["2.0.0"]


def test_a_program_that_came_too_late_for_its_daemon_is_started_again(tmp_path: Path) -> None:
    with Site(tmp_path) as site, subprocess.Popen(["sleep", "60"]) as daemon:
        started = starttime(daemon.pid)
        assert started is not None
        site.mps.daemons[server("a")] = ProcessId(pid=daemon.pid, starttime=started)
        one = site.task(lease(1)).run(standby="")
        daemon.kill()
        until(lambda: site.journal("server.unavailable"), "the news of the daemon")
        one.say("exit", role="active", pid=one.pid, status=exit_code("refused") << 8)
        verdict = one.hear("verdict")
        assert (verdict["action"], verdict["color"]) == ("restore", "b")


def test_a_failed_task_without_a_fault(tmp_path: Path) -> None:
    with Site(tmp_path) as site:
        one = site.task(lease(1)).run()
        site.task(lease(2)).run()
        one.say("exit", role="active", pid=one.pid, status=256)
        verdict = one.hear("verdict")
        assert (verdict["action"], verdict["incident"]) == ("none", "")


def test_a_fault_seen_only_by_the_control_daemon(tmp_path: Path) -> None:
    with Site(tmp_path) as site:
        one = site.task(lease(1)).run()
        site.mps.states[server("a")] = ServerState.FAULT
        one.say("exit", role="active", pid=one.pid, status=9)
        verdict = one.hear("verdict")
        assert (verdict["action"], verdict["part"]) == ("fail", "culprit")


def test_a_child_of_a_task_is_the_task_even_after_it_has_gone(tmp_path: Path) -> None:
    with Site(tmp_path) as site:
        guilty, other = site.task(lease(1)), site.task(lease(2)).run()
        site.procfs.parents[guilty.pid] = os.getpid()
        guilty.run()
        for one in (guilty, other):
            one.say("keeper", state="restored")
        until(lambda: len([row for row in site.journal("observation") if row["what"] == "keeper"]) == 2, "all messages")
        site.procfs.parents[5555] = guilty.pid
        site.log("a", "NEW CLIENT 5555 from user 1001: Server already exists", control=True)
        site.log("a", "NEW CLIENT 5556 from user 1001: Server already exists", control=True)
        until(lambda: 5556 in site.agent.state.pairs[server("a").domain, server("a").gpu].strangers, "the connections")
        del site.procfs.parents[5555]
        site.log("a", "Client {PID: 5555, Context: 1} encountered a fatal GPU error.")
        assert other.hear("verdict")["part"] == "bystander"
        assert guilty.hear("verdict")["part"] == "culprit"


def test_a_batch_scripts_own_process_is_named_by_its_job(tmp_path: Path) -> None:
    with Site(tmp_path) as site:
        other = site.task(lease(2)).run()
        site.leases.leases[JobId(9)] = lease(9)
        site.procfs.jobs[7777] = JobId(9)
        until(lambda: site.journal("task.hello"), "hello")
        other.say("keeper", state="restored")
        until(lambda: [row for row in site.journal("observation") if row["what"] == "keeper"], "all messages are taken")
        site.log("a", "Client {PID: 7777, Context: 1} encountered a fatal GPU error.")
        assert other.hear("verdict")["action"] == "promote"
        (row,) = site.journal("incident.attributed")
        assert row["culprit"] == "job 9 process 7777"


def test_a_log_that_names_somebody_elses_process_is_not_believed(tmp_path: Path) -> None:
    """The log lies in the hands of the domain's owner."""
    with Site(tmp_path) as site:
        site.task(lease(1)).run()
        two = site.task(lease(2)).run()
        two.say("keeper", state="restored")
        until(lambda: [row for row in site.journal("observation") if row["what"] == "keeper"], "all messages are taken")
        site.procfs.jobs[7777] = JobId(99)
        site.log("a", "Client {PID: 7777, Context: 1} encountered a fatal GPU error.")
        (row,) = until(lambda: site.journal("incident.attributed"), "the decision")
        assert "culprit" not in row


def test_lines_that_nobody_understands_are_kept_but_not_all_of_them(tmp_path: Path) -> None:
    with Site(tmp_path) as site:
        site.task(lease(1)).run().say("keeper", state="restored")
        until(lambda: site.journal("observation"), "all messages are taken")
        site.log("a", "Startup")
        site.log("a", "A channel was \x1b[1mquarantined\x1b[0m for reasons of its own")
        site.log("b", "100.0", control=True)
        site.log("b", "Thread 7 of the server has lost its way")

        def unread() -> list[dict[str, object]]:
            return [row for row in site.journal("observation") if row.get("what") == "unknown"]

        until(lambda: len(unread()) == 2, "both lines")
        assert [(row["source"], row["server"], row["fault"]) for row in unread()] == [
            ("server_log", "u1001/g0/a", "unknown"),
            ("server_log", "u1001/g0/b", "unknown"),
        ]
        assert "Thread 7 of the server has lost its way" in str(unread()[1]["text"])
        for number in range(200):
            site.log("a", f"new words {number}")
        site.log("a", "Server is handling a fatal GPU error.")
        until(lambda: site.journal("incident.opened"), "what comes after them")
        assert len(unread()) == LINES
        assert "further ones of this minute are not written down" in str(unread()[-1]["text"])


def test_a_suspended_task_is_waited_for(tmp_path: Path) -> None:
    with Site(tmp_path, Recovery(restore_timeout=0.3)) as site:
        guilty = site.task(lease(1)).run()
        other = site.task(lease(2)).run(standby="")
        site.procfs.still.add(os.getpid())  # all supervisors of the test are this process
        other.say("keeper", state="restored")
        until(lambda: [row for row in site.journal("observation") if row["what"] == "keeper"], "all messages are taken")
        site.log("a", f"Client process {guilty.pid} encountered a fatal GPU error.")
        assert other.hear("verdict")["action"] == "restore"
        assert "is stopped (suspended?)" in other.log_line("is stopped")
        assert not site.journal("recovery.failed")
        site.procfs.still.clear()
        assert other.hear("verdict")["action"] == "relaunch"


def test_an_account_that_slurm_did_not_take_is_given_again(tmp_path: Path) -> None:
    with Site(tmp_path) as site:
        site.slurm.away = 2
        guilty = site.task(lease(1)).run()
        guilty.say("keeper", state="restored")
        until(lambda: [row for row in site.journal("observation") if row["what"] == "keeper"], "all messages are taken")
        site.log("a", f"Client process {guilty.pid} encountered a fatal GPU error.")
        site.kernel(
            f"NVRM: Xid (PCI:0000:06:00): 31, pid={guilty.pid}, name=python3, Ch 0, MMU Fault: FAULT_PDE ACCESS_TYPE_WRITE"
        )
        (row,) = until(lambda: [row for row in site.journal("slurm.outcome") if row["ask"] == "comment"], "the answer")
        assert row["ok"]
        assert [call[:2] for call in site.slurm.calls if call[0] == "comment"] == [("comment", 1)] * 3


def test_requeue_goes_through_slurm(tmp_path: Path) -> None:
    with Site(tmp_path) as site:
        guilty = site.task(lease(1)).run()
        tired = site.task(lease(2), retries_used=3).run()
        tired.say("keeper", state="restored")
        until(lambda: [row for row in site.journal("observation") if row["what"] == "keeper"], "all messages are taken")
        site.log("a", f"Client process {guilty.pid} encountered a fatal GPU error.")
        verdict = tired.hear("verdict")
        assert verdict["action"] == "requeue"
        tired.say("spilled", incident=verdict["incident"], seq=3)
        until(lambda: [row for row in site.journal("slurm.outcome") if row["ask"] == "requeue"], "Slurm's answer")
        (call,) = [call for call in site.slurm.calls if call[0] == "requeue"]
        assert call[1] == 2
        assert call[3] is None
        assert "by job 1 step 0 task 0" in str(call[2])


def test_a_broken_gpu_drains_the_node(tmp_path: Path) -> None:
    with Site(tmp_path) as site:
        one = site.task(lease(1)).run()
        site.kernel("NVRM: Xid (PCI:0000:06:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.")
        assert one.hear("verdict")["action"] == "requeue"
        until(lambda: [call for call in site.slurm.calls if call[0] == "drain"], "the drain")
        one.say("spilled", incident="x", seq=-1)
        until(lambda: [call for call in site.slurm.calls if call[0] == "requeue" and call[3] == "n0"], "the requeue")


def test_a_server_that_stays_in_fault_is_replaced(tmp_path: Path) -> None:
    with Site(tmp_path) as site:
        guilty = site.task(lease(1, colors=("a",))).run(standby="")
        other = site.task(lease(2, colors=("a",))).run(standby="")
        site.mps.states[server("a")] = ServerState.FAULT
        other.say("keeper", state="restored")
        until(lambda: [row for row in site.journal("observation") if row["what"] == "keeper"], "all messages are taken")
        site.log("a", f"Client process {guilty.pid} encountered a fatal GPU error.")
        other.say("fault", role="active", pid=other.pid, cuda=700, call="cuCtxSynchronize", seq=1, text="")
        verdict = other.hear("verdict")
        assert (verdict["action"], verdict["color"]) == ("restore", "a")
        assert [call[0] for call in site.mps.calls] == ["close", "open"]


def test_resumed_supervisors_are_taken_in(tmp_path: Path) -> None:
    with Site(tmp_path) as site:
        one = site.task(lease(1), resumed=1, active_pid=1000, color="b", session=1, retries_used=2)
        assert one.hear("place")["color"] == "b"
        (task,) = site.agent.state.tasks.values()
        assert (task.active, task.retries, task.session) == (1000, 2, True)


def test_unfinished_intents_of_the_last_agent_are_told(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"wall": 1, "event": "slurm.intent", "ask": "requeue", "job": 4},
        {"wall": 1, "event": "slurm.intent", "ask": "comment", "job": 5},
        {"wall": 1, "event": "slurm.outcome", "ask": "comment", "job": 5},
        {"wall": 1, "event": "incident.opened", "incident": "x-1"},
    ]
    (tmp_path / "journal.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with Site(tmp_path) as site:
        until(lambda: site.journal("agent.started"), "the start")
        interrupted = [row for row in site.journal("slurm.outcome") if row.get("outcome") == "interrupted"]
        assert [(row["ask"], row["job"]) for row in interrupted] == [("requeue", 4)]
        assert [row["incident"] for row in site.journal("incident.closed")] == ["x-1"]
    assert site.journal("agent.stopped")


def test_a_breaker_stays_open_when_the_agent_is_started_anew(tmp_path: Path) -> None:
    row = {"event": "slurm.intent", "ask": "requeue", "job": 4, "uid": 1001}
    now = {"mono": time.monotonic(), "wall": time.time()}
    (tmp_path / "journal.jsonl").write_text(json.dumps(row | now) + "\n")
    with Site(tmp_path) as site:
        until(lambda: site.journal("agent.started"), "the start")
        assert site.agent.state.history.requeues == ((now["mono"], 1001),)


@pytest.mark.parametrize(
    "packet",
    [
        b"hello",
        b"\xff\xfe",
        b"hello v=9 job=1",
        b"exit pid=1",
        b"x" * 5000,
        b"hello v=1 job=1 step=0 task=0 gpu=7 options=mps=on",
    ],
)
def test_malformed_first_words_are_refused_with_a_reason(tmp_path: Path, packet: bytes) -> None:
    with Site(tmp_path) as site:
        site.leases.leases[JobId(1)] = lease(1)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as raw:
            raw.settimeout(BOUND)
            raw.connect(site.socket)
            raw.send(packet)
            assert raw.recv(8192).startswith(b"refuse reason=")
            assert raw.recv(8192) == b""
        assert len(until(lambda: site.journal("task.gone"), "the line")) == 1


def test_another_jobs_task_without_a_lease_is_refused(tmp_path: Path) -> None:
    with Site(tmp_path) as site:
        lone = Supervisor(site.socket, 77)
        assert "no lease" in lone.hear("refuse")["reason"]
        lone.close()


def test_a_task_cannot_claim_a_process_that_is_not_its_own(tmp_path: Path) -> None:
    with Site(tmp_path) as site:
        one = site.task(lease(1))
        one.hear("place")
        site.procfs.parents[4000] = 1
        one.say("started", role="active", pid=4000, starttime=1, color="a")
        assert "not the task's" in one.hear("refuse")["reason"]


def test_a_broken_daemon_does_not_stop_the_agent(tmp_path: Path) -> None:
    with Site(tmp_path, Recovery(settle_ms=5)) as site:
        site.mps.broken = True
        one = site.task(lease(1)).run()
        one.say("exit", role="active", pid=one.pid, status=256)
        assert one.hear("verdict")["action"] == "none"


# ---------------------------------------------------------------- options that a supervisor brings
SITE = Options(
    defaults={"recover": "standby,restore"}, locked=("retries",), forbidden=("recover=requeue", "on-culprit=requeue")
)


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ("recover=standby,requeue", "--mps-recover: requeue is forbidden by the administrator"),
        ("recover=requeue", "--mps-recover: requeue is forbidden by the administrator"),
        ("recover=standby,restore;on-culprit=requeue", "--mps-on-culprit: requeue is forbidden by the administrator"),
    ],
)
def test_a_supervisor_cannot_bring_what_the_site_forbids(tmp_path: Path, asked: str, why: str) -> None:
    """Anybody can start mpsr-launch, with whatever in its environment."""
    with Site(tmp_path, options=SITE) as site:
        mine = lease(1, recover=(Rung.STANDBY, Rung.RESTORE))
        assert why in site.task(mine, options=f"mps=on;{asked}").hear("refuse")["reason"]


def test_a_locked_option_stays_as_the_job_has_it(tmp_path: Path) -> None:
    with Site(tmp_path, options=SITE) as site:
        site.task(lease(1, recover=(Rung.STANDBY,)), options="mps=on;recover=standby;retries=9;domain=job").hear(
            "place"
        )
        (task,) = site.agent.state.tasks.values()
        assert (task.options.retries, task.options.domain) == (3, Domain.USER)


def test_the_rules_of_the_jobs_partition_hold(tmp_path: Path) -> None:
    rules = replace(SITE, partitions={"a": PartitionRules(forbidden=("threads=90",), locked=())})
    with Site(tmp_path, options=rules) as site:
        mine = lease(1, recover=(Rung.STANDBY,))
        here = replace(mine, partition="a")
        assert "90 is forbidden" in site.task(here, options="mps=on;threads=90").hear("refuse")["reason"]
        site.task(here, options="mps=on;recover=standby;retries=9").hear("place")
        (task,) = site.agent.state.tasks.values()
        assert task.options.retries == 9


def test_what_the_job_was_allowed_stays_allowed_when_the_rules_change(tmp_path: Path) -> None:
    with Site(tmp_path, options=SITE) as site:
        assert site.task(lease(1, recover=(Rung.REQUEUE,))).hear("place")
