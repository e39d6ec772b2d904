"""Arrays of every kind: state, constant, appended to; on the GPU and on the host; whatever is killed, and when."""

import signal
import subprocess
import sys

import pytest

from tests.conformance.session_kit import DECLARES
from tests.conformance.state_harness import LIMIT, ROOT, Task
from tests.conformance.test_session_spill import spill
from tests.conformance.test_standby_apart import used
from tests.gpusim.host import SimHost

pytestmark = pytest.mark.sim


def torn(task: Task, examples: int) -> None:
    task.start_keeper()
    environ = task.environ("a", EXAMPLES=str(examples), MPSR_SPILL="")
    command = [sys.executable, "-m", "tests.conformance.torn_commits"]
    done = subprocess.run(command, env=environ, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert (done.stdout, done.returncode) == ("good\n", 0), done.stderr[:3000] + done.stderr[-3000:]


def test_what_comes_back_is_exactly_one_commit(task: Task) -> None:
    torn(task, 15)


@pytest.mark.slow
def test_what_comes_back_is_exactly_one_commit_of_hundreds(task: Task) -> None:
    torn(task, 100)


SERVES = """
import os, signal, sys
import numpy as np
import resilience
died_at, where = int(sys.argv[1]), sys.argv[2]
def row(step): return np.arange(1000 * step, 1000 * step + 512, dtype="f4")
def values(array): return array if isinstance(array, np.ndarray) else array.numpy()
def put(array, content):
    if isinstance(array, np.ndarray): array[...] = content
    else: array.copy_from(np.ascontiguousarray(content, dtype=array.dtype))
with resilience.session(arrays="device", name="serve") as s:
    weights = s.array("weights", (1024, 512), "float32", constant=True, where=where)
    cache = s.array("cache", (64, 512), "float32", append=True, where=where)
    done = s.array("done", 1, "int64", where=where)
    if s.fresh:
        put(weights, np.arange(1024 * 512).reshape(1024, 512) % 1000)
        content = values(cache).copy(); content[0] = 7; put(cache, content); s.filled["cache"] = 1
    for step in s.steps(20):
        content = values(cache).copy()
        assert all((content[n + 1] == row(n)).all() for n in range(step)) and (content[0] == 7).all()
        assert not content[step + 1:].any(), "rows that no commit has"
        content[step + 1:] = 99           # more than the commit keeps
        content[step + 1] = row(step)
        put(cache, content)
        put(done, [step])
        s.commit(step, filled={"cache": step + 2})
        if step == died_at:
            os.kill(os.getpid(), signal.SIGKILL)
        content[step + 2:] = 0
        put(cache, content)
    assert values(weights).sum() == (np.arange(1024 * 512) % 1000).astype("f4").sum()
    print(s.restored_from, s.step, s.filled, int(values(done)[0]))
"""


@pytest.mark.parametrize("where", ["device", "host"])
def test_constants_and_what_is_appended_survive_and_are_there_once(task: Task, sim_host: SimHost, where: str) -> None:
    task.start_keeper()
    assert task.start(["-c", SERVES, 4, where]).ended()[0] == -signal.SIGKILL
    assert used(sim_host) == (8 if where == "device" else 0)  # 2 of weights, 2 of cache, twice 2 of `done`
    standby = task.start(["-c", SERVES, 9, where], role="standby", color="b")
    standby.heard("session")
    standby.heard("ready")
    standby.tell("promote", incident="i", token=task.token)
    assert standby.heard("stepped")["seq"] == "5"
    assert standby.ended()[0] == -signal.SIGKILL
    assert spill(task) == (0, "seq=10\n", "")
    task.kill_keeper()
    task.start_keeper()
    assert task.start(["-c", SERVES, -1, where]).ended() == (0, "disk 19 {'cache': 21} 19\n", "")


@pytest.mark.parametrize(
    ("write", "wrong", "restored"),
    [
        ("w.copy_from(bytes(32))", "array w: is constant", False),
        ("w.zero()", "array w: is constant", True),
        ("h[0] = 1", "read-only", False),
        ("h[0] = 1", "read-only", True),
        ("s.gpu.zero(w.ptr, 32); s.gpu.synchronize()", "CUDA_ERROR_ILLEGAL_ADDRESS", False),
        ("s.gpu.zero(w.ptr, 32); s.gpu.synchronize()", "CUDA_ERROR_ILLEGAL_ADDRESS", True),
    ],
)
def test_nobody_writes_what_is_constant(task: Task, write: str, wrong: str, restored: bool) -> None:
    """Not by its methods, nor on the GPU behind their back, neither in the first process nor in the next."""
    task.start_keeper()
    declares = "w = s.array('w', 4, constant=True); h = s.array('h', 4, constant=True, where='host')"
    if restored:
        task.start(["-c", DECLARES, declares, "die"]).ended()
    program = task.start(["-c", DECLARES, f"{declares}; s.wait(); {write}"])
    program.heard("session")
    if "CUDA" in wrong:
        program.heard("fault")
        program.tell("fail", reason="its own")
    status, _, err = program.ended()
    assert status == 1
    assert wrong in err


MISTAKES = [
    ("s.array('u', 4, constant=True, append=True)", "array u: is one of kept=False, constant and append, not two"),
    ("s.array('u', 4, constant=True, kept=False)", "array u: is one of kept=False, constant and append, not two"),
    ("s.array('u', (), append=True)", "array u: a single item cannot be appended to: ()"),
    (
        "s.array('u', 4, append=True); s.commit(1, filled={'u': 5})",
        "array u: filled is no number of rows from 0 to 4: 5",
    ),
    (
        "s.array('u', 4, append=True); s.commit(1, filled={'u': -1})",
        "array u: filled is no number of rows from 0 to 4: -1",
    ),
    ("s.array('u', 4, append=True); s.commit(1, filled={'u': 1.0})", "from 0 to 4: 1.0"),
    ("s.array('u', 4); s.commit(1, filled={'u': 1})", "filled: names no array that is appended to: u"),
    ("s.array('u', 4, append=True); s.filled['v'] = 1; s.wait()", "filled: names no array that is appended to: v"),
    ("s.array('u', 4); s.commit(1, x=s)", "commit: a value cannot be kept: x: Session is neither a number"),
    (
        "s.array('u', 4); import numpy; s.commit(1, x=numpy.zeros(3))",
        "commit: a value cannot be kept: x: ndarray is no single number",
    ),
]


@pytest.mark.parametrize(("body", "wrong"), MISTAKES)
@pytest.mark.parametrize("alone", [False, True], ids=["cluster", "laptop"])
def test_mistakes_are_the_same_on_a_laptop_and_on_the_cluster(task: Task, body: str, wrong: str, alone: bool) -> None:
    argv = ["-c", DECLARES.replace('arrays="device"', ""), body]
    if alone:
        command = [sys.executable, *argv]
        environ = {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=LIMIT, check=False)
        status, err = done.returncode, done.stderr
    else:
        task.start_keeper()
        status, _, err = task.start(argv).ended()
    assert status == 1
    assert wrong in err


def test_a_value_that_is_not_finite_is_kept(task: Task) -> None:
    task.start_keeper()
    body = "s.array('u', 1); print(s.values)\n    s.commit(0, loss=float('nan'), most=[float('inf'), -float('inf')])"
    script = DECLARES.replace("exec(sys.argv[1])", body).replace("s.wait()\n    s.commit(1, why=sys.argv[1])", "")
    assert task.start(["-c", script, "x", "die"]).ended()[0] == -signal.SIGKILL
    assert "{'loss': nan, 'most': [inf, -inf]}" in task.start(["-c", script, "x"]).ended()[1]


CHECKED = """
import os, signal, sys, resilience
with resilience.session(arrays="device", name="checked", verify=True) as s:
    u, w, kv = s.array("u", 1000), s.array("w", 77, "uint8", constant=True), s.array("kv", (9, 5), "uint8", append=True)
    host = s.host("bytes")
    s.wait()
    kv.copy_from(bytes(range(45)))
    host.write(b"x")
    if s.step < 0:
        s.commit(0, filled={"kv": 3})
        if sys.argv[1] != "good":
            where, span, at = sys.argv[1].split()
            area = next(area for area in s._store._areas if f"{area.where}-{area.kind}" == where)
            area.spans[int(span)].zero(int(at), 1) if where != "device-constant" else s.gpu.open(area.work.address, area.work.size)
            area.spans[int(span)].write(int(at), bytearray(b"!"))
        os.kill(os.getpid(), signal.SIGKILL)
    print(s.restored_from, s.step)
"""


@pytest.mark.parametrize(
    ("changed", "heard"),
    [
        ("good", True),
        ("device-state 1 7999", False),
        ("device-state 0 5", True),  # not what is committed
        ("device-constant 0 76", False),
        ("device-append 0 14", False),
        ("device-append 0 15", True),  # behind the committed rows
        ("host-state 1 8", False),
    ],
)
def test_a_changed_byte_of_a_commit_is_found(task: Task, changed: str, heard: bool) -> None:
    task.start_keeper()
    assert task.start(["-c", CHECKED, changed]).ended()[0] == -signal.SIGKILL
    status, out, err = task.start(["-c", CHECKED, "good"]).ended()
    if heard:
        assert (status, out, err) == (0, "kept 0\n", "")
    else:
        assert (status, out) == (1, "")
        assert "kept state: its content is not that of its commit: commit 1" in err
