"""mpsr-hook and the hook server as processes: what a caller sees of the work, and that it is done whatever is wrong."""

import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.sandbox import wait_for

ROOT = Path(__file__).parents[2]
SECONDS = 15.0
SERVER = """
import os, pathlib, subprocess, sys, time
from resilience.adapters.linux.hook_server import HookServer
def work(name, environ):
    return eval(environ["DO"])
def after():
    with open(sys.argv[1] + ".after", "a") as file:
        print(os.nice(0), *sorted({os.path.realpath(f"/proc/self/fd/{fd}") for fd in range(9)}), file=file)
server = HookServer(sys.argv[1], work, current=lambda: not os.path.exists(sys.argv[1] + ".changed"), after=after)
print("up", flush=True)
server.run(0)
"""
DIRECT = "#!/bin/sh\necho direct $1 $DO\nexit 7\n"
needs_compiler = pytest.mark.skipif(not shutil.which("gcc"), reason="no compiler")
pytestmark = needs_compiler


@pytest.fixture(scope="module")
def hook(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """mpsr-hook, built."""
    out = tmp_path_factory.mktemp("hook")
    subprocess.run(["make", "-s", "-C", ROOT / "spank_plugin", f"OUT={out}", out / "mpsr-hook"], check=True)
    out.chmod(0o711)
    return out / "mpsr-hook"


class Node:
    """A directory with a socket, a program that works without a server, and perhaps a server."""

    def __init__(self, home: Path, hook: Path) -> None:
        self.hook = hook
        self.socket = home / "hooks.sock"
        self.mark = home / "mark"
        self.program = home / "mpsr"
        self.program.write_text(DIRECT)
        self.program.chmod(0o755)
        self.server: subprocess.Popen[bytes] | None = None

    def serve(self) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-c", SERVER, str(self.socket)]
        environ = os.environ | {"PYTHONPATH": str(ROOT)}
        self.server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ)
        assert self.server.stdout is not None
        assert self.server.stdout.readline() == b"up\n"
        return self.server

    def start(self, do: str, *, user: int | None = None) -> "subprocess.Popen[str]":
        environ = {
            "DO": do,
            "MPSR_BIN": str(self.program),
            "MPSR_HOOK_SOCKET": str(self.socket),
            "MARK": str(self.mark),
        }
        return subprocess.Popen(
            [self.hook, "prolog"],
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            user=user,
        )

    def run(self, do: str, *, user: int | None = None) -> tuple[int, str, str]:
        process = self.start(do, user=user)
        out, err = process.communicate(timeout=SECONDS)
        return process.returncode, out, err


@pytest.fixture
def node(shared_path: Path, hook: Path) -> Iterator[Node]:
    made = Node(shared_path, hook)
    yield made
    if made.server is not None:
        made.server.send_signal(signal.SIGCONT)
        made.server.kill()
        made.server.wait()


def test_the_server_does_the_work_and_the_caller_has_its_output_and_status(node: Node) -> None:
    server = node.serve()
    out = node.run("print(name, os.getppid(), environ['MARK']) or print('wrong', file=sys.stderr) or 3")
    assert out == (3, f"prolog {server.pid} {node.mark}\n", "wrong\n")


def test_a_long_environment_arrives_whole(node: Node) -> None:
    node.serve()
    assert node.run(f"print(len(environ['DO'])) or 0 # {'x' * 120_000}")[:2] == (0, "120033\n")


def test_what_it_writes_is_seen_at_once(node: Node) -> None:
    node.serve()
    process = node.start("[print('now', flush=True), time.sleep(600)]")
    assert process.stdout is not None
    assert process.stdout.readline() == "now\n"
    process.kill()
    process.communicate()


def test_more_output_than_a_pipe_holds_arrives(node: Node) -> None:
    node.serve()
    assert node.run("print('x' * 300_000) or print('y' * 300_000, file=sys.stderr) or 0") == (
        0,
        "x" * 300_000 + "\n",
        "y" * 300_000 + "\n",
    )


def test_calls_at_the_same_time_do_not_wait_for_each_other(node: Node) -> None:
    node.serve()
    waiting = [node.start("time.sleep(600) or 0") for _ in range(10)]
    try:
        assert node.run("4") == (4, "", "")
    finally:
        for process in waiting:
            process.kill()
            process.communicate()


@pytest.mark.parametrize("do", ["1 / 0", "sys.exit(0)", "signal"])
def test_work_that_breaks_is_told(node: Node, do: str) -> None:
    node.serve()
    status, out, err = node.run(do)
    assert (status, out) == (1, "")
    assert "Traceback" in err


def test_work_that_dies_is_done_by_the_program(node: Node) -> None:
    node.serve()
    assert node.run("os.kill(os.getpid(), 9)")[:2] == (7, "direct prolog os.kill(os.getpid(), 9)\n")


def test_without_a_server_the_program_does_it(node: Node) -> None:
    assert node.run("x") == (7, "direct prolog x\n", "")


def test_the_socket_of_a_server_that_has_gone_is_none(node: Node) -> None:
    server = node.serve()
    server.kill()
    server.wait()
    assert node.socket.is_socket()
    assert node.run("x") == (7, "direct prolog x\n", "")


def test_a_server_that_is_stopped_is_not_waited_for_and_does_nothing_later(node: Node) -> None:
    server = node.serve()
    server.send_signal(signal.SIGSTOP)
    do = "open(environ['MARK'],'w')"
    assert node.run(do) == (7, f"direct prolog {do}\n", "")
    server.send_signal(signal.SIGCONT)
    assert node.run("5") == (5, "", "")
    assert not node.mark.exists()


def test_a_server_whose_program_was_replaced_serves_nobody(node: Node) -> None:
    node.serve()
    changed = Path(f"{node.socket}.changed")
    changed.touch()
    assert node.run("5") == (7, "direct prolog 5\n", "")
    changed.unlink()
    assert node.run("5") == (5, "", "")


def test_a_caller_that_is_killed_takes_the_work_and_its_programs_along(node: Node) -> None:
    node.serve()
    process = node.start(
        "[p := subprocess.Popen(['sleep', '600']),"
        " pathlib.Path(environ['MARK']).write_text(f'{os.getpid()} {p.pid} '), p.wait()]"
    )
    wait_for(lambda: node.mark.exists() and len(node.mark.read_text().split()) == 2, SECONDS)
    pids = [int(word) for word in node.mark.read_text().split()]
    assert all(Path(f"/proc/{pid}").exists() for pid in pids)
    process.kill()
    process.communicate()
    wait_for(lambda: not any(alive(pid) for pid in pids), SECONDS)


def test_what_the_work_has_started_outlives_it(node: Node) -> None:
    """A daemon may stay in the session of whoever started it."""
    node.serve()
    status, out, _ = node.run(
        "print(subprocess.Popen(['sleep', '600'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).pid) or 0"
    )
    pid = int(out)
    assert status == 0
    wait_for(lambda: os.getsid(pid) == os.getpgid(pid) and not alive(os.getsid(pid)), SECONDS)
    assert alive(pid)
    os.kill(pid, signal.SIGKILL)


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:1]
    except FileNotFoundError:
        return False


def test_afterwards_a_process_goes_on_that_nobody_waits_for(node: Node) -> None:
    """Once at the server's start, once after the hook: with nothing of the caller's open, behind everybody else."""
    node.serve()
    assert node.run("0") == (0, "", "")
    marks = Path(f"{node.socket}.after")
    wait_for(lambda: marks.exists() and len(marks.read_text().splitlines()) == 2, SECONDS)
    for line in marks.read_text().splitlines():
        nice, *files = line.split()
        assert (nice, {file for file in files if not file.startswith("/proc")}) == ("19", {"/dev/null", str(marks)})


def test_the_server_ends_with_whoever_started_it(node: Node) -> None:
    server = node.serve()
    assert server.stdin is not None
    server.stdin.close()
    assert server.wait(SECONDS) == 0


def test_a_server_takes_the_place_of_one_before(node: Node) -> None:
    first = node.serve()
    second = node.serve()
    try:
        assert node.run("print(os.getppid()) or 0") == (0, f"{second.pid}\n", "")
    finally:
        first.kill()
        first.communicate()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be two users")
@pytest.mark.parametrize("mode", [0o600, 0o666])
def test_another_user_is_not_served(node: Node, mode: int) -> None:
    """The socket's mode keeps others out already; the second row is what holds when it does not."""
    node.serve()
    assert node.socket.stat().st_mode & 0o777 == 0o600
    node.socket.chmod(mode)
    assert node.run("5", user=65534) == (7, "direct prolog 5\n", "")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\1",
        struct.pack("=I", 5),
        struct.pack("=I", 0),
        struct.pack("=I", 7) + b"prolog\0",
        struct.pack("=I", 6) + b"prolog",
        struct.pack("=I", 6) + b"shell\0",
        struct.pack("=I", 2**32 - 1) + b"\0" * (2 << 20),
        b"\xff" * 5000,
    ],
)
def test_no_request_breaks_the_server(node: Node, data: bytes) -> None:
    """None of these is taken: they have no standard output to write to."""
    node.serve()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.settimeout(SECONDS)
        caller.connect(str(node.socket))
        try:
            caller.sendall(data)
            assert caller.recv(1) == b""
        except (BrokenPipeError, ConnectionResetError):
            pass
    assert node.run("5") == (5, "", "")


@pytest.mark.parametrize("arguments", [[], ["shell"], ["prolog", "epilog"]])
def test_a_wrong_call_is_told(hook: Path, arguments: list[str]) -> None:
    done = subprocess.run(
        [hook, *arguments], env={"MPSR_BIN": "/bin/true"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "usage" in done.stderr


def test_a_program_that_is_missing_is_told(node: Node) -> None:
    node.program.unlink()
    status, _, err = node.run("x")
    assert status == 127
    assert err == f"mpsr: prolog: cannot be run: {node.program}: No such file or directory\n"
