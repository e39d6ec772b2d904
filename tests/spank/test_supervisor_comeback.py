"""Agents and keepers that come and go while mpsr-launch runs, and its own death."""

import os
import re
import signal
import sys
from pathlib import Path

from resilience.model.options import JobOptions
from tests.spank.slurm import wait_for
from tests.spank.supervisor_kit import PROGRAM, WITH_STANDBY, B, Node, alive, ready, shell, wait_for_keeper


def test_an_agent_that_comes_back(node: Node) -> None:
    supervised, agent = node.both(*PROGRAM, "wait")
    agent.expect("session")
    agent.close()
    again = node.agent.accept()
    hello = again.place(**WITH_STANDBY)
    assert (hello["resumed"], hello["session"], hello["color"]) == ("1", "1", "a")
    assert int(hello["active_pid"]) > 1
    again.expect("ready", role="standby")
    again.verdict("fail", reason="enough")
    assert supervised.end()[0] == 1


def test_a_new_agent_hears_of_the_standby_that_waits(node: Node) -> None:
    supervised, agent = node.both(*PROGRAM, "fault,wait", **WITH_STANDBY)
    ready(agent)
    pid = agent.heard[-1][1]["pid"]
    agent.close()
    again = node.agent.accept()
    again.place(**WITH_STANDBY)
    again.expect("started", role="standby", pid=pid, color="b")
    again.expect("ready", role="standby", pid=pid)
    again.verdict("promote", incident="i6", **B)
    again.expect("stepped", incident="i6")
    assert supervised.end()[0] == 0


def test_a_fault_is_told_again_to_a_new_agent(node: Node) -> None:
    supervised, agent = node.both(*PROGRAM, "fault,wait")
    agent.expect("fault")
    agent.close()
    again = node.agent.accept()
    again.place()
    again.expect("fault", seq="3")
    again.verdict("restore", **B)
    again.expect("stepped")
    assert supervised.end()[0] == 0


def test_without_an_agent_the_task_runs_on_the_active_server(node: Node) -> None:
    node.agent.close()
    node.agent.path.unlink()
    supervised = node.start(*shell("echo $CUDA_MPS_PIPE_DIRECTORY; exit 4"))
    status, out, errors = supervised.end()
    assert (status, out) == (4, f"{node.jobs.parent}/d/u0/g3/a\n")
    assert errors == f"mpsr: agent: does not answer: {node.agent.path}\n"


def test_a_keeper_that_dies_is_started_anew(node: Node, tmp_path: Path) -> None:
    log = tmp_path / "recovery.log"
    supervised, agent = node.both(*PROGRAM, "keeper,step,wait")
    agent.send("log", path=log, line="begin")
    agent.expect("session")
    pid = wait_for_keeper(supervised.process.pid)
    wait_for(lambda: "keeper starts" in log.read_text() if log.exists() else False, "the keeper's line in the log")
    os.kill(pid, signal.SIGTERM)  # what Slurm may send to the whole step is not for the keeper
    os.kill(pid, signal.SIGKILL)
    agent.expect("keeper", state="lost")
    agent.expect("keeper", state="restored")
    assert wait_for_keeper(supervised.process.pid) != pid
    agent.verdict("fail", reason="enough")
    assert supervised.end()[0] == 1
    assert re.search(r"keeper starts with -P -m resilience.state.keeper 32\n", log.read_text())
    assert not (node.jobs / "7/k2.5").exists()


def test_the_real_keeper_is_found_and_answers(built: Path, tmp_path: Path) -> None:
    node = Node(tmp_path, options=JobOptions(mps=True, state=64))
    Path(node.lease.python).write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    supervised, agent = node.both(*PROGRAM, "keeper,exit=0")
    agent.expect("session")
    assert supervised.end() == (0, "active on a\nkeeper answers\n", "")
    node.agent.close()


def test_another_python_keeps_where_the_leases_is_not_there(built: Path, tmp_path: Path) -> None:
    node = Node(tmp_path, options=JobOptions(mps=True, state=64))
    Path(node.lease.python).unlink()
    supervised = node.start(*PROGRAM, "keeper,exit=0", env={"MPSR_PYTHON": sys.executable})
    agent = node.agent.accept()
    agent.place()
    agent.expect("session")
    assert supervised.end() == (0, "active on a\nkeeper answers\n", "")
    node.agent.close()


def test_a_container_that_leads_outside_mps_is_told_of(node: Node) -> None:
    (node.jobs / "pipe").mkdir()
    lost = "unshare -m env -u CUDA_MPS_PIPE_DIRECTORY cat"
    commands = ("cat", "unshare -m cat", lost, f"unshare -m sh -c 'mount -t tmpfs x {node.jobs}; cat'")
    same, shows, loses, hides = (node.both(*shell(command), pipe=str(node.jobs / "pipe"))[0] for command in commands)
    for supervised, what in ((loses, "has lost CUDA_MPS_PIPE_DIRECTORY"), (hides, "does not show the pipe directory")):
        assert supervised.process.stderr
        told = supervised.process.stderr.readline()  # seconds after its start, and so after that of the others
        assert re.match(rf"mpsr: container: {what}, so .* \(process \d+\): \S+/pipe \(", told)
    for supervised in (same, shows, loses, hides):
        assert supervised.end(stdin="") == (0, "", "")


def test_a_keeper_that_cannot_live_is_given_up(node: Node) -> None:
    (node.jobs.parent.parent / "python").write_text("#!/bin/sh\nexit 1\n")
    supervised, agent = node.both(*PROGRAM, "wait")
    for _ in range(5):
        agent.expect("keeper", state="lost")
    agent.verdict("fail", reason="enough")
    status, _, errors = supervised.end()
    assert status == 1
    assert "mpsr: keeper: died 5 times in 60 s" in errors


def test_a_killed_supervisor_takes_all_its_processes_along(node: Node) -> None:
    supervised, agent = node.both(*PROGRAM, "wait", **WITH_STANDBY)
    ready(agent)
    keeper = wait_for_keeper(supervised.process.pid)
    pids = {int(words["pid"]) for verb, words in agent.heard if verb in ("started", "ready")} | {keeper}
    supervised.process.kill()
    supervised.end()
    assert len(pids) == 3
    wait_for(lambda: not any(alive(pid) for pid in pids), "the end of task, standby and keeper")
