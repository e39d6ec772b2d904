"""Programs that tests of the session run: the solver with gates, one that dies in a commit, one that does as told."""

from tests.conformance.state_harness import HEAT, Program, Task, eventually, undisturbed

HEAT_SIZE = (20, 24, 400, 10)

GATED = """
import os, sys, time
sys.argv = sys.argv[1:]
gate, at, script = sys.argv.pop(0), sys.argv.pop(0).split(","), sys.argv[0]
from resilience.state.session import Session

commit = Session.commit
def gated(self, step, **values):
    commit(self, step, **values)
    if str(step) in at:
        open(f"{gate}{step}.reached", "w").close()
    while str(step) in at and not os.path.exists(f"{gate}{step}"):
        self.gpu.synchronize()
        time.sleep(0.001)
Session.commit = gated
exec(compile(open(script).read(), script, "exec"), {"__name__": "__main__", "__file__": script})
"""
"""Runs a script that stands still, using the GPU, after the commits of given steps until a file is there."""


class Solver:
    """heat2d with its files. After the commits of the steps `gates` it stands still until the gate is opened."""

    def __init__(self, task: Task, *extra: object, gates: tuple[int, ...] = ()) -> None:
        self.task = task
        self.gates = ",".join(map(str, gates))
        self.log = task.directory / "heat.log"
        self.out = task.directory / "heat.out"
        self.argv = [HEAT, *HEAT_SIZE, "--log", self.log, "--out", self.out, *extra]
        self.reference = undisturbed(task.directory, *HEAT_SIZE)

    def start(self, role: str = "active", color: str = "a", **more: str) -> Program:
        gate = ["-c", GATED, self.task.directory / "gate", self.gates]
        return self.task.start([*gate, *self.argv], role=role, color=color, **more)

    def open(self, step: int) -> None:
        (self.task.directory / f"gate{step}").touch()

    def reaches(self, program: Program, step: int) -> bool:
        """Wait until it stands at a gate, or until its log has the step; False when the program ended before."""
        at_gate = self.task.directory / f"gate{step}.reached"

        def there() -> str | None:
            lines = self.log.read_text().splitlines() if self.log.exists() and not self.gates else []
            if at_gate.exists() or any(int(line.split()[0]) >= step for line in lines):
                return "reached"
            return "ended" if program.process.poll() is not None else None

        return bool(eventually(f"step {step}", there) == "reached")

    def check(self, out: str) -> None:
        assert (self.log.read_text(), self.out.read_text(), out) == self.reference


KILLED = """
import os, signal, sys
sys.argv = sys.argv[1:]
point, at, script = sys.argv.pop(0), int(sys.argv.pop(0)), sys.argv[0]
from resilience.state import record
from resilience.state.areas import MappedArea

write, copy = record.CommitRecord.write, MappedArea.save
def now(): os.kill(os.getpid(), signal.SIGKILL)
def writing(self, commit):
    global current
    current = commit
    if commit.sequence == at and point == ("before-copying", "before-held")[commit.phase]: now()
    write(self, commit)
    if commit.sequence == at and point == ("after-copying", "after-held")[commit.phase]: now()
def saving(self):
    if current.sequence == at and point == "between-arrays":
        self.spans[1].copy(self.work, self.used // 2)
        self.memory.wait()
        now()
    copy(self)
record.CommitRecord.write, MappedArea.save = writing, saving
exec(compile(open(script).read(), script, "exec"), {"__name__": "__main__", "__file__": script})
"""


DECLARES = """
import resilience, sys
with resilience.session(arrays="device") as s:
    exec(sys.argv[1])
    s.wait()
    s.commit(1, why=sys.argv[1])
    print(s.restored_from, s.step, s.values)
    sys.stdout.flush()
    if len(sys.argv) > 2:
        import os, signal
        os.kill(os.getpid(), signal.SIGKILL)
"""
