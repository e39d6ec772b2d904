"""The client hook in a program: it ends as without it, and tells the supervisor first when it has the GPU's driver.

The programs run twice, with the hook and without, and exit statuses, output and errors must be the same. Their libcuda.so.1
is an empty library: the hook looks at its name alone.
"""

import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.spank.node import BOUND, ROOT, Connection
from tests.spank.supervisor_kit import PROGRAM, Node, alive, ready

LIBRARY = ROOT / "build/libmpsr-ending.so"
ENDS = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGXCPU, signal.SIGABRT)
CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL)
LOAD = "import ctypes, os, signal, sys, time; ctypes.CDLL('libcuda.so.1')\n"

PYTHON = {
    **{
        f"{one.name}, by default": f"{LOAD}os.kill(os.getpid(), {int(one)}); time.sleep(60)"
        for one in (*ENDS, *CRASHES)
    },
    "SIGINT": f"{LOAD}os.kill(os.getpid(), 2); time.sleep(60)",
    "SIGKILL": f"{LOAD}os.kill(os.getpid(), 9); time.sleep(60)",
    "SIGUSR1": f"{LOAD}os.kill(os.getpid(), 10); time.sleep(60)",
    "a handler from before": f"import signal, sys; signal.signal(15, lambda *_: sys.exit('handled'))\n{LOAD}os.kill(os.getpid(), 15)",
    "a handler from after": f"{LOAD}signal.signal(15, lambda *_: sys.exit('handled')); os.kill(os.getpid(), 15); time.sleep(60)",
    "a handler that goes on": f"{LOAD}signal.signal(15, lambda *_: print('on')); os.kill(os.getpid(), 15); print('end')",
    "ignored before": f"import signal; signal.signal(1, signal.SIG_IGN)\n{LOAD}os.kill(os.getpid(), 1); print('lives')",
    "ignored after": f"{LOAD}signal.signal(1, signal.SIG_IGN); os.kill(os.getpid(), 1); print('lives')",
    "what is asked of Python": f"import signal; signal.getsignal(15)\n{LOAD}print(signal.getsignal(15), signal.getsignal(2))",
    "faulthandler before": f"import faulthandler; faulthandler.enable()\n{LOAD}ctypes.string_at(0)",
    "faulthandler after": f"{LOAD}import faulthandler; faulthandler.enable(); ctypes.string_at(0)",
    "faulthandler, abort": f"{LOAD}import faulthandler; faulthandler.enable(); os.abort()",
    "a dead pointer": f"{LOAD}ctypes.string_at(0)",
    "abort": f"{LOAD}os.abort()",
    "exit status": f"{LOAD}sys.exit(42)",
    "a forked child": f"{LOAD}pid = os.fork()\nif not pid: os.kill(os.getpid(), 15); time.sleep(60)\nprint(os.waitpid(pid, 0)[1])",
    "a child that is another program": f"{LOAD}import subprocess; print(subprocess.run(['sh', '-c', 'kill $$']).returncode)",
    "threads that sleep": f"{LOAD}import threading; threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
    "os.kill(os.getpid(), 15); time.sleep(60)",
    "an unhandled exception": f"{LOAD}raise ValueError('mine')",
    "without the driver": "import os, time; os.kill(os.getpid(), 15); time.sleep(60)",
}
SHELL = {
    "a shell that is ended": "kill $$; sleep 60",
    "a shell's trap": "trap 'echo trapped; exit 3' TERM; kill $$; sleep 60",
    "a shell's child": f'{sys.executable} -c "import os; os.abort()"; echo $?',
}
OVERFLOW = "int deep(volatile int *a) { volatile int b[999] = {*a}; return deep(b) + b[7]; } int main(void) { int a = 0; return deep(&a); }"
DIVIDE = "int main(int c, char **v) { (void)v; volatile int zero = c - 1; return 7 / zero; }"
HEAP = "#include <stdlib.h>\nint main(void) { char *volatile p = malloc(8); free(p); return p[3]; }"
RUNPATH = '#include <dlfcn.h>\nint main(void) { return dlopen("libmine.so", RTLD_NOW) ? 5 : 6; }'
C = {
    "a stack that overflows": (OVERFLOW, []),
    "a division by zero": (DIVIDE, []),
    "a sanitizer's report": (HEAP, ["-fsanitize=address"]),
    "a library on the program's RUNPATH": (RUNPATH, ["-Wl,-rpath,$ORIGIN/own"]),
}


@dataclass
class HookSupervisor:
    """Counts who connects, and lets them go."""

    path: Path
    listener: socket.socket = field(default_factory=lambda: socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))

    def __post_init__(self) -> None:
        self.listener.bind(str(self.path))
        self.listener.listen(8)

    def told(self, process: "subprocess.Popen[str]") -> int:
        """Serve until the process has ended: how many have told."""
        count = 0
        end, door = os.pidfd_open(process.pid), self.listener.fileno()
        while end not in (ready := select.select([door, end], [], [], BOUND)[0]):
            assert ready, "neither an end nor a word"
            self.listener.accept()[0].close()
            count += 1
        os.close(end)
        return count


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs in C, libcuda.so.1, and cores' directory."""
    made = tmp_path_factory.mktemp("hook")
    for name, text, more in [("libcuda.so.1", "int cuInit(unsigned f) { return (int)f; }", ["-shared", "-fPIC"]),
                             *((name, *rest) for name, rest in C.items())]:  # fmt: skip
        (made / "source.c").write_text(text)
        subprocess.run(["gcc", "-O0", "-o", made / name, made / "source.c", *more], check=True, timeout=60)
    (made / "own").mkdir()
    shutil.copy(made / "libcuda.so.1", made / "own/libmine.so")
    return made


def run(place: Path, command: list[str], supervisor: HookSupervisor | None) -> tuple[int, str, str, int]:
    """Exit status, output, errors (a shell's word on cores among them), and how many have told."""
    env = {"PATH": os.environ["PATH"], "LD_LIBRARY_PATH": str(place), "ASAN_OPTIONS": "detect_leaks=0"}
    if supervisor is not None:
        env |= {"LD_PRELOAD": str(LIBRARY), "MPSR_ENDING_SOCKET": str(supervisor.path)}
        env["ASAN_OPTIONS"] += ":verify_asan_link_order=0"
    argv = ["prlimit", "--core=unlimited", *command]
    process = subprocess.Popen(argv, env=env, cwd=place, text=True, stdout=-1, stderr=-1)
    told = supervisor.told(process) if supervisor is not None else 0
    out, errors = process.communicate(timeout=60)  # a core is written, on a disk that may be busy
    for core in place.glob("core*"):
        core.unlink()
    return process.returncode, out, re.sub(r"0x[0-9a-f]+|==\d+==|(?<=line 1:)\s+\d+", "…", errors), told


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[HookSupervisor]:
    made = HookSupervisor(tmp_path / "socket")
    yield made
    made.listener.close()


def same(place: Path, command: list[str], supervisor: HookSupervisor) -> int:
    """How many have told."""
    plain, hooked = run(place, command, None), run(place, command, supervisor)
    assert hooked[:3] == plain[:3]
    return hooked[3]


@pytest.mark.parametrize("name", PYTHON)
def test_a_program_in_python_ends_as_without(place: Path, supervisor: HookSupervisor, name: str) -> None:
    told = same(place, [sys.executable, "-c", PYTHON[name]], supervisor)
    tells = name.endswith("by default") or name in ("faulthandler after", "faulthandler, abort", "a dead pointer", "abort",
                                                    "threads that sleep")  # fmt: skip
    assert told == tells, name


@pytest.mark.parametrize("name", SHELL)
def test_a_shell_sees_no_difference(place: Path, supervisor: HookSupervisor, name: str) -> None:
    assert same(place, ["bash", "-c", SHELL[name]], supervisor) == 0


@pytest.mark.parametrize("name", C)
def test_a_program_in_c_ends_as_without(place: Path, supervisor: HookSupervisor, name: str) -> None:
    assert same(place, [str(place / name)], supervisor) == 0


def test_a_supervisor_that_does_not_answer_is_waited_for_two_seconds(place: Path, supervisor: HookSupervisor) -> None:
    env = {"LD_LIBRARY_PATH": str(place), "LD_PRELOAD": str(LIBRARY), "MPSR_ENDING_SOCKET": str(supervisor.path)}
    process = subprocess.Popen([sys.executable, "-c", PYTHON["SIGTERM, by default"]], env=env)
    supervisor.listener.settimeout(BOUND)
    peer, _ = supervisor.listener.accept()
    assert process.wait(BOUND) == -signal.SIGTERM
    peer.close()


def test_a_supervisor_that_has_gone_costs_nothing(place: Path, tmp_path: Path) -> None:
    env = {"LD_LIBRARY_PATH": str(place), "LD_PRELOAD": str(LIBRARY), "MPSR_ENDING_SOCKET": str(tmp_path / "nobody")}
    done = subprocess.run([sys.executable, "-c", PYTHON["SIGTERM, by default"]], env=env, timeout=BOUND, check=False)
    assert done.returncode == -signal.SIGTERM


# ---------------------------------------------------------------- with the real supervisor


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    yield made
    made.agent.close()


OPTIONS = {"MPSR_OPTIONS": "mps=on;endings=safe"}


def start(node: Node, place: Path, script: str, **more: str) -> tuple[subprocess.Popen[str], Connection, int]:
    supervised = node.start(sys.executable, "-c", script, env={"LD_LIBRARY_PATH": str(place), **more})
    agent = node.agent.accept()
    agent.place()
    agent.ends_clients = False
    return supervised.process, agent, int(agent.expect("started", role="active")["pid"])


def test_slurms_sigterm_ends_the_clients_first_and_the_task_as_ever(node: Node, place: Path) -> None:
    process, agent, pid = start(node, place, f"{LOAD}print('up', flush=True); time.sleep(60)", **OPTIONS)
    assert process.stdout
    assert process.stdout.readline() == "up\n"
    for one in (process.pid, pid):  # as slurmstepd does
        os.kill(one, signal.SIGTERM)
    asked = agent.expect("end", color="a")
    assert (asked["pids"], asked["alone"]) == (str(pid), "1")
    assert alive(pid)
    agent.send("ended", n=asked["n"])
    exited = agent.expect("exit", role="active")
    assert (exited["status"], exited["told"]) == ("15", "1")
    process.communicate(timeout=BOUND)
    assert process.returncode == -signal.SIGTERM


def test_plain_endings_leave_the_environment_alone(node: Node, place: Path) -> None:
    script = "import os; print(os.environ.get('LD_PRELOAD'), os.environ.get('ASAN_OPTIONS'))"
    process, _, _ = start(node, place, script)
    assert process.communicate(timeout=BOUND)[0] == "None None\n"


def test_what_the_user_preloads_stays_first(node: Node, place: Path) -> None:
    script = "import os; print(os.environ['LD_PRELOAD'])"
    process, _, _ = start(node, place, script, LD_PRELOAD="libm.so.6", **OPTIONS)
    assert process.communicate(timeout=BOUND)[0] == f"libm.so.6:{LIBRARY}\n"


def test_a_standbys_clients_are_on_the_spare_server(node: Node) -> None:
    supervised, agent = node.both(*PROGRAM, "wait", standby="b", standby_pipe="/pipes/b")
    ready(agent)
    agent.ends_clients = False
    standby = int(next(words["pid"] for verb, words in agent.heard if verb == "ready"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as other:  # anybody of this user may connect
        other.connect(str(next(node.jobs.glob("*/e2.5"))))
        assert agent.expect("end", color="a")["pids"].split(",")[0] == str(os.getpid())
    assert alive(standby)
    supervised.process.kill()
    supervised.end()
