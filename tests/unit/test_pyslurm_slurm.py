"""The pyslurm adapter against a stand-in that follows pyslurm's 25.11 documentation, and the choice between adapters.

No pyslurm fits a Slurm release that Debian has (22.05, 24.11, 26.05), so this adapter has not been run against a real
cluster here; tests/cluster/test_slurm_port.py asks the same of the scontrol adapter on a real one.
"""

import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

from resilience.adapters.slurm import requeue_sequence, slurm_commands
from resilience.adapters.slurm.pyslurm_slurm import Pyslurm, load
from resilience.adapters.slurm.scontrol import Scontrol
from resilience.model.errors import ConfigError, SlurmError
from resilience.model.ids import JobId, NodeName
from resilience.model.settings import Settings, Slurm
from resilience.ports import Done, Refused
from tests.unit.fake_pyslurm import Controller, module

JOB = JobId(12)
N0 = NodeName("n0")


@pytest.fixture
def controller(monkeypatch: pytest.MonkeyPatch) -> Controller:
    now = [0.0]
    clock = SimpleNamespace(
        monotonic=lambda: now[0], time=lambda: now[0], sleep=lambda seconds: now.__setitem__(0, now[0] + seconds)
    )
    monkeypatch.setattr(requeue_sequence, "time", clock)
    return Controller()


@pytest.fixture
def slurm(controller: Controller) -> Pyslurm:
    arrays = Scontrol(program="/nonexistent/scontrol", timeout=1, requeue_timeout=1)
    return Pyslurm(module(controller), arrays=arrays, timeout=5, requeue_timeout=30)


def test_a_job_is_seen_as_it_is(controller: Controller, slurm: Pyslurm) -> None:
    controller.add(JOB, excluded_nodes=["n1", "n2"], requeue_count=2)
    info = slurm.job(JOB)
    assert (info.state, info.batch, info.requeue, info.restarts) == ("RUNNING", True, True, 2)
    assert (info.stdout, info.workdir, info.excluded) == ("/home/alice/out", "/home/alice", "n1,n2")


def test_the_start_is_asked_for_only_when_the_job_is_pending(controller: Controller, slurm: Pyslurm) -> None:
    controller.add(JOB, excluded_nodes="n7")
    assert slurm.requeue(JOB, comment="why\nso", exclude=N0) == Done(detail="requeued")
    found = controller.look(JOB)
    assert (found["state"], found["requeue_count"], found["excluded_nodes"]) == ("RUNNING", 1, "n7,n0")
    assert found["admin_comment"] == "why so"
    assert controller.calls == [
        "requeue 12",
        "modify 12 admin_comment excluded_nodes",
        "modify 12 begin_time",
    ]


def test_an_exclusion_that_leaves_no_node_is_taken_back(controller: Controller, slurm: Pyslurm) -> None:
    controller.add(JOB, excluded_nodes="n1")
    answer = slurm.requeue(JOB, comment="why", exclude=N0)
    assert isinstance(answer, Done)
    assert "node not excluded" in answer.detail
    found = controller.look(JOB)
    assert (found["state"], found["excluded_nodes"]) == ("RUNNING", "n1")


def test_a_pending_job_is_helped_to_start(controller: Controller, slurm: Pyslurm) -> None:
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
    controller: Controller, slurm: Pyslurm, values: dict[str, object], reason: str
) -> None:
    controller.add(JOB, **values)
    assert slurm.requeue(JOB, comment="x") == Refused(reason=reason)


def test_a_job_that_does_not_get_pending_is_not_waited_for_forever(controller: Controller, slurm: Pyslurm) -> None:
    controller.add(JOB)
    controller.completing = 10**6
    answer = slurm.requeue(JOB, comment="x")
    assert isinstance(answer, Done)
    assert "still COMPLETING after 30 s" in answer.detail


def test_a_task_of_an_array_never_goes_by_its_number(controller: Controller, slurm: Pyslurm) -> None:
    controller.add(JOB, array_id=12)
    with pytest.raises(SlurmError, match="/nonexistent/scontrol: cannot be run"):
        slurm.requeue(JOB, comment="x")
    assert controller.calls == []


def test_an_unreachable_controller_is_an_error(controller: Controller, slurm: Pyslurm) -> None:
    controller.add(JOB)
    controller.reachable = False
    with pytest.raises(SlurmError, match="Unable to contact"):
        slurm.job(JOB)
    with pytest.raises(SlurmError, match="slurmctld: cannot be asked"):
        slurm.ask_requeue(JOB)


def test_a_drained_node_keeps_its_first_reason(controller: Controller, slurm: Pyslurm) -> None:
    controller.nodes["n0"] = {"state": "IDLE"}
    assert slurm.drain(N0, "device-lost") == Done()
    assert controller.nodes["n0"]["reason"] == "mpsr:device-lost"
    assert slurm.drain(N0, "again") == Done(detail="already drained: mpsr:device-lost")
    assert slurm.drain(NodeName("x"), "y") == Refused(reason="Node 'x' does not exist")


def with_adapter(name: str) -> Settings:
    return replace(Settings(), slurm=Slurm(adapter=name))


def test_pyslurm_is_taken_where_it_is(controller: Controller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyslurm", module(controller))
    assert slurm_commands.pick(Settings()).name == "pyslurm"
    assert slurm_commands.pick(with_adapter("scontrol")).name == "scontrol"


def test_without_pyslurm_scontrol_is_taken_or_the_admin_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyslurm", None)
    picked = slurm_commands.pick(Settings())
    assert (picked.name, "no pyslurm" in picked.why) == ("scontrol", True)
    with pytest.raises(ConfigError, match=r"slurm\.adapter: pyslurm cannot be used"):
        slurm_commands.pick(with_adapter("pyslurm"))


def test_an_old_pyslurm_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyslurm", SimpleNamespace(__version__="18.8.0"))
    with pytest.raises(ImportError, match=r"pyslurm 18\.8\.0 has no Job"):
        load()
    assert slurm_commands.pick(Settings()).name == "scontrol"
