"""A standby cannot touch what the active program works on, whatever it writes, when, and by what means; nor is any of it seen later.

The program sets its arrays' first values without asking `s.fresh`, and a standby goes on writing while it waits: by host copy, kernel,
memset and a DLPack consumer. The results must be those of a run without a standby; the memory that stand-ins take is one granule.
"""

import json
import os
import signal
import subprocess
import sys

import pytest

from tests.conformance.session_kit import DECLARES
from tests.conformance.state_harness import ROOT, Program, Task, eventually
from tests.gpusim.host import SimHost

pytestmark = pytest.mark.sim

WRITES = """
import ctypes, os, struct, sys, threading
import resilience
from resilience.state import arrays
from resilience.state.driver import GpuFault

how, steps, gate, size = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
DRILL = {drill!r}

def writer(s, u):
    module = s.gpu.load(open(DRILL, "rb").read())
    fill = module.function("fill")
    def by_copy(value): u.copy_from(struct.pack("d", value) * u.size)
    def by_kernel(value):
        s.gpu.launch(fill, (u.size + 255) // 256, 256, [u.argument, ctypes.c_int(u.size), ctypes.c_double(value)])
        s.gpu.synchronize()
    def by_memset(value):
        s.gpu.driver("cuMemsetD8Async", u.ptr, int(value) & 255, u.nbytes, s.gpu.stream)
        s.gpu.synchronize()
    def by_dlpack(value):  # a consumer that writes through the pointer of the capsule, on a stream of its own
        capsule = u.__dlpack__()
        tensor = arrays._Tensor.from_address(ctypes.pythonapi.PyCapsule_GetPointer(id(capsule), arrays._NAME))
        host = (ctypes.c_double * u.size)(*[value] * u.size)
        s.gpu.driver("cuMemcpyHtoDAsync_v2", tensor.data, ctypes.addressof(host), u.nbytes, None)
        s.gpu.synchronize()
    return dict(copy=by_copy, kernel=by_kernel, memset=by_memset, dlpack=by_dlpack)[how]

with resilience.session(arrays="device") as s:
    u, total = s.array("u", size), s.array("total", 1)
    standby = s.role == "standby"
    write = writer(s, u)
    write(7.0)                     # without `if s.fresh`: what a user forgets
    if standby:
        first = u.tobytes()
        stop = threading.Event()
        def pester():
            s.gpu.use()
            while not stop.is_set():
                write(13.0)
        thread = threading.Thread(target=pester)
        thread.start()
        open(gate + "writing", "w").close()
        while not os.path.exists(gate + "quiet"): stop.wait(0.001)
        stop.set()
        thread.join()
    for step in s.steps(steps):
        u.copy_from(struct.pack("d", float(step)) * u.size)
        total.copy_from(struct.pack("d", struct.unpack("d", total.tobytes())[0] + sum(struct.unpack(f"{{u.size}}d", u.tobytes()))))
        s.commit(step)
        if not standby or s.role != "active": print(step, flush=True)
        while step == 9 and not standby and not os.path.exists(gate + "go"):
            s.gpu.synchronize()
            assert set(struct.unpack(f"{{u.size}}d", u.tobytes())) == {{9.0}}, "somebody writes into it"
    print("sum", struct.unpack("d", total.tobytes())[0], set(struct.unpack(f"{{u.size}}d", u.tobytes())), flush=True)
""".format(drill=str(ROOT / "resilience/drill/faults.ptx"))

STEPS, SIZE = 30, 1000
EXPECTED = f"sum {float(sum(range(STEPS)) * SIZE)} {{{float(STEPS - 1)}}}"
HOW = ["copy", "kernel", "memset", "dlpack"]


class ActiveAndStandby:
    """An active program that stands still after step 9, and a standby that writes all the time."""

    def __init__(self, task: Task, how: str) -> None:
        self.task = task
        task.start_keeper()
        self.argv = ["-c", WRITES, how, STEPS, f"{task.directory}/", SIZE]
        self.active = task.start(self.argv)
        self.active.heard("session")
        self.standby = task.start(self.argv, role="standby", color="b")
        self.standby.heard("session")
        eventually("the standby's writes", lambda: (task.directory / "writing").exists() or self._ended(self.standby))

    @staticmethod
    def _ended(program: Program) -> bool:
        if program.process.poll() is not None:
            raise AssertionError(program.ended())
        return False

    def touch(self, *names: str) -> None:
        for name in names:
            (self.task.directory / name).touch()

    def step(self, number: int) -> None:
        assert self.active.process.stdout is not None
        for line in self.active.process.stdout:
            if line == f"{number}\n":
                return
        raise AssertionError(self.active.ended())


@pytest.mark.parametrize("how", HOW)
def test_writes_before_during_and_after_commits_reach_nobody(task: Task, how: str) -> None:
    pair = ActiveAndStandby(task, how)
    pair.step(9)
    pair.touch("go")
    pair.active.heard("done")
    status, out, err = pair.active.ended()
    assert (status, err) == (0, "")
    assert out.endswith(f"{EXPECTED}\n"), out
    pair.standby.tell("retire")
    pair.touch("quiet")
    assert pair.standby.ended()[0] == 0


@pytest.mark.parametrize("how", HOW)
def test_what_a_standby_wrote_is_dropped_at_its_promotion(task: Task, how: str) -> None:
    pair = ActiveAndStandby(task, how)
    pair.step(9)
    pair.touch("quiet")
    pair.standby.heard("ready")
    task.fault()
    pair.active.heard("fault")
    pair.standby.tell("promote", incident="i", token=task.token)
    assert pair.standby.heard("stepped")["seq"] == "10"
    pair.active.tell("retire")
    pair.standby.heard("done")
    status, out, err = pair.standby.ended()
    assert (status, err) == (0, "")
    assert out == f"{EXPECTED}\n"


@pytest.mark.parametrize("how", ["copy", "kernel"])
def test_a_fault_of_the_standbys_server_while_it_writes_is_its_own(task: Task, how: str) -> None:
    pair = ActiveAndStandby(task, how)
    pair.step(9)
    task.fault("illegal-address", "b")
    pair.touch("quiet")
    assert pair.standby.heard("fault")["cuda"] in ("700", "719")
    pair.standby.tell("retire")
    pair.touch("go")
    pair.active.heard("done")
    assert pair.active.ended()[1].endswith(f"{EXPECTED}\n")


TAKES_OVER = """
import os, signal, sys
point, script = sys.argv.pop(1), sys.argv.pop(1)
from resilience.state import stores
from resilience.state.driver import CudaGpu
from resilience.state.link import KeeperLink

def now(): os.kill(os.getpid(), signal.SIGKILL)
def before(owner, name, at):
    do = getattr(owner, name)
    def done(*values, **named):
        if point == f"before-{at}" and armed: now()
        result = do(*values, **named)
        if point == f"after-{at}" and armed: now()
        return result
    setattr(owner, name, done)
armed = []
take = KeeperLink.take
def taking(*values, **named):
    if point == "before-take": now()
    held = take(*values, **named)
    if point == "after-take": now()
    armed.append(True)
    return held
KeeperLink.take = taking
before(CudaGpu, "clear", "unmap"); before(CudaGpu, "place", "map"); before(CudaGpu, "open", "access")
before(stores.KeptStore, "load", "load")
exec(compile(script, "script", "exec"), {"__name__": "__main__"})
"""

POINTS = [f"{side}-{at}" for at in ("take", "unmap", "map", "access", "load") for side in ("before", "after")]


@pytest.mark.parametrize("point", POINTS)
def test_a_standby_that_is_killed_while_it_takes_over_costs_nothing(task: Task, point: str) -> None:
    """The keeper has it all; whoever comes next goes on from the same commit."""
    task.start_keeper()
    argv = [WRITES, "copy", STEPS, f"{task.directory}/", SIZE]
    active = task.start(["-c", *argv])
    active.heard("session")
    standby = task.start(["-c", TAKES_OVER, point, *argv], role="standby", color="b")
    standby.heard("session")
    (task.directory / "quiet").touch()
    standby.heard("ready")
    assert active.process.stdout is not None
    assert any(line == "9\n" for line in active.process.stdout)
    active.kill()
    standby.tell("promote", incident="i", token=task.token)
    assert standby.ended()[0] == -signal.SIGKILL
    (task.directory / "go").touch()
    again = task.start(["-c", *argv], color="b")
    again.heard("session")
    assert again.heard("stepped")["seq"] == "10"
    again.heard("done")
    status, out, err = again.ended()
    assert (status, err) == (0, "")
    assert out.endswith(f"{EXPECTED}\n"), out


GRAPHS = """
import ctypes, struct, sys
import resilience
with resilience.session(arrays="device") as s:
    u, v = s.array("u", 300_000), s.array("v", 8)     # u takes more than one granule
    call = s.gpu.driver._library
    fill = s.gpu.load(open({drill!r}, "rb").read()).function("fill")
    def launch(): s.gpu.launch(fill, 1, 64, [ctypes.c_uint64(u.ptr + 8 * 299_900), ctypes.c_int(64), ctypes.c_double(3.0)])
    graph, ready = ctypes.c_void_p(), ctypes.c_void_p()
    if s.role == "standby":                           # rehearsed: a kernel, and a graph that is captured
        launch()
        s.gpu.synchronize()
        stream = ctypes.c_void_p(s.gpu.stream)
        assert call.cuStreamBeginCapture_v2(stream, 2) == 0
        launch()
        assert call.cuStreamEndCapture(stream, ctypes.byref(graph)) == 0
        assert call.cuGraphInstantiateWithFlags(ctypes.byref(ready), graph, ctypes.c_ulonglong(0)) == 0
        assert call.cuGraphLaunch(ready, stream) == 0
        launch()                                      # and one that nobody has waited for
    for step in s.steps(3):
        if step == 1 and ready:
            assert u.tobytes() == bytes(u.nbytes), "the rehearsal is seen"
            assert call.cuGraphLaunch(ready, stream) == 0
            s.gpu.synchronize()
            values = struct.unpack("300000d", u.tobytes())
            assert set(values[299_900:299_964]) == {{3.0}} and set(values[:299_900]) == {{0.0}}
            print("replayed", flush=True)
        s.commit(step)
        if step == 0:
            print("committed", flush=True)
            sys.stdin.read()
""".format(drill=str(ROOT / "resilience/drill/faults.ptx"))


def used(sim: SimHost) -> int:
    code = (
        "from ctypes import *; from resilience.state.driver import CudaGpu; g = CudaGpu(); f, t = c_size_t(), c_size_t()\n"
        "c = CDLL('libcuda.so.1'); c.cuMemGetInfo_v2(byref(f), byref(t)); print((t.value - f.value) >> 20)"
    )
    environ = sim.env(PYTHONPATH=str(ROOT))
    return int(subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, check=True).stdout)


def test_a_standby_rehearses_on_one_granule_and_replays_on_the_memory_itself(task: Task, sim_host: SimHost) -> None:
    task.start_keeper()
    environ = {"MPSR_SPILL": ""}
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb"):
        saved = os.dup(0)
        os.dup2(reader, 0)
        try:
            active = task.start(["-c", GRAPHS], **environ)
        finally:
            os.dup2(saved, 0)
            os.close(saved)
    active.heard("session")
    assert active.process.stdout is not None
    assert active.process.stdout.readline() == "committed\n"
    before = used(sim_host)
    standby = task.start(["-c", GRAPHS], role="standby", color="b", **environ)
    standby.heard("session")
    standby.heard("ready")
    assert used(sim_host) - before == 2, "MiB for stand-ins: two arrays, four granules"
    active.kill()
    os.close(writer)
    standby.tell("promote", incident="i", token=task.token)
    standby.heard("stepped")
    standby.heard("done")
    status, out, err = standby.ended()
    assert (status, out, err) == (0, "replayed\n", "")


@pytest.mark.parametrize(
    ("opens", "declares", "wrong"),
    [
        ("session(", "s.array('w', 9)", "has other arrays than this standby: w float64[9]"),
        ("session(name='other', ", "s.array('u', 4)", "is another program's by now"),
    ],
)
def test_a_standby_takes_nothing_but_what_it_stands_by_for(task: Task, opens: str, declares: str, wrong: str) -> None:
    """The state was lost, and something else is kept there by the time of the promotion."""
    task.start_keeper()
    first = task.start(["-c", DECLARES, "s.array('u', 4)", "die"])
    first.ended()
    standby = task.start(["-c", DECLARES, "s.array('u', 4)"], role="standby", color="b")
    standby.heard("session")
    standby.heard("ready")
    task.kill_keeper()
    task.start_keeper()
    other = task.start(["-c", DECLARES.replace("session(", opens), declares, "die"])
    other.ended()
    standby.tell("promote", incident="i", token=task.token)
    status, _, err = standby.ended()
    assert status == 1
    assert f"kept state: {wrong}" in err


CALLS = """
import json
from resilience.state import layout
from resilience.state.driver import Driver, CudaGpu
from resilience.state.stores import KeptStore
gpu, rows, calls = CudaGpu(), [], 0
result = Driver.result
def counted(self, *call):
    global calls
    calls += 1
    return result(self, *call)
Driver.result = counted
for mib in (2, 8192):
    size = mib << 20
    fds = [gpu.create(size)[1] for _ in range(2)]
    calls = 0
    spans = (layout.Span(address=0, parts=(size,)),) * 2
    area = layout.Area(where="device", kind="state", used=size, spans=spans)
    array = layout.Placed(spec=layout.spec("u", size, "uint8"), area=0, at=0)
    state = layout.Layout(areas=(area,), arrays=(array,))
    store = KeptStore(gpu, cupy=False)
    store.stand_in(state)
    before, calls = calls, 0
    store.give_way(state, fds)
    rows.append((before, calls))
    work, kept = (span.address for span in store._areas[0].spans)
    gpu.zero(work + size - 8, 8)
    gpu.copy(kept + size - 8, work + size - 8, 8)
    gpu.synchronize()
print(json.dumps(rows))
"""


def test_a_promotion_takes_as_many_calls_for_8_gib_as_for_2_mib() -> None:
    with SimHost(memory=2 * 8192 + 64) as sim:
        environ = sim.env(PYTHONPATH=str(ROOT))
        out = subprocess.run(
            [sys.executable, "-c", CALLS], env=environ, capture_output=True, text=True, check=True
        ).stdout
    (few, small), (many, large) = json.loads(out)
    assert small == large
    assert many - few == 4095, "a granule each, before anybody is in a hurry"
