"""What both adapters of the Slurm port promise, asked of each on the same slurmctld, which is a stand-in.

tests/cluster/test_slurm_port.py asks the scontrol adapter on a real one.
"""

from collections.abc import Callable
from typing import Any

import pytest

from resilience.adapters.slurm import scontrol
from resilience.adapters.slurm.pyslurm_calls import Calls, answer
from resilience.adapters.slurm.pyslurm_slurm import Pyslurm
from resilience.adapters.slurm.scontrol import Scontrol
from resilience.model.errors import SlurmAway, SlurmError, UnknownJob
from resilience.model.ids import JobId, NodeName
from resilience.ports import Done, Refused
from tests.unit.fake_pyslurm import Controller, module
from tests.unit.slurm_clock import stopped
from tests.unit.slurm_programs import Programs

JOB = JobId(12)
N0 = NodeName("n0")


class Here:
    """pyslurm's calls in this process."""

    def __init__(self, calls: Calls) -> None:
        self.calls = calls

    def ask(self, call: str, **words: Any) -> dict[str, Any]:
        return answer(self.calls, call, words)


@pytest.fixture
def controller(monkeypatch: pytest.MonkeyPatch) -> Controller:
    stopped(monkeypatch)
    made = Controller()
    monkeypatch.setattr(scontrol, "run", Programs(controller=made, config="JobRequeue              = 0\n").run)
    return made


@pytest.fixture(params=["scontrol", "pyslurm"])
def slurm(request: pytest.FixtureRequest, controller: Controller) -> Scontrol | Pyslurm:
    programs = Scontrol(program="scontrol", timeout=5, requeue_timeout=30)
    if request.param == "scontrol":
        return programs
    return Pyslurm(Here(Calls(module(controller))), scontrol=programs, timeout=5, requeue_timeout=30)


def test_a_job_is_seen_as_it_is(controller: Controller, slurm: Scontrol | Pyslurm) -> None:
    controller.add(JOB, excluded_nodes="n1,n2", requeue_count=2)
    info = slurm.job(JOB)
    assert (info.state, info.batch, info.requeue, info.restarts) == ("RUNNING", True, True, 2)
    assert (info.stdout, info.workdir, slurm.excluded(JOB)) == ("/home/alice/out", "/home/alice", "n1,n2")


def test_a_job_without_requeue_says_whose_word_that_is(controller: Controller, slurm: Scontrol | Pyslurm) -> None:
    controller.add(JOB, is_requeueable=False)
    info = slurm.job(JOB)
    assert (info.requeue, "JobRequeue=0" in info.no_requeue) == (False, True)
    assert "--no-requeue" not in info.no_requeue


def test_it_starts_elsewhere_when_it_is_pending(controller: Controller, slurm: Scontrol | Pyslurm) -> None:
    controller.add(JOB, excluded_nodes="n7")
    assert slurm.requeue(JOB, comment="mpsr: why\nso", exclude=N0) == Done(detail="requeued")
    found = controller.look(JOB)
    assert (found["state"], found["requeue_count"], found["excluded_nodes"]) == ("RUNNING", 1, "n7,n0")
    assert found["admin_comment"] == "mpsr: why so"


@pytest.mark.parametrize("before", ["n1", None])
def test_an_exclusion_that_leaves_no_node_is_taken_back(
    before: str | None, controller: Controller, slurm: Scontrol | Pyslurm
) -> None:
    controller.all_nodes = ("n0", "n1") if before else ("n0",)
    controller.add(JOB, excluded_nodes=before)
    answered = slurm.requeue(JOB, comment="why", exclude=N0)
    assert isinstance(answered, Done)
    assert "node not excluded" in answered.detail
    found = controller.look(JOB)
    assert (found["state"], found["excluded_nodes"] or None) == ("RUNNING", before)


def test_a_pending_job_is_helped_to_start(controller: Controller, slurm: Scontrol | Pyslurm) -> None:
    controller.add(JOB, state="PENDING", state_reason="BeginTime")
    assert slurm.requeue(JOB, comment="x") == Done(detail="requeued")
    assert controller.look(JOB)["state"] == "RUNNING"


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"is_requeueable": False}, "Requested operation is presently disabled"),
        ({"is_batch_job": False}, "only batch jobs can be requeued"),
        ({"state": "COMPLETED"}, "the job is COMPLETED"),
        ({"state": "CANCELLED"}, "the job is CANCELLED"),
        ({"state": "PENDING", "priority": 0, "state_reason": "JobHeldUser"}, "the job is held: JobHeldUser"),
    ],
)
def test_what_slurm_will_not_do_is_refused(
    controller: Controller, slurm: Scontrol | Pyslurm, values: dict[str, object], reason: str
) -> None:
    controller.add(JOB, **values)
    assert slurm.requeue(JOB, comment="x") == Refused(reason=reason)


def test_a_job_that_does_not_get_pending_is_not_waited_for_forever(
    controller: Controller, slurm: Scontrol | Pyslurm
) -> None:
    controller.add(JOB)
    controller.completing = 10**6
    answered = slurm.requeue(JOB, comment="x")
    assert isinstance(answered, Done)
    assert "still COMPLETING after 30 s" in answered.detail


@pytest.mark.parametrize("job", [12, 13])
def test_a_task_of_an_array_never_goes_by_its_number(
    job: int, controller: Controller, slurm: Scontrol | Pyslurm
) -> None:
    controller.add(12, array_id=12, array_task_id=3)
    controller.add(13, array_id=12, array_task_id=0)
    assert slurm.requeue(JobId(job), comment="x") == Done(detail="requeued")
    name = {12: "12_3", 13: "12_0"}[job]
    assert controller.calls == [f"requeue {name}", f"update {name}", f"update {name}"]


@pytest.mark.parametrize("job", [12, 13])
def test_a_heterogeneous_job_is_asked_for_by_its_leader(
    job: int, controller: Controller, slurm: Scontrol | Pyslurm
) -> None:
    controller.add(12, heterogeneous_id=12, heterogeneous_offset=0)
    controller.add(13, heterogeneous_id=12, heterogeneous_offset=1, state="PENDING")
    assert isinstance(slurm.requeue(JobId(job), comment="x"), Done)
    assert controller.calls == ["requeue 12", f"update 12+{job - 12}", "update 12"]


ASK: list[Callable[[Any], object]] = [
    lambda slurm: slurm.job(JOB),
    lambda slurm: slurm.snapshot(JOB),
    lambda slurm: slurm.requeue(JOB, comment="x"),
    lambda slurm: slurm.comment(JOB, "x"),
    lambda slurm: slurm.admin_comment(JOB),
]


@pytest.mark.parametrize("ask", ASK)
def test_nobody_answered_is_not_an_unknown_job(
    ask: Callable[[Any], object], controller: Controller, slurm: Scontrol | Pyslurm
) -> None:
    controller.reachable = False
    with pytest.raises(SlurmAway):
        ask(slurm)
    controller.reachable = True
    with pytest.raises(UnknownJob, match="job 12: is unknown to Slurm"):
        ask(slurm)


def test_what_others_wrote_stays(controller: Controller, slurm: Scontrol | Pyslurm) -> None:
    controller.add(JOB, admin_comment="billed to X")
    assert slurm.comment(JOB, "mpsr: first (incident a-1)") == Done()
    assert slurm.comment(JOB, "mpsr: second (incident a-2)") == Done()
    assert controller.find(JOB)["admin_comment"] == "billed to X | mpsr: second (incident a-2)"


def test_a_drained_node_keeps_its_first_reason(controller: Controller, slurm: Scontrol | Pyslurm) -> None:
    controller.nodes["n0"] = {"state": "IDLE"}
    assert slurm.drain(N0, "device-lost") == Done()
    assert controller.nodes["n0"]["reason"] == "mpsr:device-lost"
    assert slurm.drain(N0, "again") == Done(detail="already drained: mpsr:device-lost")
    assert slurm.drain(NodeName("x"), "y") == Refused(reason="Node 'x' does not exist")


def test_a_pyslurm_that_is_not_as_we_know_it_is_an_error(controller: Controller) -> None:
    api = module(controller)
    controller.add(JOB)
    del controller.jobs[JOB]["array_id"]
    programs = Scontrol(program="scontrol", timeout=5, requeue_timeout=30)
    slurm = Pyslurm(Here(Calls(api)), scontrol=programs, timeout=5, requeue_timeout=30)
    with pytest.raises(SlurmError, match="pyslurm: load failed: AttributeError"):
        slurm.job(JOB)
