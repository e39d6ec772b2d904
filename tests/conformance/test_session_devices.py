"""Arrays on several GPUs of one task: each is kept on its own, and all of them are one state."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.session_kit import DECLARES
from tests.conformance.state_harness import Task, spilled
from tests.conformance.test_session_spill import spill
from tests.gpusim.host import SimHost

pytestmark = pytest.mark.sim

SPREAD = """
import ctypes, os, signal, sys
import numpy as np
import resilience

died_at, own = int(sys.argv[1]), int(sys.argv[2])
def on(array):
    context, device = ctypes.c_void_p(), ctypes.c_int()
    cuda = ctypes.CDLL("libcuda.so.1")
    cuda.cuCtxGetCurrent(ctypes.byref(context))
    cuda.cuCtxGetDevice(ctypes.byref(device))
    assert device.value == own, "the program's own context stays current"
    return array.__dlpack_device__()[1]

with resilience.session(arrays="device", device=own, verify=True) as s:
    u = s.array("u", (300, 7), "float32")
    v = s.array("v", 5000, "float64", device=1)
    w = s.array("w", 9, "int64", device=2, append=True)
    scratch = s.array("scratch", 3, device=1, kept=False)
    assert [on(array) for array in (u, v, w, scratch)] == [own, 1, 2, 1]
    if s.role == "standby":
        v.copy_from(np.full(5000, 13.0))                # reaches nobody
    s.wait()
    rows = s.filled["w"]
    for step in s.steps(9):
        u.copy_from(u.numpy() + np.float32(step))
        v.copy_from(v.numpy() + step / 4)
        log = w.numpy(); log[rows] = step * step; rows += 1
        w.copy_from(log)
        s.commit(step, filled={"w": rows})
        if step == died_at:
            v.copy_from(np.full(5000, -1.0))            # of a step that never ends
            os.kill(os.getpid(), signal.SIGKILL)
    print(s.restored_from, float(u.numpy().sum()), float(v.numpy().sum()), w.numpy().tolist())
"""
WHOLE = f" {36.0 * 2100} {9.0 * 5000} [0, 1, 4, 9, 16, 25, 36, 49, 64]\n"


@pytest.fixture
def task(tmp_path: Path) -> Iterator[Task]:
    """Its servers are over three GPUs."""
    with SimHost(gpus=3, memory=256) as sim:
        made = Task(sim, tmp_path)
        try:
            yield made
        finally:
            made.close()


@pytest.mark.parametrize("own", [0, 2])
def test_a_new_process_goes_on_on_all_of_them(task: Task, own: int) -> None:
    task.start_keeper()
    assert task.start(["-c", SPREAD, 5, own]).ended()[0] == -signal.SIGKILL
    assert task.start(["-c", SPREAD, -1, own]).ended() == (0, f"kept{WHOLE}", "")


def test_a_standby_takes_them_over_where_they_are(task: Task) -> None:
    task.start_keeper()
    active = task.start(["-c", SPREAD, 5, 0])
    active.heard("session")
    standby = task.start(["-c", SPREAD, -1, 0], role="standby", color="b")
    standby.heard("session")
    standby.heard("ready")
    assert active.ended()[0] == -signal.SIGKILL
    standby.tell("promote", incident="i", token=task.token)
    assert standby.heard("stepped")["seq"] == "6"
    assert standby.ended()[:2] == (0, f"standby{WHOLE}")


@pytest.mark.parametrize("own", [0, 1])
def test_the_spiller_reads_each_from_its_own_gpu(task: Task, own: int) -> None:
    task.start_keeper()
    assert task.start(["-c", SPREAD, 5, own]).ended()[0] == -signal.SIGKILL
    assert spill(task) == (0, "seq=6\n", "")
    assert spilled(task).exists()
    task.kill_keeper()
    task.start_keeper()
    assert task.start(["-c", SPREAD, -1, own]).ended() == (0, f"disk{WHOLE}", "")


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ("s.array('u', 4, device=3)", "device 3: is no GPU that this process sees: 3 of them"),
        ("s.array('u', 4, device=-1)", "device: is not a whole number from 0 on: -1"),
        ("s.array('u', 4, device=True)", "device: is not a whole number from 0 on: True"),
        ("s.array('u', 4, device=1, where='host')", "array u: is on a device or on the host, not both: 'host'"),
        ("s.array('u', 4, where='device:99')", "array u: is neither on the device nor on the host: 'device:99'"),
    ],
)
def test_a_device_that_cannot_be_had_is_named(task: Task, body: str, wrong: str) -> None:
    task.start_keeper()
    status, _, err = task.start(["-c", DECLARES, body]).ended()
    assert status == 1
    assert wrong in err


def test_an_array_does_not_move_to_another_gpu(task: Task) -> None:
    task.start_keeper()
    task.start(["-c", DECLARES, "s.array('u', 4, device=1)", "die"]).ended()
    status, _, err = task.start(["-c", DECLARES, "s.array('u', 4)"]).ended()
    assert status == 1
    assert "declared u float64[4], there: u float64[4] on GPU 1" in err


RANKS = """
import os, subprocess, sys
rank = '''
import os, signal, sys
import numpy as np
import resilience
died_at, rank = int(os.environ["DIED_AT"]), int(os.environ.get("LOCAL_RANK", "0"))
with resilience.session(arrays="device", device=rank, spill_seconds=0) as s:
    u = s.array("u", 300, "float64")
    assert u.__dlpack_device__()[1] == rank
    for step in s.steps(9):
        u.copy_from(u.numpy() + (rank + 1) * step)
        s.commit(step, rank=rank)
        if step == died_at + rank:
            os.kill(os.getpid(), signal.SIGKILL)
    print(rank, s.restored_from, float(u.numpy()[0]), s.values, flush=True)
'''
numbered = sys.argv[1] == "numbered"
started = []
for local in range(2):
    environ = os.environ | ({"LOCAL_RANK": str(local)} if numbered else {})
    started.append(subprocess.Popen([sys.executable, "-c", rank], env=environ, stdout=subprocess.PIPE, text=True))
ended = [one.communicate()[0] for one in started]
print("".join(ended), end="")
sys.exit(any(one.returncode for one in started))
"""
"""torchrun: processes of one command, with the supervisor's variables and without its socket."""


def told(err: str) -> list[str]:
    return sorted(line.removeprefix("mpsr: session: ") for line in err.splitlines())


def test_sessions_of_local_ranks_keep_apart(task: Task) -> None:
    task.start_keeper()
    status, out, err = task.start(["-c", RANKS, "numbered"], DIED_AT="4").ended()
    assert (status, out) == (1, "")
    assert told(err) == [
        f"local rank {rank} of a launcher: its state is kept on disk, not on the GPU" for rank in (0, 1)
    ]
    assert len(list(task.spill.glob("*.state"))) == 2
    status, out, _ = task.start(["-c", RANKS, "numbered"], DIED_AT="-9").ended()
    assert (status, out) == (0, "0 disk 36.0 {'rank': 0}\n1 disk 72.0 {'rank': 1}\n")


def test_a_launchers_process_without_a_rank_keeps_nothing(task: Task) -> None:
    """Nothing would tell one's state from the other's."""
    task.start_keeper()
    status, out, err = task.start(["-c", RANKS, "bare"], DIED_AT="-9").ended()
    assert (status, out) == (0, 2 * "0  36.0 {'rank': 0}\n")
    assert told(err) == ["a launcher's process without a local rank: its state is not kept"] * 2
    assert not list(task.spill.glob("*.state"))
