"""mpsr-launch against a node agent that a test scripts, with shells and Python programs as tasks."""

import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from resilience.model.ids import GpuMinor
from resilience.model.lease import LeaseState
from resilience.model.options import JobOptions
from tests.spank.node import ROOT, Agent, Connection, Supervised, launch, lease, write_lease
from tests.spank.slurm import wait_for

PROGRAM = (sys.executable, str(ROOT / "tests/spank/program.py"))
B = {"color": "b", "pipe": "/pipes/b"}
WITH_STANDBY = {"standby": "b", "standby_pipe": "/pipes/b"}

# A keeper without the package: says a line, binds its socket, waits to be ended. The real one has tests of its own.
KEEPER = """#!{python}
import os, socket, sys
if sys.argv[3] == "resilience.state.spill":
    print("seq=41" if os.environ["CUDA_MPS_PIPE_DIRECTORY"] == "/pipes/b" else "seq=?", flush=True)
    sys.exit(0)
print("keeper starts with", *sys.argv[1:4], *sys.argv[6:], len(os.environ["MPSR_TOKEN"]), file=sys.stderr, flush=True)
listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
listener.bind(sys.argv[5])
listener.listen()
while True:
    listener.accept()
"""


class Node:
    """One lease, one agent, and the supervisors of a test."""

    def __init__(self, run: Path, **changes: object) -> None:
        keeper = run / "python"
        keeper.write_text(KEEPER.format(python=sys.executable))
        keeper.chmod(0o755)
        self.lease = lease(run, python=str(keeper), **changes)  # type: ignore[arg-type]
        write_lease(self.lease)
        self.jobs = run / "n0/jobs"
        self.agent = Agent.at(run / "n0/agent.sock")

    def start(self, *command: str, env: dict[str, str] | None = None) -> Supervised:
        return launch(self.lease, *command, env={"PYTHONPATH": str(ROOT)} | (env or {}), cwd=self.jobs.parent)

    def both(self, *command: str, **place: object) -> tuple[Supervised, Connection]:
        """A supervisor whose task runs."""
        supervised = self.start(*command)
        agent = self.agent.accept()
        agent.place(**place)
        return supervised, agent


@pytest.fixture
def node(built: Path, tmp_path: Path) -> Iterator[Node]:
    it = Node(tmp_path)
    yield it
    it.agent.close()


def shell(script: str) -> tuple[str, ...]:
    return ("sh", "-c", script)


# ---------------------------------------------------------------- a task that ends


def test_status_zero_is_not_asked_about(node: Node) -> None:
    supervised, agent = node.both(*shell("cat; echo done >&2"))
    assert supervised.end(stdin="hello\n") == (0, "hello\n", "done\n")
    agent.expect("exit", status="0", role="active")


@pytest.mark.parametrize("status", [1, 42, 255])
def test_exit_status(node: Node, status: int) -> None:
    supervised, agent = node.both(*shell(f"exit {status}"))
    agent.expect("exit", status=str(status << 8))
    agent.verdict("none")
    assert supervised.end() == (status, "", "")


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1])
def test_death_by_signal(node: Node, number: signal.Signals) -> None:
    supervised, agent = node.both(*shell(f"kill -{int(number)} $$"))
    status = int(agent.expect("exit")["status"])
    assert os.WTERMSIG(status) == number
    agent.verdict("none")
    assert supervised.end()[0] == -number


def test_a_signal_that_slurm_sent_to_all_is_not_asked_about(node: Node) -> None:
    supervised, agent = node.both(*shell("echo up; exec sleep 30"))
    pid = int(agent.expect("started")["pid"])
    assert supervised.process.stdout
    assert supervised.process.stdout.readline() == "up\n"
    supervised.process.send_signal(signal.SIGUSR2)  # Slurm signals every process of the step
    os.kill(pid, signal.SIGUSR2)
    assert supervised.end()[0] in (-signal.SIGUSR2,)


def test_signals_reach_the_task_as_slurm_set_them(node: Node) -> None:
    supervised, _agent = node.both(*shell("grep -E '^Sig(Blk|Ign)' /proc/self/status"))
    status, out, _ = supervised.end()
    plain = os.popen("env -i grep -E '^Sig(Blk)' /proc/self/status").read()
    assert status == 0
    assert plain in out


def test_unknown_and_unexecutable_programs(node: Node, tmp_path: Path) -> None:
    supervised, _agent = node.both("no-such-program")
    assert supervised.end() == (127, "", "mpsr: no-such-program: cannot be run: No such file or directory\n")
    plain = tmp_path / "plain"
    plain.write_text("x")
    supervised, _agent = node.both(str(plain))
    assert supervised.end() == (126, "", f"mpsr: {plain}: cannot be run: Permission denied\n")


# ---------------------------------------------------------------- SM partitions


def cut(node: Node, **colors: str) -> None:
    """What the prolog writes beside the servers: their partitions, one a line."""
    for color, text in colors.items():
        path = node.jobs.parent / "d" / node.lease.domain / f"g{node.lease.gpus[1][0]}" / f"{color}.sm"
        path.write_text(text)


def partitioned(tmp_path: Path) -> Node:
    node = Node(tmp_path, slots=((GpuMinor(0), 1), (GpuMinor(3), 2)), options=JobOptions(mps=True, threads=25))
    cut(node, a="GPU-bbbb/Dx1\nGPU-bbbb/Dx2/AA+=\n", b="GPU-bbbb/Ex1\nGPU-bbbb/Ex2\n")
    return node


SHOW = "echo $MPSR_COLOR ${CUDA_MPS_SM_PARTITION-none} ${CUDA_MPS_ACTIVE_THREAD_PERCENTAGE-none}"


def test_each_process_joins_the_jobs_partition_on_its_own_server(built: Path, tmp_path: Path) -> None:
    node = partitioned(tmp_path)
    script = f"{SHOW} >&2; [ $MPSR_COLOR = b ] || exec {' '.join(PROGRAM)} fault,wait"
    supervised, agent = node.both(*shell(script))
    agent.expect("fault")
    agent.verdict("restore", **B)
    agent.expect("started", color="b")
    assert supervised.end()[::2] == (0, "a GPU-bbbb/Dx2/AA+= none\nb GPU-bbbb/Ex2 none\n")


def test_a_standby_joins_the_partition_of_the_spare_server(built: Path, tmp_path: Path) -> None:
    node = partitioned(tmp_path)
    supervised, agent = node.both(*shell(f"{SHOW} >&2; exec {' '.join(PROGRAM)} fault,wait"), **WITH_STANDBY)
    agent.expect("ready")
    agent.verdict("promote", **B)
    agent.expect("stepped")
    assert supervised.end()[0] == 0
    (parked,) = node.jobs.glob("*/standby-*.err")
    assert parked.read_text().splitlines()[0] == "b GPU-bbbb/Ex2 none"


def test_a_quarantine_server_has_no_partitions(built: Path, tmp_path: Path) -> None:
    node = partitioned(tmp_path)
    supervised, agent = node.both(*shell(f"{SHOW}; [ $MPSR_COLOR = q1 ]"))
    agent.expect("exit")
    agent.verdict("relaunch", color="q1", pipe="/pipes/q1")
    assert supervised.end()[:2] == (0, "a GPU-bbbb/Dx2/AA+= none\nq1 none 25\n")


def test_a_partition_that_is_not_there_is_said_and_nothing_runs_outside_it(built: Path, tmp_path: Path) -> None:
    node = partitioned(tmp_path)
    cut(node, a="GPU-bbbb/Dx1\n")
    supervised, _agent = node.both(*shell("echo ran"))
    assert supervised.end() == (3, "", "mpsr: server: the job's SM partition on server a of GPU 3 cannot be told\n")


def test_a_task_without_a_partition_inherits_none(node: Node) -> None:
    supervised = node.start(*shell(SHOW), env={"CUDA_MPS_SM_PARTITION": "GPU-x/another"})
    node.agent.accept().place()
    assert supervised.end()[:2] == (0, "a none none\n")


def test_argv0_of_the_plugin(node: Node) -> None:
    supervised = node.start("-c", 'echo "$0 ${MPSR_ARGV0-unset}"', env={"MPSR_ARGV0": "sh"})
    node.agent.accept().place()
    assert supervised.end() == (0, "sh unset\n", "")


# ---------------------------------------------------------------- what a task and the agent are told


def test_hello_and_the_environment_of_the_task(built: Path, tmp_path: Path) -> None:
    node = Node(tmp_path, options=JobOptions(mps=True, threads=25, memory=2048))
    environment = {"CUDA_MPS_LOG_DIRECTORY": "/x", "PMI_RANK": "0"}
    supervised = node.start(*shell("env | grep -E '^(CUDA|MPSR)' | sort"), env=environment)
    hello = node.agent.accept().place()
    status, out, _ = supervised.end()
    got = dict(line.split("=", 1) for line in out.splitlines())
    assert status == 0
    keys = "v job step task local gpu mpi resumed retries_used active_pid session".split()
    assert {key: hello[key] for key in keys} == {
        "v": "1", "job": "7", "step": "2", "task": "5", "local": "1", "gpu": "3", "mpi": "1", "resumed": "0",
        "retries_used": "0", "active_pid": "0", "session": "0",
    }  # fmt: skip
    assert "threads=25" in hello["options"]
    assert len(got.pop("MPSR_TOKEN")) == 32
    assert int(got.pop("MPSR_FD")) >= 10
    assert got == {
        "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": "25",
        "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT": "0=2048M",
        "CUDA_MPS_PIPE_DIRECTORY": "/pipes/a",
        "CUDA_VISIBLE_DEVICES": "GPU-bbbb",
        "MPSR_COLOR": "a",
        "MPSR_KEEPER": f"{tmp_path}/n0/jobs/7/k2.5",
        "MPSR_LEASE": f"{tmp_path}/n0/jobs/7.lease",
        "MPSR_OPTIONS": hello["options"],
        "MPSR_ROLE": "active",
        "MPSR_SPILL": f"{tmp_path}/n0/.mpsr-7",
        "MPSR_SPILL_MS": "45000",
    }
    node.agent.close()


def test_refused_by_the_agent(node: Node) -> None:
    supervised = node.start("true")
    agent = node.agent.accept()
    agent.expect("hello")
    agent.send("refuse", reason="no server answers")
    assert supervised.end() == (3, "", "mpsr: refused by the node agent: no server answers\n")


def test_an_agent_that_hangs_up_before_it_answers_is_asked_again(node: Node) -> None:
    supervised = node.start(*shell("echo ran"))
    first = node.agent.accept()
    first.expect("hello")
    first.close()
    assert node.agent.accept().place()["resumed"] == "0"
    assert supervised.end() == (0, "ran\n", "")


def test_recovery_log_is_appended_and_never_through_a_link(node: Node, tmp_path: Path) -> None:
    log, link = tmp_path / "job.log", tmp_path / "link.log"
    log.write_text("first\n")
    link.symlink_to(log)
    supervised, agent = node.both(*shell("read x; exit 0"))
    agent.send("log", path=log, line="a culprit is named")
    agent.send("log", path=link, line="not this")
    agent.send("log", path=tmp_path / "new.log", line="fresh")
    wait_for((tmp_path / "new.log").exists, "the new log")
    status, _, errors = supervised.end(stdin="\n")
    assert status == 0
    assert log.read_text() == "first\na culprit is named\n"
    assert stat.S_IMODE((tmp_path / "new.log").stat().st_mode) == 0o600
    assert "recovery log: cannot be written" in errors
    assert str(link) in errors


def test_malformed_messages_are_told_and_ignored(node: Node) -> None:
    supervised, agent = node.both(*shell("read x; exit 0"))
    agent.expect("started")
    for packet in (
        b"verdict action",
        b"\xff",
        b"verdict action=explode",
        b"sing a=1",
        b"verdict action=restore",
        b"x" * 5000,
    ):
        agent.socket.send(packet)
    agent.send("log", path=str(node.jobs / "barrier"), line="x")
    wait_for((node.jobs / "barrier").exists, "all messages to be read")
    status, _, errors = supervised.end(stdin="\n")
    assert status == 0
    assert len([line for line in errors.splitlines() if line.startswith("mpsr: agent: ")]) == 6


# ---------------------------------------------------------------- leases


@pytest.mark.parametrize(
    "changes", [{"uid": 12345}, {"job": 8}, {"state": LeaseState.REFUSED, "reason": "no GPU left"}]
)
def test_a_lease_that_does_not_fit(built: Path, tmp_path: Path, changes: dict[str, object]) -> None:
    it = lease(tmp_path, **changes)  # type: ignore[arg-type]
    path = write_lease(it)
    supervised = launch(it, "true", env={"SLURM_JOB_ID": "7", "MPSR_LEASE": str(path)})
    status, _, errors = supervised.end()
    assert status == 3
    assert errors.startswith("mpsr: task: no GPU left" if "reason" in changes else "mpsr: task: lease of another")


@pytest.mark.parametrize("where", ["file", "directory", "owner", "absent", "link"])
def test_a_lease_that_is_not_to_be_trusted(built: Path, tmp_path: Path, where: str) -> None:
    it = lease(tmp_path)
    path = write_lease(it)
    match where:
        case "file":
            path.chmod(0o664)
        case "directory":
            path.parent.chmod(0o777)
        case "owner":
            os.chown(path, 1, 1)
        case "absent":
            path.unlink()
        case "link":
            path.rename(path.with_suffix(".real"))
            path.symlink_to(path.with_suffix(".real"))
    status, _, errors = launch(it, "true").end()
    assert status == 3
    assert errors.count("\n") == 1
    assert str(path.parent if where == "directory" else path) in errors


def test_no_program_and_no_job(built: Path, tmp_path: Path) -> None:
    it = lease(tmp_path)
    write_lease(it)
    assert launch(it).end()[0] == 2
    status, _, errors = launch(it, "true", env={"MPSR_LEASE": "", "SLURM_JOB_ID": "4000000"}).end()
    assert status == 3
    assert errors.startswith(
        "mpsr: task: cannot be seen here: /run/mpsr: the prolog did not run, or this is a container"
    )


# ---------------------------------------------------------------- verdicts on plain programs


def test_relaunch_of_a_program_that_ended(node: Node) -> None:
    supervised, agent = node.both(*shell("echo on $MPSR_COLOR; [ $MPSR_COLOR = b ]"))
    agent.expect("exit", status="256")
    agent.verdict("relaunch", **B)
    agent.expect("started", color="b")
    assert supervised.end() == (0, "on a\non b\n", "")


def test_relaunch_lets_the_old_one_end_then_ends_it_with_all_it_started(node: Node) -> None:
    script = "if [ $MPSR_COLOR = b ]; then exit 0; fi; trap '' TERM; sleep 600 & echo $!; wait; wait"
    supervised, agent = node.both(*shell(script))
    agent.expect("started")
    assert supervised.process.stdout
    sleeper = int(supervised.process.stdout.readline())
    agent.verdict("relaunch", **B)
    agent.expect("exit", status=str(int(signal.SIGKILL)))
    agent.expect("started", color="b")
    assert supervised.end()[0] == 0
    assert not Path(f"/proc/{sleeper}/cmdline").exists() or not Path(f"/proc/{sleeper}/cmdline").read_text()


def test_fail_makes_zero_a_failure(node: Node) -> None:
    supervised, agent = node.both(*shell("read x; exit 0"))
    agent.verdict("fail", reason="the device is lost")
    assert supervised.process.stderr
    assert supervised.process.stderr.readline() == "mpsr: the device is lost\n"
    assert supervised.end(stdin="\n")[0] == 1


def test_requeue_of_a_plain_program_waits_for_slurm(node: Node) -> None:
    supervised, agent = node.both(*shell("exit 9"))
    agent.expect("exit")
    agent.verdict("requeue", incident="i7")
    assert agent.expect("spilled")["seq"] == "-1"
    assert supervised.process.poll() is None
    supervised.process.terminate()
    assert supervised.end()[0] == -signal.SIGTERM


def test_several_relaunches_are_counted(node: Node) -> None:
    supervised, agent = node.both(*shell("exit 9"))
    for _ in range(3):
        agent.expect("exit")
        agent.verdict("relaunch", **B)
    agent.expect("started")
    agent.expect("exit")
    agent.close()
    again = node.agent.accept()
    hello = again.place()
    assert (hello["resumed"], hello["retries_used"], hello["active_pid"]) == ("1", "3", "0")
    again.expect("exit", status=str(9 << 8))  # told again: the new agent does not know
    again.verdict("none")
    assert supervised.end()[0] == 9


# ---------------------------------------------------------------- staying for Slurm to take the job's account


def test_a_task_that_failed_stays_until_it_is_released(node: Node) -> None:
    supervised, agent = node.both(*shell("exit 9"))
    agent.expect("exit")
    agent.send("hold", ms=9000)
    agent.verdict("fail", reason="this task caused the GPU fault")
    assert supervised.process.stderr
    assert supervised.process.stderr.readline() == "mpsr: this task caused the GPU fault\n"
    with pytest.raises(subprocess.TimeoutExpired):
        supervised.process.wait(0.3)
    agent.send("release")
    assert supervised.end() == (9, "", "")


def test_a_program_that_ends_well_stays_too_and_no_longer_than_said(node: Node) -> None:
    supervised, agent = node.both(*shell("read x; exit 0"))
    agent.expect("started")
    agent.send("hold", ms=400)
    agent.send("log", path=str(node.jobs / "barrier"), line="x")
    wait_for((node.jobs / "barrier").exists, "all messages to be read")
    began = time.monotonic()
    assert supervised.end(stdin="\n")[0] == 0
    assert 0.2 < time.monotonic() - began < 5


def test_a_task_that_stays_goes_when_slurm_ends_it(node: Node) -> None:
    supervised, agent = node.both(*shell("exit 9"))
    agent.expect("exit")
    agent.send("hold", ms=9000)
    agent.verdict("none")
    with pytest.raises(subprocess.TimeoutExpired):
        supervised.process.wait(0.2)
    supervised.process.terminate()
    assert supervised.end()[0] == 9


@pytest.mark.parametrize("words", [{}, {"ms": ""}, {"ms": "-1"}, {"ms": "1e3"}, {"ms": "99999999999999999999"}])
def test_a_hold_without_a_time_holds_nobody(node: Node, words: dict[str, str]) -> None:
    supervised, agent = node.both(*shell("exit 9"))
    agent.expect("exit")
    agent.send("hold", **words)
    agent.verdict("none")
    status, _, errors = supervised.end()
    assert (status, errors) == (9, f"mpsr: agent: hold without a time: {words.get('ms', '')}\n")


# ---------------------------------------------------------------- the site's times


def test_the_sites_grace_is_kept(node: Node) -> None:
    script = "if [ $MPSR_COLOR = b ]; then exit 0; fi; trap '' TERM; while :; do sleep 0.05; done"
    supervised, agent = node.both(*shell(script), grace_ms=0)
    agent.expect("started")
    began = time.monotonic()
    agent.verdict("relaunch", **B)
    agent.expect("exit", status=str(int(signal.SIGKILL)))
    assert time.monotonic() - began < 0.9  # the default is a second
    assert supervised.end()[0] == 0


def test_the_sites_restore_timeout_is_kept(node: Node) -> None:
    supervised, agent = node.both(*PROGRAM, "fault,wait", restore_ms=50)
    agent.expect("fault")
    agent.verdict("restore", incident="i8", color="slow", pipe="/pipes/slow")
    assert agent.expect("rung_failed", incident="i8")["reason"] == "no step in time"
    agent.verdict("fail", reason="over")
    assert supervised.end()[0] == 1


def test_the_sites_requeue_timeout_is_kept(node: Node) -> None:
    supervised, agent = node.both(*shell("exit 9"), requeue_ms=100)
    agent.expect("exit")
    agent.verdict("requeue", incident="i7")
    agent.expect("spilled")
    status, _, errors = supervised.end(seconds=5)
    assert (status, errors) == (75, "mpsr: requeue: Slurm has not ended the job in time\n")


def test_a_place_without_the_times_is_not_followed(node: Node) -> None:
    supervised = node.start(*shell("echo ran"))
    agent = node.agent.accept()
    agent.expect("hello")
    agent.send("place", color="a", pipe="/pipes/a", standby="", standby_pipe="", grace_ms="soon")
    agent.send("refuse", reason="no server answers")
    status, out, errors = supervised.end()
    assert (status, out) == (3, "")
    assert errors.startswith("mpsr: agent: place without the site's times: grace soon restore  requeue  spill \n")


# ---------------------------------------------------------------- verdicts on programs with a session


def ready(agent: Connection) -> None:
    agent.expect("session", role="active")
    agent.expect("ready", role="standby")


def test_promotion_after_a_fault(node: Node) -> None:
    supervised, agent = node.both(*PROGRAM, "step,fault,wait", **WITH_STANDBY)
    fault = agent.expect("fault", role="active", cuda="700", seq="3")
    agent.expect("ready", role="standby")
    agent.verdict("promote", incident="i3", **B)
    agent.expect("started", role="active", color="b")
    stepped = agent.expect("stepped", incident="i3", seq="4", at="12.5")
    assert 0 < float(stepped["ms"]) < 2000
    assert fault["text"] == "illegal address"
    assert supervised.end()[:2] == (0, "active on a\npromote incident=i3 color=b\n")
    assert "standby's own words" not in (node.jobs / "7/standby-2.5.err").read_text()


def test_promotion_that_was_ordered_before_the_fault_was_seen(node: Node) -> None:
    supervised, agent = node.both(*PROGRAM, "wait,exit=5", **WITH_STANDBY)
    ready(agent)
    agent.verdict("promote", incident="i4", **B)
    old = int(agent.heard[1][1]["pid"])
    os.kill(old, signal.SIGKILL)  # the fault takes the process
    agent.expect("exit", pid=str(old))
    agent.expect("stepped", incident="i4")
    assert supervised.end()[:2] == (0, "active on a\npromote incident=i4 color=b\n")


def test_promotion_without_a_standby_is_reported_and_restore_follows(node: Node) -> None:
    supervised, agent = node.both(*PROGRAM, "fault,wait")
    agent.expect("fault")
    agent.verdict("promote", incident="i5", **B)
    assert agent.expect("rung_failed")["rung"] == "standby"
    agent.verdict("restore", incident="i5", **B)
    agent.expect("started", color="b")
    assert agent.expect("stepped")["incident"] == "i5"
    assert supervised.end()[:2] == (0, "active on a\nactive on b\n")


def test_a_new_standby_takes_the_place_of_one_whose_server_was_hit(node: Node) -> None:
    supervised, agent = node.both(*PROGRAM, "wait", **WITH_STANDBY)
    agent.expect("session", role="active")
    old = agent.expect("ready", role="standby")["pid"]
    agent.send("standby", **B)
    assert agent.expect("ready", role="standby")["pid"] != old
    agent.verdict("fail", reason="over")
    assert supervised.end()[0] == 1
    assert not Path(f"/proc/{old}").exists()


def test_a_standby_that_dies_is_reported(node: Node) -> None:
    supervised, agent = node.both(*PROGRAM, "wait", **WITH_STANDBY)
    agent.expect("session", role="active")
    pid = agent.expect("ready", role="standby")["pid"]
    os.kill(int(pid), signal.SIGKILL)
    agent.expect("exit", role="standby", pid=pid)
    agent.send("standby", **B)
    agent.expect("ready", role="standby")
    agent.verdict("fail", reason="over")
    assert supervised.end()[:2] == (1, "active on a\nfail reason=over\n")


def test_none_after_a_fault_raises_the_programs_own_error(node: Node) -> None:
    supervised, agent = node.both(*PROGRAM, "fault,wait,exit=6")
    agent.expect("fault")
    agent.verdict("none")
    status, out, errors = supervised.end()
    assert (status, out) == (6, "active on a\nfail reason=no fault of the GPU is known\n")
    assert errors.count("no fault of the GPU is known") == 1


def test_quarantine_is_restore_for_a_session(node: Node) -> None:
    supervised, agent = node.both(*PROGRAM, "fault,wait")
    agent.expect("fault")
    agent.verdict("quarantine", color="q1", pipe="/pipes/q1")
    agent.expect("started", color="q1")
    agent.expect("stepped")
    assert supervised.end()[0] == 0


def test_requeue_spills_through_the_verdicts_server(node: Node) -> None:
    supervised, agent = node.both(*PROGRAM, "keeper,fault,wait")
    agent.expect("fault")
    agent.verdict("requeue", incident="i6", **B)
    assert agent.expect("spilled")["seq"] == "41"
    supervised.process.terminate()
    assert supervised.end()[0] == -signal.SIGTERM


def test_done_sends_the_standby_home(node: Node) -> None:
    supervised, agent = node.both(*PROGRAM, "wait,done,exit=0", **WITH_STANDBY)
    ready(agent)
    standby = int(agent.heard[-1][1]["pid"])
    agent.verdict("fail", reason="go on")
    assert supervised.end()[0] == 1
    assert not Path(f"/proc/{standby}").exists()


# ---------------------------------------------------------------- agents and keepers that come and go


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


def wait_for_keeper(supervisor: int) -> int:
    """The pid of the supervisor's keeper, once its socket is there."""
    found: list[int] = []

    def look() -> bool:
        found.clear()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                    if parent == supervisor and b"resilience.state.keeper" in (entry / "cmdline").read_bytes():
                        found.append(int(entry.name))
                except OSError:
                    continue
        return bool(found)

    wait_for(look, "a keeper")
    return found[0]


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


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
