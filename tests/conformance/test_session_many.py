"""A model's worth of arrays: hundreds of them, of every type and shape, small ones beside large ones.

They share memory and come back, each with its own bytes, in the next process, in a standby, and from disk.
"""

import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.conformance.state_harness import LIMIT, ROOT, Task
from tests.conformance.test_standby_apart import used
from tests.gpusim.host import SimHost

pytestmark = pytest.mark.sim

MODEL = """
import os, random, signal, sys
import resilience
from resilience.state import dtypes

died_at, tensors = int(sys.argv[1]), int(sys.argv[2])
chance = random.Random(7)
shapes = [(), 0, 1, (3, 0, 5), (768,), (2, 3, 4), (300, 1024), (1 << 20) + 13]
rows = [
    (f"transformer.h.{n}.mlp.c_proj.weight.exp_avg_sq", shapes[n] if n < len(shapes) else chance.choice(shapes[:6]),
     chance.choice(list(dtypes.TYPES)))
    for n in range(tensors)
]
def content(array, step):
    return random.Random(f"{array.name} {step}").randbytes(array.nbytes)
with resilience.session(arrays="device", name="model", spill_seconds=1e9 if died_at < 0 else 0) as s:
    model = [s.array(*row) for row in rows]
    assert len({array.ptr for array in model if array.nbytes}) == sum(array.nbytes > 0 for array in model)
    assert all(array.ptr % 512 == 0 for array in model)
    if s.fresh:
        assert not any(any(array.tobytes()) for array in model), "new arrays are of zeros"
    s.wait()
    if s.step >= 0:
        assert all(array.tobytes() == content(array, s.step) for array in model), "another state"
    for step in s.steps(4):
        for array in model:
            array.copy_from(content(array, step))
        s.commit(step)
        if step == died_at:
            s._spills.finish()
            os.kill(os.getpid(), signal.SIGKILL)
    print(s.restored_from, s.step, len(model))
"""


def test_a_model_of_576_tensors_is_kept_taken_over_and_spilled(task: Task) -> None:
    task.start_keeper()
    assert task.start(["-c", MODEL, 0, 576]).ended()[0] == -signal.SIGKILL
    standby = task.start(["-c", MODEL, 1, 576], role="standby", color="b")
    standby.heard("session")
    standby.heard("ready")
    standby.tell("promote", incident="i", token=task.token)
    assert standby.heard("stepped")["seq"] == "1"
    assert standby.ended()[0] == -signal.SIGKILL
    assert task.start(["-c", MODEL, 2, 576]).ended()[0] == -signal.SIGKILL
    task.kill_keeper()
    task.start_keeper()
    status, out, err = task.start(["-c", MODEL, -1, 576]).ended()
    assert (status, out, err) == (0, "disk 3 576\n", "")


def test_a_layout_that_differs_names_the_array(task: Task) -> None:
    task.start_keeper()
    task.start(["-c", MODEL, 0, 9]).ended()
    status, _, err = task.start(["-c", MODEL, 0, 8]).ended()
    assert status == 1
    assert "array transformer.h.8.mlp.c_proj.weight.exp_avg_sq: is in the state to go on from" in err


SMALL = """
import os, resilience, signal
with resilience.session(arrays="device") as s:
    arrays = [s.array(f"a{n}", 1024, "float32") for n in range(120)]
    s.wait()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_small_arrays_share_pages(task: Task, sim_host: SimHost) -> None:
    """120 of 4 KiB: 2 MiB to work on, and as much for the last commit."""
    task.start_keeper()
    assert task.start(["-c", SMALL]).ended()[0] == -signal.SIGKILL
    assert used(sim_host) == 4


GROWS = """
import resilience
from resilience.state.driver import CudaGpu
CudaGpu.zero = CudaGpu.copy = lambda *_: None  # 15 GiB of the machine that runs this
with resilience.session(arrays="device") as s:
    for n in range(3000):
        s.array(f"a{n}", 5 << 20, "uint8")
    s.wait()
    store = s._store
    print(len(store.fds), sum(store.layout.sizes) / (2 * 3000 * (5 << 20)))
"""


def test_the_descriptors_of_a_large_state_are_few(tmp_path: Path) -> None:
    """3000 tensors of 5 MiB, 15 GiB: one message has room for all descriptors, and little memory is mapped ahead."""
    with SimHost(memory=40 << 10) as sim, closing(Task(sim, tmp_path)) as task:
        task.start_keeper()
        status, out, err = task.start(["-c", GROWS]).ended()
        assert status == 0, err
        descriptors, more = out.split()
        assert int(descriptors) < 128
        assert float(more) < 1.07


TYPED = """
import ctypes
import resilience
from resilience.state import arrays, dtypes
with resilience.session(arrays="device") as s:
    for name, kind in dtypes.TYPES.items():
        array = s.array(name, (2, 3), name)
        tensor = arrays._Tensor.from_address(ctypes.pythonapi.PyCapsule_GetPointer(id(held := array.__dlpack__()), arrays._NAME))
        assert (tensor.code, tensor.bits, tensor.data) == (kind.dlpack, 8 * kind.nbytes, array.ptr), name
        assert hasattr(array, "__cuda_array_interface__") == bool(kind.kind), name
        assert array.numpy().nbytes == array.nbytes == 6 * kind.nbytes
    empty, single = s.array("empty", (0, 4), "float32"), s.array("single", (), float)
    assert (empty.__cuda_array_interface__["data"][0], empty.numpy().shape, empty.tobytes()) == (0, (0, 4), b"")
    empty.copy_from(b""); empty.zero()
    single.copy_from(bytes(range(8)))
    assert single.numpy().tobytes() == bytes(range(8)) and single.numpy().shape == ()
    empty.__dlpack__(), single.__dlpack__()
    s.commit(1)
    print("good")
"""


@pytest.mark.parametrize("supervised", [True, False], ids=["supervised", "alone"])
def test_every_type_goes_to_its_consumers_by_its_own_name(task: Task, sim_host: SimHost, supervised: bool) -> None:
    if supervised:
        task.start_keeper()
        assert task.start(["-c", TYPED]).ended() == (0, "good\n", "")
        return
    environ = sim_host.env(PYTHONPATH=str(ROOT))
    command = [sys.executable, "-c", TYPED]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert (done.stdout, done.returncode) == ("good\n", 0), done.stderr
