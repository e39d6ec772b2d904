"""A session's device memory: what its arrays offer to others, and who holds it for how long."""

import subprocess
import sys

import pytest

from tests.conformance.session_kit import DECLARES
from tests.conformance.state_harness import LIMIT, ROOT, Task
from tests.gpusim.host import SimHost

pytestmark = pytest.mark.sim


def test_memory_is_gone_with_its_last_holder(task: Task, sim_host: SimHost) -> None:
    task.start_keeper()
    task.start(["-c", DECLARES, "s.array('u', 4)", "die"]).ended()
    code = (
        "from ctypes import *; from resilience.state.driver import CudaGpu; g = CudaGpu(); f, t = c_size_t(), c_size_t()\n"
        "c = CDLL('libcuda.so.1'); c.cuMemGetInfo_v2(byref(f), byref(t)); print((t.value - f.value) >> 20)"
    )

    def used() -> int:
        environ = sim_host.env(PYTHONPATH=str(ROOT))
        return int(subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, check=True).stdout)

    assert used() == 4
    task.kill_keeper()
    assert used() == 0


INTERFACES = """
import ctypes, gc, sys
import resilience
from resilience.state import arrays
with resilience.session(arrays="device") as s:
    u = s.array("u", (2, 3), "float32")
    face = u.__cuda_array_interface__
    assert face["shape"] == (2, 3) and face["typestr"] == "<f4" and face["data"] == (u.ptr, False), face
    assert face["version"] == 3 and face["strides"] is None and face["stream"] == s.stream
    flags = s.array("f", 5, "bool")
    assert flags.__cuda_array_interface__["typestr"] == "|b1"
    u.copy_from(bytes(range(24)))
    assert u.tobytes() == bytes(range(24))
    assert u.numpy().shape == (2, 3)
    assert u.__dlpack_device__() == (2, 0)
    capsule = u.__dlpack__()
    pointer = ctypes.pythonapi.PyCapsule_GetPointer(id(capsule), arrays._NAME)
    tensor = arrays._Tensor.from_address(pointer)
    assert (tensor.data, tensor.ndim, tensor.code, tensor.bits, tensor.lanes) == (u.ptr, 2, 2, 32, 1)
    assert tensor.shape[:2] == [2, 3] and tensor.byte_offset == 0 and tensor.strides is None
    del capsule
    assert not arrays._handed_out
    taken = u.__dlpack__()
    pointer = ctypes.pythonapi.PyCapsule_GetPointer(id(taken), arrays._NAME)
    name = ctypes.c_char_p(b"used_dltensor")
    ctypes.pythonapi.PyCapsule_SetName.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    ctypes.pythonapi.PyCapsule_SetName(id(taken), name)
    del taken
    assert list(arrays._handed_out) == [pointer]
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(arrays._Tensor.from_address(pointer).deleter)(pointer)
    assert not arrays._handed_out
    try:
        iter(u)
    except TypeError as error:
        assert ".numpy()" in str(error)
    print("good")
"""


def test_arrays_offer_the_array_interface_and_dlpack(sim_host: SimHost) -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERFACES],
        env=sim_host.env(PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert (done.stdout, done.returncode) == ("good\n", 0), done.stderr


def test_a_forked_child_leaves_the_session_alone(task: Task) -> None:
    task.start_keeper()
    body = "s.array('u', 4); s.wait()\n    import os\n    if os.fork() == 0: sys.exit(0)\n    os.wait()"
    program = task.start(["-c", DECLARES.replace("exec(sys.argv[1])", body), "x"])
    program.heard("session")
    program.heard("done")
    assert program.ended()[0] == 0
    assert not program.supervisor.recv(99)
