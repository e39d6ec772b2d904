"""The agent among real processes, threads and sockets, and the memory that it takes itself."""

import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from resilience.adapters.gpu.nvml import NoGpuEvents
from resilience.adapters.linux.agent_socket import AgentSocket
from resilience.adapters.linux.processes import look, starttime
from resilience.adapters.linux.procfs import ProcfsTree
from resilience.adapters.linux.worker import WorkerThreads
from resilience.adapters.mps.daemon_watch import DaemonWatch
from resilience.model.errors import ResilienceError
from resilience.model.ids import ProcessId
from resilience.ports import Packet
from tests.unit.agent_kit import BOUND, readable, until
from tests.unit.machine_kit import server


def test_a_name_that_a_user_chose_is_one_line(tmp_path: Path) -> None:
    chosen = tmp_path / "x\nmpsr: \x1b[2J"
    chosen.symlink_to("/bin/sleep")
    with subprocess.Popen([chosen, "60"]) as program:
        assert str(look(program.pid)) == f"process {program.pid} (x?mpsr: ?[2J)"
        program.kill()


# ---------------------------------------------------------------- deaths of daemons
def test_a_daemon_that_is_killed_is_told_once() -> None:
    watch = DaemonWatch()
    with subprocess.Popen(["sleep", "60"]) as daemon:
        started = starttime(daemon.pid)
        assert started is not None
        watch.watch(server("a"), ProcessId(pid=daemon.pid, starttime=started))
        assert watch.read() == ()
        daemon.kill()
        readable(watch)
        assert watch.read() == (server("a"),)
    assert watch.read() == ()
    watch.close()


def test_a_daemon_whose_socket_is_removed_is_told_once(tmp_path: Path) -> None:
    """`rm -rf $CUDA_MPS_PIPE_DIRECTORY` in a script: the daemon lives on, and nobody can join it."""
    watch = DaemonWatch()
    pipe = tmp_path / "a"
    pipe.mkdir()
    for name in ("control", "log", "pid"):
        (pipe / name).write_text("")
    started = starttime(os.getpid())
    assert started is not None
    watch.watch(server("a"), ProcessId(pid=os.getpid(), starttime=started), str(pipe))
    (pipe / "pid").unlink()
    readable(watch)
    assert watch.read() == ()
    (pipe / "control").rename(tmp_path / "control")
    readable(watch)
    assert watch.read() == (server("a"),)
    shutil.rmtree(pipe)
    assert watch.read() == ()
    pipe.mkdir()
    watch.watch(server("b"), ProcessId(pid=os.getpid(), starttime=started), str(pipe))  # removed before it is followed
    readable(watch)
    assert watch.read() == (server("b"),)
    watch.close()


def test_a_directory_in_which_things_come_and_go_is_not_followed_for_ever(tmp_path: Path) -> None:
    watch = DaemonWatch()
    (tmp_path / "control").write_text("")
    started = starttime(os.getpid())
    assert started is not None
    watch.watch(server("a"), ProcessId(pid=os.getpid(), starttime=started), str(tmp_path))
    for _ in range(1000):
        (tmp_path / "x").write_text("")
        (tmp_path / "x").unlink()
        assert watch.read() == ()
    assert watch.read() == ()  # the watch's own end
    (tmp_path / "control").unlink()
    assert not select.select([watch], [], [], 0)[0]
    watch.close()


def test_a_daemon_that_has_gone_already_or_left_its_number_to_another_is_gone() -> None:
    watch = DaemonWatch()
    with subprocess.Popen(["true"]) as ended:
        ended.wait(BOUND)
    watch.watch(server("a"), ProcessId(pid=ended.pid, starttime=1))
    watch.watch(server("b"), ProcessId(pid=os.getpid(), starttime=1))
    readable(watch)
    assert watch.read() == (server("a"), server("b"))
    watch.close()


def test_a_daemon_that_is_followed_no_more_is_not_told() -> None:
    watch = DaemonWatch()
    with subprocess.Popen(["sleep", "60"]) as daemon:
        started = starttime(daemon.pid)
        assert started is not None
        watch.watch(server("a"), ProcessId(pid=daemon.pid, starttime=started))
        watch.unwatch(server("a"))
        daemon.kill()
        daemon.wait(BOUND)
        assert watch.read() == ()
    watch.close()


# ---------------------------------------------------------------- processes
def test_procfs_of_a_real_child() -> None:
    program = "import os,sys,signal; print(os.getpid(), flush=True); signal.pause()"
    names = os.environ | {"SLURM_JOB_ID": "42"}
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=names) as child:
        assert child.stdout is not None
        child.stdout.readline()
        tree = ProcfsTree()
        assert tree.ancestors(child.pid)[0] == os.getpid()
        assert tree.job(child.pid) == 42
        started = tree.starttime(child.pid)
        assert started is not None
        assert started > 0
        child.send_signal(signal.SIGKILL)
        assert until(lambda: tree.starttime(child.pid) is None, "a zombie counts as gone")
    assert tree.ancestors(child.pid) == ()
    assert tree.job(child.pid) is None


def test_procfs_of_a_name_that_looks_like_fields(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    fields = " ".join(["S", "3", *["0"] * 17, "777", "0"])
    (tmp_path / "7" / "stat").write_text(f"7 (evil) S 9 (x) {fields}\n")
    tree = ProcfsTree(str(tmp_path))
    assert tree.starttime(7) == 777
    assert tree.ancestors(7) == (3,)


def _sleeper() -> tuple[subprocess.Popen[str], int]:
    """A shell, and what it has started."""
    child = subprocess.Popen(["sh", "-c", "sleep 60 & echo $!; wait"], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    return child, int(child.stdout.readline())


def test_procfs_sees_a_process_that_is_stopped_also_below_another() -> None:
    child, below = _sleeper()
    tree = ProcfsTree()
    try:
        assert not tree.stopped(child.pid)
        for pid in (child.pid, below):
            os.kill(pid, signal.SIGSTOP)
            assert until(lambda: tree.stopped(child.pid), "the stop is seen")
            os.kill(pid, signal.SIGCONT)
            assert until(lambda: not tree.stopped(child.pid), "the way on is seen")
    finally:
        os.kill(below, signal.SIGKILL)
        child.wait(BOUND)
    assert not tree.stopped(child.pid)


CGROUPS = {"v1": ("/sys/fs/cgroup/freezer", "freezer.state", "FROZEN"), "v2": ("", "cgroup.freeze", "1")}


@pytest.mark.parametrize("version", CGROUPS)
def test_procfs_sees_a_frozen_cgroup(version: str) -> None:
    """As Slurm suspends a job with proctrack/cgroup: in the step's cgroup, above that of the task."""
    mount, switch, frozen = CGROUPS[version]
    mount = mount or next((path for path in ("/sys/fs/cgroup/unified", "/sys/fs/cgroup") if _is_v2(path)), "")
    if not mount or not os.access(mount, os.W_OK) or not os.path.exists(f"{mount}/cgroup.procs"):
        pytest.skip(f"no cgroup {version} to write to")
    step = Path(mount) / f"mpsr-test-{os.getpid()}"
    (step / "task").mkdir(parents=True)
    child, below = _sleeper()
    try:
        for pid in (child.pid, below):
            (step / "task/cgroup.procs").write_text(str(pid))
        tree = ProcfsTree()
        assert not tree.stopped(child.pid)
        (step / switch).write_text(frozen)
        assert until(lambda: tree.stopped(child.pid), "the frozen cgroup is seen")
        (step / switch).write_text("0" if frozen == "1" else "THAWED")
        assert until(lambda: not tree.stopped(child.pid), "the thaw is seen")
    finally:
        os.kill(below, signal.SIGKILL)
        child.wait(BOUND)
        until(lambda: not (step / "task/cgroup.procs").read_text(), "the cgroup to be empty")
        (step / "task").rmdir()
        step.rmdir()


def _is_v2(path: str) -> bool:
    return os.path.exists(f"{path}/cgroup.controllers")


# ---------------------------------------------------------------- worker
def test_lanes_do_not_wait_for_each_other() -> None:
    worker = WorkerThreads()
    gate_read, gate_write = os.pipe()
    heard: list[object] = []
    worker.submit("slurm", lambda: os.read(gate_read, 1), heard.append)
    worker.submit("mps", lambda: 1 // 0, heard.append)
    readable(worker)
    (answer,) = worker.read()
    assert heard == [], "nothing is done with an answer before the loop takes it"
    answer.take()
    assert [type(value) for value in heard] == [ZeroDivisionError]
    os.write(gate_write, b"x")
    readable(worker)
    worker.read()[0].take()
    assert heard[1] == b"x"
    assert worker.read() == ()


def test_an_idle_lane_has_no_thread_and_gets_another() -> None:
    worker = WorkerThreads(idle=0.01)
    before = threading.active_count()
    for number in range(50):
        worker.submit(f"mps:{number}", lambda: 1, lambda _: None)
    until(lambda: threading.active_count() <= before and not worker._lanes, "the end of idle threads")
    heard: list[object] = []
    worker.submit("mps:1", lambda: 2, heard.append)
    until(lambda: [answer.take() for answer in worker.read()] and heard[-1:] == [2], "an answer of a lane begun anew")


# ---------------------------------------------------------------- agent socket
def _connect(path: str) -> socket.socket:
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    peer.settimeout(BOUND)
    peer.connect(path)
    return peer


def _packets(server_end: AgentSocket, number: int) -> list[Packet]:
    found: list[Packet] = []

    def enough() -> bool:
        found.extend(server_end.read())
        return len(found) >= number

    until(enough, f"{number} packets")
    return found


def test_packets_carry_the_kernels_word_on_who_sent_them(tmp_path: Path) -> None:
    end = AgentSocket(str(tmp_path / "s"))
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o666
    with _connect(str(tmp_path / "s")) as peer:
        peer.send(b"hello")
        (packet,) = _packets(end, 1)
        assert (packet.data, packet.peer.pid, packet.peer.uid) == (b"hello", os.getpid(), os.getuid())
        end.send(packet.peer, b"answer")
        assert peer.recv(100) == b"answer"
    (gone,) = _packets(end, 1)
    assert gone.data is None
    assert gone.peer == packet.peer
    end.send(packet.peer, b"too late")
    end.close()
    assert not (tmp_path / "s").exists()


def test_a_peer_that_never_reads_is_dropped_and_costs_nobody_else(tmp_path: Path) -> None:
    end = AgentSocket(str(tmp_path / "s"))
    with _connect(str(tmp_path / "s")) as deaf, _connect(str(tmp_path / "s")) as good:
        deaf.send(b"1")
        first = _packets(end, 1)[0].peer
        good.send(b"2")
        second = _packets(end, 1)[0].peer
        for _ in range(5000):
            end.send(first, b"x" * 4000)
        (gone,) = _packets(end, 1)
        assert gone == Packet(peer=first, data=None)
        end.send(second, b"fine")
        assert good.recv(100) == b"fine"
    end.close()


def test_who_is_turned_away_can_read_why_whatever_he_still_had_to_say(tmp_path: Path) -> None:
    end = AgentSocket(str(tmp_path / "s"))
    with _connect(str(tmp_path / "s")) as peer:
        peer.send(b"hello")
        (packet,) = _packets(end, 1)
        peer.send(b"never read")
        end.send(packet.peer, b"go")
        end.drop(packet.peer)
        assert (peer.recv(100), peer.recv(100)) == (b"go", b"")
    end.close()


def test_a_stale_socket_is_replaced_and_a_long_path_refused(tmp_path: Path) -> None:
    AgentSocket(str(tmp_path / "s"))
    second = AgentSocket(str(tmp_path / "s"))
    _connect(str(tmp_path / "s")).close()
    second.close()
    with pytest.raises(ResilienceError, match="cannot be opened"):
        AgentSocket(str(tmp_path / ("x" * 120)))


def test_no_gpu_events_is_silent() -> None:
    feed = NoGpuEvents()
    assert not select.select([feed], [], [], 0)[0]
    assert feed.read() == ()
    feed.close()


# ---------------------------------------------------------------- memory
_MEMORY = """
import sys
import pynvml
from resilience.agent import Agent
from resilience.adapters.gpu import nvml
from resilience.adapters.linux import agent_socket, clock, journal, kmsg, procfs, worker
from resilience.adapters.mps import server_logs
from resilience.parse import mpslog
mpslog.parse_line("[2026-03-02 08:12:00.001 Other  4428] nothing")
pages = open("/proc/self/status").read()
print(next(line.split()[1] for line in pages.splitlines() if line.startswith("VmRSS")))
"""


def test_the_agents_modules_fit_in_their_memory() -> None:
    """The aim is 40 MiB with pynvml; what Slurm's and the MPS daemons' adapters add is small."""
    out = subprocess.run([sys.executable, "-c", _MEMORY], check=True, capture_output=True, text=True, timeout=30)
    assert int(out.stdout) < 40 * 1024, f"{int(out.stdout) / 1024:.1f} MiB"
