"""Commands of a batch script without srun: hit or guilty, their job is told in its log, its output and its AdminComment;
one that is hit is requeued where it may be; `mpsr run` has it recovered like a task."""

import shlex
from collections.abc import Iterator

import pytest

from tests.cluster.sandbox import Sandbox, wait_for
from tests.demo import programs
from tests.demo.stage import Stage

pytestmark = [pytest.mark.cluster, pytest.mark.sim]
STEPS = 6000
SHARE = ("--mps", "-wn0", "--gres=shard:1", "--open-mode=append")
FAULT = "illegal address, Xid 31"
"""Its recovery log has this in the end. What is told before NVIDIA's Xid line is there says `GPU fault`."""


@pytest.fixture
def stage(cluster: Sandbox) -> Iterator[Stage]:
    it = Stage(cluster)
    yield it
    it.clear()
    wait_for(lambda: not cluster.residue(), 20, lambda: str(cluster.residue()))


def command(stage: Stage, name: str) -> str:
    return shlex.join(programs.plain(stage.sandbox.plan, stem=f"/home/alice/{name}", steps=STEPS))


def culprit(stage: Stage) -> str:
    return shlex.join(programs.culprit(stage.sandbox.plan, "illegal-address"))


def under_way(stage: Stage, *names: str) -> None:
    """Each has made a step on the GPU."""
    wait_for(lambda: all(stage.sandbox.read(f"/home/alice/{name}.marks") for name in names), 30)


def ended(stage: Stage, job: int, restarts: int = 0) -> dict[str, str]:
    """Its record at its end. The script may have failed before Slurm is asked to start it again."""
    wait_for(lambda: stage.sandbox.job(job)["Restarts"] == str(restarts), 30)
    return stage.sandbox.wait(job)


def recovery_log(stage: Stage, job: int) -> str:
    return stage.sandbox.run(["/opt/bin/mpsr", "log", "-j", str(job)], user="alice").out


def test_a_plain_command_that_is_hit_has_its_job_requeued(stage: Stage) -> None:
    """The culprit is a plain command, too: nobody on the node has a supervisor."""
    job = stage.sandbox.sbatch(*SHARE, script=command(stage, "hit"))
    under_way(stage, "hit")
    guilty = stage.sandbox.sbatch(*SHARE, script=culprit(stage))
    fields = ended(stage, job, restarts=1)
    assert fields["JobState"] == "COMPLETED"
    assert f"requeued after a fault by job {guilty} process " in fields["AdminComment"]
    assert f"1 fault by job {guilty} process " in recovery_log(stage, job)
    assert "not recovered: no supervisor (start it with srun or mpsr run); the job is requeued" in recovery_log(
        stage, job
    )
    said = stage.sandbox.output(job)
    assert "mpsr: 1 fault by job" in said
    assert said.count("mpsr: batch script: its programs run under MPS") == 2, "at each start"
    assert ended(stage, guilty)["JobState"] == "FAILED"
    wait_for(lambda: "mpsr: caused a fault (" in stage.sandbox.output(guilty), 10)
    wait_for(lambda: FAULT in recovery_log(stage, guilty), 10)
    assert "a culprit is not requeued" in recovery_log(stage, guilty)


def test_one_that_may_not_be_requeued_is_told_why(stage: Stage) -> None:
    script = f"{command(stage, 'told')}; sleep 3; exit 9"
    job = stage.sandbox.sbatch(*SHARE, "--mps-recover=restore,relaunch", script=script)
    under_way(stage, "told")
    stage.end(stage.culprit("illegal-address", "--gres=shard:1"))
    fields = ended(stage, job)
    assert (fields["JobState"], fields["ExitCode"], fields["Restarts"]) == ("FAILED", "9:0", "0")
    why = "not recovered: no supervisor (start it with srun or mpsr run); requeue: not in --mps-recover"
    for text in (fields["AdminComment"], recovery_log(stage, job), stage.sandbox.output(job)):
        assert why in text
    wait_for(lambda: FAULT in recovery_log(stage, job), 10)


def test_mpsr_run_recovers_two_at_once_and_names_the_one_beside_them(stage: Stage) -> None:
    words = [f"mpsr run {command(stage, name)} &" for name in ("one", "two")]
    script = "\n".join([*words, f"{command(stage, 'beside')} &", "wait %1 && wait %2"])
    job = stage.sandbox.sbatch(*SHARE, script=script)
    under_way(stage, "one", "two", "beside")
    stage.end(stage.culprit("illegal-address", "--gres=shard:1"))
    fields = ended(stage, job)
    assert (fields["JobState"], fields["Restarts"]) == ("COMPLETED", "0")
    assert {len(stage.sandbox.read(f"/home/alice/{name}.marks").split()) for name in ("one", "two")} == {2}
    assert "2 tasks relaunched" in fields["AdminComment"]
    assert "not recovered: no supervisor" in fields["AdminComment"]
    assert "batch script" not in stage.sandbox.output(job)
    tasks = {row.get("task") for row in stage.sandbox.journal() if row["event"] == "task.hello"}
    assert {f"{job}.4294967291.{number}" for number in (0, 1)} <= tasks


def test_a_program_with_a_session_brings_itself_under_a_supervisor(stage: Stage) -> None:
    """README's example, as a plain command: a standby takes over."""
    solve = shlex.join(programs.heat2d(stage.sandbox.plan, stem="/home/alice/own", steps=4000))
    job = stage.sandbox.sbatch(*SHARE, script=f"echo begins\n{solve}\necho ends $?")
    wait_for(lambda: programs.last_step(stage.sandbox.read("/home/alice/own.log")) > 300, 30)
    stage.end(stage.culprit("illegal-address", "--gres=shard:1"))
    fields = ended(stage, job)
    assert (fields["JobState"], fields["Restarts"]) == ("COMPLETED", "0")
    assert "recovered on standby" in fields["AdminComment"]
    said = stage.sandbox.output(job)
    assert "ends 0" in said
    assert "no supervisor" not in said
