"""State in host memory: numpy arrays and bytes, kept as device memory is, and with it or without any GPU."""

import signal
import subprocess
import sys

import pytest

from tests.conformance.session_kit import DECLARES
from tests.conformance.state_harness import LIMIT, ROOT, Task
from tests.conformance.test_session_spill import spill

pytestmark = pytest.mark.sim

COUNTS = """
import os, pickle, random, signal, sys
import numpy as np
import resilience

died_at, kind = int(sys.argv[1]), sys.argv[2]
point = sys.argv[3] if len(sys.argv) > 3 else ""
from resilience.state.areas import MappedArea
from resilience.state.record import CommitRecord
write, save, now = CommitRecord.write, MappedArea.save, lambda: os.kill(os.getpid(), signal.SIGKILL)
current = None
def writing(self, commit):
    global current
    current = commit
    if commit.step == died_at and point == f"before-{commit.phase}": now()
    write(self, commit)
    if commit.step == died_at and point == f"after-{commit.phase}": now()
def saving(self):
    if current and current.step == died_at and point == "between" and self.where == "host":
        self.spans[1].copy(self.work, self.used // 2)
        now()
    save(self)
CommitRecord.write, MappedArea.save = writing, saving

with resilience.session(arrays=kind, name="counts") as s:
    u = s.array("u", (700, 300), "float32", where="host")
    flags, empty, one = (s.array(n, d, t, where="host") for n, d, t in (("f", 9, bool), ("e", (0, 3), int), ("o", (), int)))
    v = s.array("v", 5000, "float64")
    blob = s.host("random", nbytes=1 << 20)
    own = s.array("own", 3, where="host", kept=False)
    if s.fresh:
        random.seed(5)
        assert bytes(blob) == b"" and not u.any()
    if s.role == "standby":
        u[:], flags[:] = 13, True                       # reaches nobody
        blob.write(b"a standby")
    s.wait()
    if len(blob):
        random.setstate(pickle.loads(blob.read()))
    view = u[3]                                         # whatever points into it stays good
    for step in s.steps(12):
        number = random.random()
        u += np.float32(number); one += step; flags[step % 9] ^= True
        if isinstance(v, np.ndarray): v += number
        else: v.copy_from(np.frombuffer(v.tobytes(), "f8") + number)
        blob.write(pickle.dumps(random.getstate()) + bytes(step))
        s.commit(step, number=number)
        if step == died_at and not point: now()
    assert view.base is not None and (view == u[3]).all()
    values = v if isinstance(v, np.ndarray) else np.frombuffer(v.tobytes(), "f8")
    print(s.restored_from, float(u.sum()), int(one), flags.tolist(), float(values.sum()), len(blob), s.values)
"""


def whole(kind: str) -> str:
    """What an undisturbed run prints, without a supervisor or a GPU."""
    command = [sys.executable, "-c", COUNTS, "-1", "numpy"]
    done = subprocess.run(
        command, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize(
    ("kind", "point"),
    [("numpy", ""), *[("device", point) for point in ("before-0", "after-0", "between", "before-1", "after-1")]],
)
def test_arrays_and_bytes_on_the_host_are_kept(task: Task, kind: str, point: str) -> None:
    task.start_keeper()
    argv = ["-c", COUNTS, 5, kind, *([point] if point else [])]
    assert task.start(argv).ended()[0] == -signal.SIGKILL
    assert task.start(["-c", COUNTS, -1, kind]).ended() == (0, f"kept{whole(kind)}", "")


@pytest.mark.parametrize("kind", ["device", "numpy"])
def test_a_standby_does_not_reach_them_and_takes_them_over_where_they_are(task: Task, kind: str) -> None:
    task.start_keeper()
    active = task.start(["-c", COUNTS, 7, kind])
    active.heard("session")
    standby = task.start(["-c", COUNTS, -1, kind], role="standby", color="b")
    standby.heard("session")
    standby.heard("ready")
    assert active.ended()[0] == -signal.SIGKILL
    standby.tell("promote", incident="i", token=task.token)
    assert standby.heard("stepped")["seq"] == "8"
    assert standby.ended()[:2] == (0, f"standby{whole(kind)}")


@pytest.mark.parametrize(("kind", "point"), [("device", ""), ("numpy", "between")])
def test_the_spiller_writes_them_too(task: Task, kind: str, point: str) -> None:
    task.start_keeper()
    assert task.start(["-c", COUNTS, 5, kind, *([point] if point else [])]).ended()[0] == -signal.SIGKILL
    assert spill(task) == (0, "seq=6\n", "")
    task.kill_keeper()
    task.start_keeper()
    assert task.start(["-c", COUNTS, -1, kind]).ended() == (0, f"disk{whole(kind)}", "")


STANDS_BY = """
import sys
from resilience.state import layout
from resilience.state.host_memory import HostMemory
memory = HostMemory()
def resident():
    with open("/proc/self/status") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith(("RssShmem", "RssAnon"))) >> 10
before = resident()
import ctypes
size = 1 << 32
span = memory.stand_in(layout.Span(address=0, parts=(size,)), used=True)
for at in range(0, size, 1 << 23):
    ctypes.memset(span.address + at, 7, 1 << 12)
ctypes.memset(span.address, 7, 1 << 21)
print(resident() - before < 32, open("/proc/self/maps").read().count("mpsr-host"))
"""


def test_stand_ins_on_the_host_take_one_granule() -> None:
    command = [sys.executable, "-c", STANDS_BY]
    done = subprocess.run(
        command, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert (done.stdout, done.stderr) == ("True 2048\n", "")


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ("s.array('u', 4, where='hosts')", "array u: is neither on the device nor on the host: 'hosts'"),
        ("s.host('b', 9).write(bytes(10))", "bytes b: longer than 9: 10"),
        ("s.host('b', 0)", "bytes b: nbytes is not a whole number above 0: 0"),
        ("s.host('b'); s.array('b', 3)", "array b: declared twice"),
        ("s.host('')", "array: a name is 1 to 64 printable characters"),
    ],
)
def test_mistakes_with_host_memory_are_named(task: Task, body: str, wrong: str) -> None:
    task.start_keeper()
    status, _, err = task.start(["-c", DECLARES, body]).ended()
    assert status == 1
    assert wrong in err


def test_what_was_on_the_host_is_not_taken_for_what_is_on_the_gpu(task: Task) -> None:
    task.start_keeper()
    task.start(["-c", DECLARES, "s.array('u', 4, where='host')", "die"]).ended()
    status, _, err = task.start(["-c", DECLARES, "s.array('u', 4)"]).ended()
    assert status == 1
    assert "declared u float64[4], there: u float64[4] on the host" in err
