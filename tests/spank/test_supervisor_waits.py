"""No wait of mpsr-launch is without end, and time in which it or its program is stopped counts for none of them."""

import ctypes
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.spank.node import ROOT, Connection, Supervised
from tests.spank.slurm import wait_for
from tests.spank.supervisor_kit import PROGRAM, WITH_STANDBY, B, Node, ready, shell

LAUNCH = ROOT / "spank_plugin/launcher"
TICK = 0.25
"""Seconds by which a stop may be told wrongly (clock.c)."""


# ---------------------------------------------------------------- the table, all of it


class Table:
    """transitions.c as it is compiled, its names from transitions.h."""

    def __init__(self, directory: Path) -> None:
        header = (LAUNCH / "transitions.h").read_text()
        library = directory / "verdicts.so"
        subprocess.run(["cc", "-shared", "-fPIC", "-o", library, LAUNCH / "transitions.c"], check=True)
        loaded = ctypes.CDLL(str(library))
        self.states, self.events, self.actions, patience = (
            self._names(header, kind) for kind in ("state", "event", "action", "patience")
        )
        cells = ctypes.c_int * (3 * (len(self.states) - 1) * (len(self.events) - 1))
        self._cells = list(cells.in_dll(loaded, "verdict_table"))
        waits = (ctypes.c_int * (len(self.states) - 1)).in_dll(loaded, "verdict_patience")
        self.patience = {state: patience[wait] for state, wait in zip(self.states[:-1], waits, strict=True)}

    @staticmethod
    def _names(header: str, kind: str) -> list[str]:
        body = re.search(rf"enum {kind} {{(.*?)}};", header, re.S)
        assert body
        return re.findall(r"^\s+([A-Z_]+),?", re.sub(r"/\*.*?\*/", "", body[1], flags=re.S), re.M)

    def cell(self, state: str, event: str) -> tuple[str, str, str]:
        """Action, next state, the one when the action could not be done."""
        at = 3 * (self.states.index(state) * (len(self.events) - 1) + self.events.index(event))
        action, after, otherwise = self._cells[at : at + 3]
        return self.actions[action], self.states[after], self.states[otherwise]


ENDS = {"REFUSE", "PASS", "LEAVE", "GIVE_UP", "END_TERM"}
"""Actions that end the supervisor, at once or (LEAVE) in the state LEAVING, which has a deadline like all others."""
RUNS = {"RUNNING", "ARMED", "FAILING"}
"""States in which the program runs: they end with it."""


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    return Table(tmp_path_factory.mktemp("table"))


def test_every_state_but_those_in_which_the_program_runs_has_a_patience(table: Table) -> None:
    assert table.states[-1] == "STATES"
    assert {state for state, wait in table.patience.items() if wait == "FOR_PROGRAM"} == RUNS


def test_deadlines_alone_lead_every_state_to_an_end_or_to_a_program_that_runs(table: Table) -> None:
    for begin in table.states[:-1]:
        state = begin
        way: list[str] = []
        while state not in RUNS:
            assert state not in way, f"{begin} waits for ever: {way}"
            way.append(state)
            action, after, otherwise = table.cell(state, "ON_DEADLINE")
            assert action != "NOTHING", f"{state} does nothing when its time is over"
            if action in ENDS:
                assert action != "LEAVE" or otherwise == "LEAVING"
                break
            state = after


def test_a_program_that_has_gone_is_never_waited_for(table: Table) -> None:
    """Its end leads out of the states that are its own; a verdict `fail` that finds it gone leaves."""
    for state in RUNS:
        for event in ("ON_EXIT_OK", "ON_EXIT_BAD", "ON_EXIT_TOLD"):
            action, after, otherwise = table.cell(state, event)
            assert action in ENDS or {after, otherwise} - RUNS, (state, event)
    for state in table.states[:-1]:
        action, after, otherwise = table.cell(state, "ON_FAIL")
        assert (action, after, otherwise) == ("FAIL", "FAILING", "LEAVING") or action == "NOTHING", state


def test_leaving_is_entered_when_an_account_is_awaited_and_left_on_all_that_ends_that(table: Table) -> None:
    for state in table.states[:-1]:
        for event in table.events[:-1]:
            action, _, otherwise = table.cell(state, event)
            assert action not in ("LEAVE", "FAIL") or otherwise == "LEAVING", (state, event)
    for event in ("ON_DEADLINE", "ON_RELEASED", "ON_TERM", "ON_PLACED"):
        assert table.cell("LEAVING", event)[0] == "PASS"


# ---------------------------------------------------------------- a requeue that comes to nothing

REASON = "Slurm did not requeue the job: Requested operation is presently disabled"


def parked(node: Node, *command: str, **place: object) -> tuple[Supervised, Connection]:
    """A task that waits for Slurm to end its job."""
    supervised, agent = node.both(*command, **place)
    agent.expect("fault" if command[: len(PROGRAM)] == PROGRAM else "exit")
    agent.verdict("requeue", incident="i1", **B)
    agent.expect("spilled")
    return supervised, agent


@pytest.mark.parametrize("command", [shell("exit 9"), (*PROGRAM, "keeper,fault,wait")], ids=["plain", "session"])
def test_a_refused_requeue_ends_when_the_account_is_taken(node: Node, command: tuple[str, ...]) -> None:
    supervised, agent = parked(node, *command)
    agent.send("hold", ms=9000)
    agent.verdict("fail", reason=REASON)
    assert supervised.process.stderr
    wait_for(lambda: REASON in supervised.process.stderr.readline(), "the reason")  # type: ignore[union-attr]
    with pytest.raises(subprocess.TimeoutExpired):
        supervised.process.wait(0.2)
    agent.send("release")
    assert supervised.end(seconds=5)[0] == (9 if command[0] == "sh" else 75)


@pytest.mark.parametrize("command", [shell("exit 9"), (*PROGRAM, "keeper,fault,wait")], ids=["plain", "session"])
def test_a_refused_requeue_ends_when_nobody_takes_the_account(node: Node, command: tuple[str, ...]) -> None:
    supervised, agent = parked(node, *command)
    agent.send("hold", ms=300)
    agent.verdict("fail", reason=REASON)
    status, _, errors = supervised.end(seconds=5)
    assert status == (9 if command[0] == "sh" else 75)
    assert errors.count(REASON) == 1


def test_a_session_that_was_told_to_go_is_not_told_as_one_that_ended_well(node: Node) -> None:
    """It leaves with status 0, as `retire` has it do."""
    supervised, agent = node.both(*PROGRAM, "keeper,fault,wait")
    agent.expect("fault")
    agent.verdict("requeue", incident="i1", **B)
    assert agent.expect("exit", role="active")["ours"] == "1"
    agent.verdict("fail", reason=REASON)
    assert supervised.end(seconds=5)[0] == 75


def test_what_ends_by_itself_is_not_called_ours(node: Node) -> None:
    supervised, agent = node.both(*shell("exit 0"))
    assert agent.expect("exit", role="active", status="0")["ours"] == "0"
    assert supervised.end()[0] == 0


def test_a_requeue_that_nobody_answers_is_told_in_the_recovery_log_too(node: Node) -> None:
    log = node.jobs / "mpsr-7.log"
    supervised, agent = node.both(*shell("exit 9"), requeue_ms=100)
    agent.send("log", path=str(log), line="first")
    agent.expect("exit")
    agent.verdict("requeue", incident="i7")
    status, _, errors = supervised.end(seconds=5)
    assert (status, errors) == (75, "mpsr: requeue: Slurm has not ended the job in time\n")
    first, last = log.read_text().splitlines()
    assert first == "first"
    assert last.endswith("mpsr[n0] step 2 task 5: requeue: Slurm has not ended the job in time")


def test_an_agent_that_hangs_up_again_and_again_is_none(node: Node) -> None:
    supervised = node.start(*shell("echo ran on $MPSR_COLOR"))
    for _ in range(20):
        node.agent.accept().close()
    status, out, errors = supervised.end()
    assert (status, out) == (0, "ran on a\n")
    assert errors == f"mpsr: agent: does not answer: {node.lease.agent}\n"


# ---------------------------------------------------------------- stopped is not hung


class Stop:
    """Processes that stand still, for longer than any deadline of the test, inside the `with`."""

    def __init__(self, *pids: int) -> None:
        self.pids = pids
        self.seconds = 0.0

    def __enter__(self) -> "Stop":
        self.began = time.monotonic()
        for pid in self.pids:
            os.kill(pid, signal.SIGSTOP)
        wait_for(lambda: all(map(stopped, self.pids)), "processes to stop")
        wait_for(lambda: time.monotonic() > self.began + 1.2, "time to pass")
        return self

    def __exit__(self, *_: object) -> None:
        for pid in reversed(self.pids):
            os.kill(pid, signal.SIGCONT)
        self.seconds = time.monotonic() - self.began


def cpu(pid: int) -> float:
    """Seconds of CPU time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


@pytest.mark.parametrize("who", ["all", "program", "below a shell"])
def test_a_restored_program_has_its_time_without_the_stop(node: Node, who: str) -> None:
    command: tuple[str, ...] = (*PROGRAM, "fault,wait")
    if who == "below a shell":
        command = shell(f"{' '.join(command)}; exit $?")
    supervised, agent = node.both(*command, restore_ms=700)
    agent.expect("fault")
    began = time.monotonic()
    agent.verdict("restore", incident="i8", color="slow", pipe="/pipes/slow")
    pid = int(agent.expect("started", color="slow")["pid"])
    agent.expect("session")
    if who == "below a shell":
        pid = int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
    with Stop(*([supervised.process.pid, pid] if who == "all" else [pid])) as stop:
        pass
    agent.expect("rung_failed", incident="i8")
    assert time.monotonic() - began - stop.seconds > 0.7 - 2 * TICK
    agent.verdict("fail", reason="over")
    assert supervised.end()[0] == 1


@pytest.mark.parametrize("alone", [False, True])
def test_grace_does_not_run_while_the_program_is_stopped(node: Node, alone: bool) -> None:
    script = "if [ $MPSR_COLOR = b ]; then exit 0; fi; trap '' TERM; while :; do sleep 0.05; done"
    supervised, agent = node.both(*shell(script), grace_ms=700)
    pid = int(agent.expect("started")["pid"])
    began = time.monotonic()
    agent.verdict("relaunch", **B)
    agent.send("log", path=str(node.jobs / "barrier"), line="x")
    wait_for((node.jobs / "barrier").exists, "the verdict to be read")
    with Stop(*([pid] if alone else [supervised.process.pid, pid])) as stop:
        pass
    agent.expect("exit", pid=str(pid))
    assert time.monotonic() - began - stop.seconds > 0.7 - 2 * TICK
    assert supervised.end()[0] == 0


def test_a_program_that_is_stopped_is_not_replaced_by_one_that_runs(node: Node) -> None:
    """Slurm has suspended the job: a process that we start now would be out of its reach."""
    supervised, agent = node.both(*PROGRAM, "fault,wait")
    pid = int(agent.expect("started")["pid"])
    agent.expect("fault")
    with Stop(pid) as stop:
        agent.verdict("restore", incident="i8", **B)
    resumed, used = stop.began + stop.seconds, cpu(supervised.process.pid)
    assert used < 0.5 * stop.seconds, "it waits, it does not spin"
    agent.expect("started", color="b")
    assert time.monotonic() >= resumed
    assert [verb for verb, _ in agent.heard].count("started") == 2
    agent.expect("stepped", incident="i8")
    assert supervised.end()[0] == 0


def test_a_suspended_job_does_not_give_up_on_slurm(node: Node) -> None:
    began = time.monotonic()
    supervised, agent = parked(node, *shell("exit 9"), requeue_ms=350)
    with Stop(supervised.process.pid) as stop:
        pass
    assert supervised.end(seconds=5)[0] == 75
    assert time.monotonic() - began - stop.seconds > 0.7 - 2 * TICK
    agent.close()


def test_a_verdict_that_came_during_the_stop_is_followed(node: Node) -> None:
    supervised, agent = node.both(*PROGRAM, "wait", **WITH_STANDBY)
    ready(agent)
    pids = [int(words["pid"]) for verb, words in agent.heard if verb == "started"]
    with Stop(supervised.process.pid, *pids):
        agent.verdict("promote", incident="i4", **B)
        os.kill(pids[0], signal.SIGKILL)
    agent.expect("stepped", incident="i4")
    assert supervised.end()[:2] == (0, "active on a\npromote incident=i4 token=another color=b\n")


# ---------------------------------------------------------------- retries


def test_time_that_went_well_gives_retries_back(node: Node) -> None:
    supervised, agent = node.both(*shell("[ $MPSR_COLOR = b ] && read x; exit 9"), window_ms=400)
    for _ in range(2):
        agent.expect("exit")
        agent.verdict("relaunch", color="q1", pipe="/pipes/q1")
    agent.expect("exit")
    agent.verdict("relaunch", **B)
    agent.expect("started", color="b")
    began = time.monotonic()
    wait_for(lambda: time.monotonic() > began + 0.9, "time without a fault")
    agent.close()
    again = node.agent.accept()
    hello = again.place()
    assert int(hello["retries_used"]) <= 1  # of 3, and two windows have passed
    assert int(hello["retried_ms"]) >= 0
    assert supervised.process.stdin
    supervised.process.stdin.write("\n")
    supervised.process.stdin.flush()
    again.expect("exit", status=str(9 << 8))
    again.verdict("none")
    assert supervised.end()[0] == 9
