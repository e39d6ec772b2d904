"""The drill's judgement, from the sentences that the agent's log really has, and the job that it submits."""

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from resilience.drill import judge, plan
from resilience.drill.alone import strangers
from resilience.drill.bystander import N, expected
from resilience.drill.judge import Left
from resilience.machine import sentences
from resilience.model.fault import Fault, FaultClass
from resilience.model.ids import GpuUuid, IncidentId, JobId, StepId, TaskId, TaskRef
from resilience.model.incident import Action, Attribution, Case, Confidence, Incident, Outcome, Part
from resilience.model.lease import Isolation
from resilience.model.observation import Client
from resilience.model.world import Pair
from tests.unit.machine_kit import UUID, server

JOB = JobId(7)


def ref(step: int) -> TaskRef:
    return TaskRef(job=JOB, step=StepId(step), task=TaskId(0))


def log(culprit: TaskRef | None, **cases: Case) -> str:
    """A recovery log by the functions that write it."""
    one = server("a")
    pair = Pair(
        domain=one.domain,
        gpu=one.gpu,
        uuid=UUID,
        uid=1001,
        gid=1001,
        shared=False,
        isolation=Isolation.DOMAINS,
        partitioned=False,
        colors=(one.color,),
        active=one.color,
        servers={},
    )
    named = Client(pid=1, task=culprit) if culprit else None
    incident = Incident(
        id=IncidentId("x-1"),
        server=one,
        uuid=UUID,
        opened_wall=0.0,
        opened=0.0,
        deadline=0.0,
        fault=Fault(kind=FaultClass.MMU, xid=31, words="illegal address"),
        sources=(),
        attribution=Attribution(confidence=Confidence.CERTAIN if named else Confidence.NONE, culprit=named),
    )
    parts = [(ref(0), Part.BYSTANDER), (ref(1), Part.BYSTANDER), (ref(2), Part.CULPRIT)]
    lines = [sentences.opening(incident, parts, pair)]
    lines += [sentences.recovered(ref(int(step.removeprefix("step"))), case, 12) for step, case in cases.items()]
    return "\n".join(f"2026-11-28T08:00:00.000 mpsr[n0] {line}" for line in lines)


def back(action: Action, ms: float) -> Case:
    return Case(part=Part.BYSTANDER, outcome=Outcome.RECOVERED, action=action, ms=ms)


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
    log=log(
        ref(2),
        step0=back(Action.PROMOTE, 4.2),
        step1=back(Action.RELAUNCH, 90.0),
    ),
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
        ({"log": ""}, ["fault", "culprit"]),
        ({"log": log(ref(1))}, ["culprit"]),
        ({"log": log(None)}, ["culprit"]),
        ({"log": GOOD.log + "\nmpsr[n0] observing only; would be: step 0 task 0: relaunched"}, ["fault"]),
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
