"""The drill's judgement, from the records that lie beside its job's output, and the job that it submits."""

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from resilience.drill import judge, plan
from resilience.drill.alone import strangers
from resilience.drill.bystander import N, expected
from resilience.drill.judge import Left
from resilience.model.ids import GpuUuid, JobId, StepId, TaskId, TaskRef
from resilience.model.incident import Action, Part
from resilience.model.observation import Client
from resilience.model.records import IncidentAttributed, Record, Recovered, Verdict
from tests.unit.machine_kit import UUID

JOB = JobId(7)


def ref(step: int) -> TaskRef:
    return TaskRef(job=JOB, step=StepId(step), task=TaskId(0))


def records(culprit: TaskRef | None, **back: tuple[Action, float]) -> tuple[Record, ...]:
    """What lies beside the job's output."""
    parts: dict[TaskRef, str] = {ref(0): Part.BYSTANDER, ref(1): Part.BYSTANDER, ref(2): Part.CULPRIT}
    named = Client(pid=1, task=culprit, job=JOB) if culprit else None
    seen = IncidentAttributed(gpu=UUID, culprit=named, parts=parts, isolation="domains")
    steps = {ref(int(name.removeprefix("step"))): how for name, how in back.items()}
    return (seen, *(Recovered(task=task, action=action, ms=ms, seq=12) for task, (action, ms) in steps.items()))


GOOD = Left(
    job=JOB,
    state="COMPLETED",
    restarts=0,
    files={
        "kept.step": "0\n",
        "kept.status": "0\n",
        "kept.out": f"100 {expected(100)}\n",
        "plain.step": "1\n",
        "plain.status": "0\n",
        "plain.out": f"30 {expected(30)}\n",
        "culprit.step": "2\n",
        "culprit.status": "1\n",
    },
    records=records(ref(2), step0=(Action.PROMOTE, 4.2), step1=(Action.RELAUNCH, 90.0)),
)


def failed(left: Left) -> list[str]:
    return [row.what for row in judge.rows(left) if not row.held]


def test_a_good_drill_tells_how_each_came_back() -> None:
    said = {row.what: row.seen for row in judge.rows(GOOD)}
    assert failed(GOOD) == []
    assert said["fault"] == f"seen on {UUID}; isolation: domains"
    assert said["bystander that keeps state"] == "recovered on standby in 4.2 ms; right bytes after 100 steps"
    assert said["bystander that does not"] == "relaunched in 90.0 ms; right bytes after 30 steps"


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"state": "FAILED"}, ["the job"]),
        ({"restarts": 1}, ["the job"]),
        ({"spilled": ("/x/.mpsr-7",)}, ["left behind"]),
        ({"records": ()}, ["fault", "culprit"]),
        ({"records": records(ref(1))}, ["culprit"]),
        ({"records": records(None)}, ["culprit"]),
        ({"records": (*GOOD.records, Verdict(task=ref(0), dry_run=True))}, ["fault"]),
        ({"files": {**GOOD.files, "culprit.status": "0"}}, ["culprit"]),
        (
            {"files": {**GOOD.files, "culprit.status": "", "look.log": "drill: process 7 of uid 9 is on GPU-x"}},
            ["culprit"],
        ),
        ({"files": {**GOOD.files, "kept.out": f"101 {expected(100)}"}}, ["bystander that keeps state"]),
        ({"files": {**GOOD.files, "kept.out": "-1 abc"}}, ["bystander that keeps state"]),
        ({"files": {**GOOD.files, "plain.status": "1", "plain.log": "x\nlost"}}, ["bystander that does not"]),
    ],
)
def test_whatever_did_not_hold_is_found(changes: dict[str, object], wrong: list[str]) -> None:
    assert failed(replace(GOOD, **changes)) == wrong  # type: ignore[arg-type]


def test_wrong_bytes_are_not_taken_for_right_ones() -> None:
    assert expected(3) != expected(4)
    assert len(expected(1)) == 64
    assert N % 256 == 0


def test_only_other_users_processes_are_strangers(tmp_path: Path) -> None:
    class Two:
        """A GPU with these processes on it."""

        def all(self) -> tuple[()]:
            return ()

        def mps_processes(self, uuid: GpuUuid) -> tuple[int, ...]:
            return (os.getpid(), 999)

        def plain_processes(self, uuid: GpuUuid) -> tuple[int, ...]:
            return (os.getpid(),)

    (tmp_path / str(os.getpid())).mkdir()
    assert strangers(Two(), [UUID], os.getuid(), tmp_path) == []
    sentences = f"process {os.getpid()} of uid {os.getuid()} is on {UUID}: no fault is made"
    assert strangers(Two(), [UUID], os.getuid() + 1, tmp_path) == [sentences]


def test_the_script_is_one_that_bash_takes() -> None:
    text = plan.script("/opt/my python/bin/python3", "trap")
    assert subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True, check=False).stderr == ""
    assert "'/opt/my python/bin/python3' -m resilience.drill.culprit trap" in text


def test_nobody_elses_words_can_have_the_job_requeued_or_the_servers_shared() -> None:
    argv = plan.submit("/d", "gpu:1", ["-pgpu", "--requeue"])
    assert argv[-1] == "--no-requeue"
    assert argv.index("--mps-domain=job") < argv.index("-pgpu")
