"""The programs that other tests run: each fault is the one it is named after, and the plain program is deterministic."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gpusim.host import SimHost

pytestmark = pytest.mark.sim
ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ROOT / "tests/programs"
DRILL = ROOT / "resilience/drill"


@pytest.fixture
def sim_host() -> Iterator[SimHost]:
    with SimHost(memory=64) as made:
        yield made


def run(sim: SimHost, program: str | Path, *arguments: object, **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(PROGRAMS / program), *map(str, arguments)]
    environ = sim.env(PYTHONPATH=str(ROOT), **more)
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=20, check=False, cwd=os.sep)


@pytest.mark.parametrize(
    ("kind", "code", "xid"),
    [
        ("illegal-address", "700: CUDA_ERROR_ILLEGAL_ADDRESS", ": 31,"),
        ("illegal-write", "700: CUDA_ERROR_ILLEGAL_ADDRESS", ": 31,"),
        ("misaligned", "716: CUDA_ERROR_MISALIGNED_ADDRESS", ": 13,"),
        ("illegal-instruction", "715: CUDA_ERROR_ILLEGAL_INSTRUCTION", ": 13,"),
        ("trap", "719: CUDA_ERROR_LAUNCH_FAILED", ": 13,"),
    ],
)
@pytest.mark.parametrize("session", [(), ("--session",)], ids=["plain", "session"])
def test_each_fault_is_the_one_it_is_named_after(
    sim_host: SimHost, kind: str, code: str, xid: str, session: tuple[str, ...]
) -> None:
    done = run(sim_host, DRILL / "culprit.py", kind, *session)
    assert (done.returncode, done.stdout) == (1, f"culprit: ready\nculprit: {kind}\n"), done.stderr
    assert f"CUDA error {code}" in done.stderr
    assert xid in (sim_host.path / "kmsg").read_text()


def test_a_culprit_may_fault_only_once(sim_host: SimHost, tmp_path: Path) -> None:
    marker = tmp_path / "once"
    assert run(sim_host, DRILL / "culprit.py", "trap", "--once", marker).returncode == 1
    again = run(sim_host, DRILL / "culprit.py", "trap", "--once", marker)
    assert (again.returncode, again.stdout) == (0, "culprit: ready\nculprit: not again\n")


def test_a_culprit_writes_down_when_it_launched(sim_host: SimHost, tmp_path: Path) -> None:
    before = time.monotonic()
    assert run(sim_host, DRILL / "culprit.py", "trap", "--clock", tmp_path).returncode == 1
    (moment,) = map(float, (tmp_path / f"faults.{os.getuid()}").read_text().split())
    assert before < moment < time.monotonic()
    (event,) = (sim_host.path / "events").read_text().splitlines()
    assert moment <= int(event.split()[0]) / 1e9


def test_a_culprit_waits_for_its_file(sim_host: SimHost, tmp_path: Path) -> None:
    trigger = tmp_path / "now"
    command = [sys.executable, str(DRILL / "culprit.py"), "none", "--when", str(trigger)]
    with subprocess.Popen(
        command, env=sim_host.env(PYTHONPATH=str(ROOT)), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "culprit: ready\n"
        assert process.poll() is None
        trigger.touch()
        assert process.communicate(timeout=20)[0] == "culprit: none\nculprit: done\n"


def test_the_plain_program_is_deterministic(sim_host: SimHost, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for _ in range(2):
        done = run(sim_host, "plain.py", 50, "--out", out, "--exit", 7)
        assert (done.returncode, done.stdout, done.stderr) == (7, "plain: 50 steps, sum 102400.0\n", "")
        assert out.read_text() == done.stdout


def test_the_plain_program_imports_nothing_of_ours(sim_host: SimHost) -> None:
    command = [sys.executable, "-S", "-E", "-c", "import runpy, sys; sys.argv = ['p', '1']\n"]
    command[-1] += (
        f"try:\n    runpy.run_path({str(PROGRAMS / 'plain.py')!r}, run_name='__main__')\n"
        "finally:\n    print([name for name in sys.modules if name.startswith('resilience')])"
    )
    done = subprocess.run(command, env=sim_host.env(), capture_output=True, text=True, timeout=20, check=False, cwd="/")
    assert done.stdout.endswith("[]\n"), done


def test_the_plain_program_names_what_failed(sim_host: SimHost) -> None:
    (sim_host.path / "inject").write_text("fail cuMemAlloc_v2 1 2\n")
    done = run(sim_host, "plain.py", 5)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "plain: cuMemAlloc_v2 failed with CUDA error 2\n")


OTHER_STREAM = """
import ctypes, pathlib, sys, threading
import resilience

N = 1 << 23  # 64 MiB: the last word is far behind the first
with resilience.session(arrays="device", spill_seconds=0) as s:
    gpu, stream = s.gpu, ctypes.c_void_p()
    gpu.driver("cuStreamCreate", ctypes.byref(stream), 1)  # non-blocking: nothing orders it after the session's
    kernel = gpu.load(pathlib.Path(sys.argv[1]).read_bytes()).function("fill")
    x = s.array("x", N, "float64")
    ours, gpu.stream = gpu.stream, stream.value
    gpu.launch(kernel, 1, 1, (ctypes.c_uint64(x.ptr + 8 * (N - 1)), ctypes.c_int(1), ctypes.c_double(7.0)))
    gpu.synchronize_stream()
    gpu.stream = ours
    if sys.argv[2] == "thread":
        commits = threading.Thread(target=s.commit, args=(0,))
        commits.start()
        commits.join()
    elif sys.argv[2] == "upload":
        x.copy_from(bytes(8 * (N - 1)) + b"\\0\\0\\0\\0\\0\\0\\x20\\x40")  # the last word is 8.0
        gpu.stream = stream.value
        gpu.launch(kernel, 1, 1, (ctypes.c_uint64(x.ptr + 8 * (N - 1)), ctypes.c_int(1), ctypes.c_double(9.0)))
        gpu.synchronize_stream()
        gpu.stream = ours
    print(s.step, x.numpy()[-1])
"""
"""Work of a program on a stream of its own: what the session did before must be done, not merely given to the GPU."""


@pytest.mark.parametrize(("what", "expected"), [("zeros", "-1 7.0"), ("thread", "0 7.0"), ("upload", "-1 9.0")])
def test_a_programs_own_stream_and_thread_find_whole_arrays(what: str, expected: str) -> None:
    with SimHost(memory=256) as sim:
        command = [sys.executable, "-c", OTHER_STREAM, str(DRILL / "faults.ptx"), what]
        environ = sim.env(PYTHONPATH=str(ROOT))
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=20, check=False, cwd="/")
        assert (done.returncode, done.stdout) == (0, f"{expected}\n"), done.stderr
