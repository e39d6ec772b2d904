"""State belongs to a program, not to a step's number: after a requeue, steps move and others take their numbers.

Real Slurm, real requeues (`scontrol requeue`), programs that stand still until the test lets them go on, and say what they went on from.
"""

import shlex
import time

import pytest

from tests.cluster.plan import REPO
from tests.cluster.sandbox import wait_for
from tests.demo.stage import NODE, Stage

pytestmark = [pytest.mark.cluster, pytest.mark.sim]

PROGRAM = """
import os, sys, time
import resilience
who, gate = sys.argv[1:3]
with resilience.session(arrays="device", spill_seconds=0, name=os.environ.get("NAME", "")) as s:
    s.array("u", 4)
    s.wait()
    print(who, "goes on from", repr(s.restored_from), s.values.get("who"), flush=True)
    for step in s.steps(8):
        s.commit(step, who=who)
        while step == 5 and not os.path.exists(gate):
            s.gpu.synchronize()
            time.sleep(0.01)
print(who, "done", flush=True)
"""


class Script:
    """A job whose script starts that program under several names."""

    def __init__(self, stage: Stage, script: str) -> None:
        self.stage = stage
        self.since = time.monotonic()
        sandbox = stage.sandbox
        program = "/home/alice/moved.py"
        sandbox.path(program).write_text(PROGRAM)
        sandbox.path("/home/alice/go").unlink(missing_ok=True)
        sandbox.run(["rm", "-f", "/home/alice/prep.done"])
        run = shlex.join([sandbox.plan.python, program])
        text = f'run() {{ who=$1; shift; "$@" {run} $who $HOME/go; }}\nlaunch={REPO}/build/mpsr-launch\n{script}\n'
        options = ["--mps", "--mps-standby=off", f"-w{NODE}", "-n2", "--gres=shard:1", "--open-mode=append"]
        self.job = sandbox.sbatch(*options, script=text)

    def said(self, *lines: str) -> None:
        """Wait until its output has all of these."""
        output = self.stage.sandbox.output
        wait_for(lambda: all(line in output(self.job) for line in lines), 60, lambda: output(self.job))

    def spilled(self, count: int) -> None:
        directory = self.stage.sandbox.path(f"/home/alice/.mpsr-{self.job}")
        wait_for(lambda: len(list(directory.glob("*.state"))) == count, 30, lambda: f"{count} spills")

    def go(self) -> None:
        self.stage.sandbox.path("/home/alice/go").touch()

    def requeue(self) -> None:
        self.stage.sandbox.good(["scontrol", "requeue", str(self.job)])
        wait_for(lambda: self.stage.sandbox.job(self.job)["JobState"] == "PENDING", 60)
        pending = int(time.time())
        wait_for(lambda: int(time.time()) >= pending + 2, 5)  # slurmd forgets the old run's credential by the second
        self.stage.sandbox.good(["scontrol", "update", f"JobId={self.job}", "StartTime=now"])

    def end(self) -> str:
        self.go()
        assert self.stage.sandbox.wait(self.job, timeout=90)["JobState"] == "COMPLETED", self.output
        assert self.stage.clean([self.job], self.since) == []
        return self.output

    @property
    def output(self) -> str:
        return self.stage.sandbox.output(self.job)


def test_another_programs_state_is_not_taken(stage: Stage) -> None:
    """What ran in the script before is a step after the requeue, and has the number of nothing that kept state."""
    script = Script(stage, '[ "$SLURM_RESTART_COUNT" ] || run first $launch; run second srun -n1')
    script.said("first goes on from ''")
    script.spilled(1)
    script.requeue()
    script.said("second goes on from '' None")
    assert "is of another command of this job: @" in script.output
    assert "second done" in script.end()


def test_state_is_found_though_its_step_has_another_number(stage: Stage) -> None:
    done = "[ -e prep.done ] || { touch go; run prep srun -n1; rm go; touch prep.done; }"
    script = Script(stage, f"{done}\nrun solve srun -n1")
    script.said("prep done", "solve goes on from ''")
    script.spilled(1)
    script.requeue()
    script.said("solve goes on from 'disk' solve")
    output = script.end()
    assert output.count("prep goes on") == 1
    assert "solve done" in output


def test_two_at_once_keep_apart(stage: Stage) -> None:
    """Two programs; two of one command, which cannot be told apart; and those again, with names."""
    different = "run one srun -n1 --overlap & run two srun -n1 --overlap & wait"
    script = Script(stage, different)
    script.said("one goes on from ''", "two goes on from ''")
    script.spilled(2)
    script.requeue()
    script.said("one goes on from 'disk' one", "two goes on from 'disk' two")
    script.end()

    script = Script(stage, "run same srun -n1 --overlap & run same srun -n1 --overlap & wait")
    script.said("another one of the same command runs in this job: @")
    wait_for(lambda: script.output.count("same goes on from ''") == 2, 30)
    script.requeue()
    wait_for(lambda: script.output.count("same goes on from ''") == 4, 60, lambda: script.output)
    assert script.end().count("same done") == 2

    named = "NAME=a run same srun -n1 --overlap & NAME=b run same srun -n1 --overlap & wait"
    script = Script(stage, named)
    wait_for(lambda: script.output.count("same goes on from ''") == 2, 60, lambda: script.output)
    script.spilled(2)
    script.requeue()
    wait_for(lambda: script.output.count("same goes on from 'disk' same") == 2, 60, lambda: script.output)
    script.end()


def test_two_in_a_batch_script_have_each_their_own_supervisor(stage: Stage) -> None:
    script = Script(stage, "run one $launch & run two $launch & wait")
    script.said("one goes on from ''", "two goes on from ''")
    script.spilled(2)
    assert script.end().count(" done") == 2


def test_a_name_that_lives_is_refused(stage: Stage) -> None:
    script = Script(
        stage,
        "export NAME=mine\nrun one srun -n1 --overlap & sleep 3; run two srun -n1 --overlap; echo it ended $?; wait",
    )
    script.said("another program of this job is open under this name: mine, k0.0", "it ended 1")
    assert "one done" in script.end()
