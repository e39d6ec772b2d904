"""Programs end as without us under --mps-endings=safe, on a real cluster: status, output, words, cores, in several languages.

Each program loads a libcuda.so.1, an empty library: the client hook looks at its name alone, and handles signals from then on. Each
case is a script as in test_as_without.py. A language that is not installed is left out.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cluster.sandbox import Sandbox
from tests.spank.test_as_without import both

pytestmark = [pytest.mark.cluster, pytest.mark.sim]

ASK = "--mps --mps-endings=safe --gres=shard:1"
FILES = {
    "libcuda.c": "int cuInit(unsigned f) { return (int)f; }",
    "load.py": "import ctypes, os, signal, sys, time; ctypes.CDLL(os.environ['CUDA'])\n",
    "rank.py": """
ctypes.CDLL('libmpich.so.12').MPI_Init(None, None)
if os.environ['SLURM_PROCID'] == '0':
    os.kill(os.getpid(), int(sys.argv[1])) if int(sys.argv[1]) else os._exit(5)
time.sleep(60)
""",
    "ends.c": r"""
#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static void on(int number) { printf("handled %d\n", number); fflush(stdout); _exit(6); }
int main(int count, char **words) {
    if (!dlopen(getenv("CUDA"), RTLD_NOW) || count < 3)
        return 9;
    if (!strcmp(words[2], "handler"))
        signal(atoi(words[1]), on);
    if (!strcmp(words[2], "heap")) {
        char *volatile freed = malloc(8);
        free(freed);
        return freed[3];
    }
    if (!atoi(words[1]))
        return 5;
    raise(atoi(words[1]));
    sleep(60);
    return 0;
}
""",
    "Ends.java": """
public class Ends {
    public static void main(String[] words) throws Exception {
        System.load(System.getenv("CUDA"));
        Runtime.getRuntime().addShutdownHook(new Thread(() -> System.out.println("hook")));
        if (words[0].equals("throw")) throw new IllegalStateException("mine");
        if (words[0].equals("exit")) System.exit(5);
        new ProcessBuilder("kill", "-" + words[0], "" + ProcessHandle.current().pid()).start().waitFor();
        Thread.sleep(60000);
    }
}
""",
    "ends.go": """
package main

// #cgo LDFLAGS: -ldl
// #include <dlfcn.h>
// #include <stdlib.h>
// static int load(void) { return dlopen(getenv("CUDA"), RTLD_NOW) != 0; }
import "C"
import (
    "fmt"
    "os"
    "os/signal"
    "strconv"
    "syscall"
    "time"
)

func main() {
    if C.load() == 0 { os.Exit(9) }
    number, _ := strconv.Atoi(os.Args[1])
    if os.Args[2] == "handler" {
        came := make(chan os.Signal, 1)
        signal.Notify(came, syscall.Signal(number))
        go func() { fmt.Println("handled", int((<-came).(syscall.Signal))); os.Exit(6) }()
    }
    if os.Args[2] == "panic" { panic("mine") }
    if number == 0 { os.Exit(5) }
    syscall.Kill(os.Getpid(), syscall.Signal(number))
    time.Sleep(time.Minute)
}
""",
}
SCANCEL = """
    for word in TERM HUP QUIT XCPU USR1 USR2; do
        job=$(sbatch --parsable $M -o out.$word --wrap="srun -Q bash -c 'exec python3 -c \\"\\$(cat ../../load.py)
open(\\\\\\"up.$word\\\\\\", \\\\\\"w\\\\\\"); time.sleep(60)\\"'; echo status \\$?")
        until [ -e up.$word ]; do sleep 0.1; done; scancel -Q --signal=$word $job.0
        while squeue -h -j $job | grep -q .; do sleep 0.1; done; echo $word; cat out.$word; done"""
PYTHON = {
    "default": "os.kill(os.getpid(), N); time.sleep(60)",
    "handler": "signal.signal(N, lambda *_: sys.exit(6)); os.kill(os.getpid(), N); time.sleep(60)",
    "ignores": "signal.signal(N, signal.SIG_IGN); os.kill(os.getpid(), N); print('goes on')",
    "faulthandler": "import faulthandler; faulthandler.enable(); os.kill(os.getpid(), N); time.sleep(60)",
}
_EACH = "ulimit -c 0; for number in 15 1 3 24 2 11 6 7 8 4 10; do"
CASES = {
    **{
        f"Python, {name}": f'{_EACH} srun -Q $M python3 -c "$(cat ../../load.py)\n{code.replace("N", "$number")}"; echo $?; done'
        for name, code in PYTHON.items()
    },
    "scancel by signal": SCANCEL,
    "C": f"{_EACH} for how in default handler; do srun -Q $M ../../ends $number $how; echo $?; done; done",
    "a sanitizer": "srun -Q $M ../../ends-asan 0 heap 2>&1 | grep -o 'ERROR: AddressSanitizer: [a-z-]*'; echo $?",
    "a core": "ulimit -c unlimited; srun -Q $M --propagate=CORE ../../ends 6 default; echo $?; ls | grep -c core",
    "Java": "ulimit -c 0; for word in TERM HUP INT QUIT exit throw; do [ $word = QUIT ] || timeout 20 "
    "srun -Q $M java -XX:-CreateCoredumpOnCrash -Xshare:auto -cp ../.. Ends $word; echo $?; done",
    "Go": "ulimit -c 0; for number in 15 1 3 11 6; do for how in default handler; do "
    "srun -Q $M ../../ends-go $number $how 2>&1 | grep -E '^(SIG|handled|fatal|srun)'; echo ${PIPESTATUS[0]}; "
    "done; done; srun -Q $M ../../ends-go 0 panic 2>&1 | grep -o 'panic: mine'",
    "MPI": "ulimit -c 0; for number in 0 15 11; do "
    'srun -Q --mpi=pmi2 -n2 -K $M python3 -c "$(cat ../../load.py ../../rank.py)" $number; echo $?; done',
}
OTHER_WORDS = {
    "a core": "Slurm says `core dumped` of the process that it has started, which is our supervisor",
    "MPI": "UCX, below MPICH, prints addresses",
    "Python, faulthandler": "it prints addresses; tests/spank/test_client_hook.py compares the rest",
}
"""Where what is said on standard error may differ, and why."""
QUICK = "a sanitizer"
NEEDS = {"Java": "javac", "Go": "go", "MPI": "mpiexec.mpich"}
BUILDS = {
    "libcuda.so.1": "gcc -shared -fPIC -o libcuda.so.1 libcuda.c",
    "ends": "gcc -O0 -o ends ends.c",
    "ends-asan": "gcc -O0 -fsanitize=address -o ends-asan ends.c",
    "Ends.class": "javac Ends.java",
    "ends-go": "go build -o ends-go ends.go",
}


@pytest.fixture(scope="module")
def programs(cluster: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The programs in alice's home; the path of their libcuda.so.1."""
    made = tmp_path_factory.mktemp("programs")
    for name, text in FILES.items():
        (made / name).write_text(text)
    for command in BUILDS.values():
        if shutil.which(command.split()[0]):
            env = {"PATH": "/usr/bin:/bin", "HOME": str(made), "GO111MODULE": "off"}
            subprocess.run(command.split(), cwd=made, env=env, check=True, timeout=300)
    home = cluster.path("/home/alice")
    for one in made.iterdir():
        if one.is_file():
            shutil.copy(one, Path(home) / one.name)
    return "/home/alice/libcuda.so.1"


def check(cluster: Sandbox, programs: str, name: str) -> None:
    if name in NEEDS and not shutil.which(NEEDS[name]):
        pytest.skip(f"{NEEDS[name]} is not installed")
    head = f"export CUDA={programs} ASAN_OPTIONS=detect_leaks=0\n"
    plain, ours = both(cluster, f"endings {name}", head + CASES[name], ASK)
    assert plain.status != 124, "the case did not come to its end"
    assert (ours.status, ours.out) == (plain.status, plain.out), ours.err
    assert name in OTHER_WORDS or ours.err == plain.err
    assert plain.out


def test_a_sanitizers_report_is_as_without(cluster: Sandbox, programs: str) -> None:
    check(cluster, programs, QUICK)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CASES if name != QUICK])
def test_ends_as_without(cluster: Sandbox, programs: str, name: str) -> None:
    check(cluster, programs, name)
