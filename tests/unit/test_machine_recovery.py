"""Which rung a task is given: standby, restore, relaunch, requeue or quarantine, and the reason when none is left."""

import pytest

from resilience.model import effect as fx
from resilience.model import event as ev
from resilience.model.ids import Color, JobId
from resilience.model.observation import Source, What
from resilience.model.options import OnCulprit, Rung
from resilience.model.records.told import drain_reason, requeue_comment
from resilience.model.settings import Recovery
from tests.unit.machine_kit import Node, newest_incident, pid, server


def test_without_a_standby_sessions_are_restored_and_others_relaunched_on_the_spare() -> None:
    node = Node()
    guilty = node.task(1)
    node.task(2, ready=False)
    node.task(3, session=False)
    node.culprit(guilty)
    assert node.told() == {2: ("restore", "bystander", "b"), 3: ("relaunch", "bystander", "b")}


def test_a_relaunched_program_has_recovered_when_it_runs() -> None:
    node = Node()
    guilty, plain = node.task(1), node.task(2, session=False)
    node.culprit(guilty)
    node.do(ev.Started(ref=plain, role=ev.Role.ACTIVE, pid=pid(plain) + 5, color=Color("b")))
    assert [row["task"] for row in node.journal("recovered")] == ["2.0.0"]


def test_rungs_go_down_and_end_in_a_requeue() -> None:
    node = Node()
    guilty, other = node.task(1), node.task(2)
    node.culprit(guilty)
    name = newest_incident(node)
    for expected in ("restore", "relaunch", "requeue"):
        node.do(ev.RungFailed(ref=other, incident=name, rung="?", reason="tried and failed"))
        assert node.told()[2][0] == expected
    assert not node.of(fx.AskRequeue)
    node.do(ev.Spilled(ref=other, seq=4))
    (asked,) = node.of(fx.AskRequeue)
    assert (asked.job, asked.exclude) == (JobId(2), False)
    assert "by job 1 step 0 task 0" in requeue_comment(asked.intent)
    node.do(ev.SlurmAnswered(ask=ev.Ask.REQUEUE, job=JobId(2), ok=True, detail=""))
    assert [row["ok"] for row in node.journal("slurm.outcome")] == [True]
    assert node.of(fx.Verdict) == []


def test_a_promotion_without_an_answer_times_out_from_when_the_old_process_noticed() -> None:
    node = Node()
    guilty, other = node.task(1), node.task(2)
    node.culprit(guilty)
    assert 2 not in node.told(node.wait(100)), "still computing on the CPU: nothing is wrong"
    node.cuda(other, 700)
    assert node.told(node.wait(29)) == {}
    assert node.told(node.wait(2)) == {2: ("restore", "bystander", "b")}


def test_retries_used_up_mean_requeue() -> None:
    node = Node()
    guilty = node.task(1)
    node.task(2, retries=3)
    node.culprit(guilty)
    assert node.told()[2][0] == "requeue"


def test_a_job_that_is_no_batch_job_fails_with_the_reason() -> None:
    node = Node()
    guilty, other = node.task(1), node.task(2, retries=3, batch=False)
    node.culprit(guilty)
    assert node.told()[2][0] == "fail"
    assert "not a batch job" in node.verdicts()[other].reason
    assert "3 retries used" in node.verdicts()[other].reason


def test_mpi_tasks_are_requeued_with_their_whole_job() -> None:
    node = Node()
    guilty = node.task(1)
    mates = [node.task(2, n, mpi=True) for n in range(3)]
    node.culprit(guilty)
    assert {who: one.action.value for who, one in node.verdicts().items()} == dict.fromkeys(mates, "requeue")
    for mate in mates[:2]:
        node.do(ev.Spilled(ref=mate, seq=-1))
        assert not node.of(fx.AskRequeue)
    effects = node.wait(30.1)
    assert len(node.of(fx.AskRequeue, effects)) == 1


@pytest.mark.parametrize("wish", OnCulprit)
def test_an_mpi_job_whose_own_task_did_it_comes_back_only_if_it_wants_to(wish: OnCulprit) -> None:
    """Requeued for its innocent tasks' sake it would make the same fault again, and again."""
    node = Node()
    guilty = node.task(1, 0, mpi=True, on_culprit=wish)
    mate = node.task(1, 1, mpi=True, on_culprit=wish)
    node.culprit(guilty)
    node.xid(31, guilty)
    expected = "requeue" if wish is OnCulprit.REQUEUE else "fail"
    told = {who: one.action.value for who, one in node.verdicts(node.log).items()}
    assert told == {guilty: expected, mate: expected}
    if expected == "fail":
        assert "requeue: step 0 task 0 of this job caused the fault" in node.verdicts(node.log)[mate].reason


def test_a_job_that_slurm_ends_before_it_answers_counts_as_requeued() -> None:
    node = Node()
    guilty, other = node.task(1), node.task(2, retries=3)
    node.culprit(guilty)
    node.do(ev.Spilled(ref=other, seq=-1))
    node.do(ev.Gone(ref=other))
    lines = node.lines(2, node.last)
    assert lines
    assert lines[-1].endswith(": requeued")
    assert not [one for one in node.of(fx.AskComment, node.log) if one.job == 2], "the requeue's own comment stays"


def test_a_refused_requeue_ends_in_the_reason() -> None:
    node = Node()
    guilty, other = node.task(1), node.task(2, retries=3)
    node.culprit(guilty)
    node.do(ev.Spilled(ref=other, seq=-1))
    node.do(ev.SlurmAnswered(ask=ev.Ask.REQUEUE, job=JobId(2), ok=False, detail="Job is no longer known"))
    assert node.told() == {2: ("fail", "bystander", "")}
    assert "Job is no longer known" in node.verdicts()[other].reason


def test_the_breaker_limits_requeues_per_hour() -> None:
    node = Node(Recovery(max_requeues_per_hour=1))
    guilty = node.task(1)
    first, second = node.task(2, retries=3), node.task(3, retries=3)
    node.do(ev.Gone(ref=second))
    node.culprit(guilty)
    node.do(ev.Spilled(ref=first, seq=-1))
    assert node.of(fx.AskRequeue)
    node.do(ev.Gone(ref=guilty))
    node.do(ev.Gone(ref=first))
    again, victim = node.task(4), node.task(5, retries=3)
    node.culprit(again)
    assert "breaker" in node.verdicts()[victim].reason


def test_a_culprit_in_quarantine_has_a_server_of_its_own() -> None:
    node = Node()
    guilty = node.task(1, on_culprit=OnCulprit.QUARANTINE)
    node.task(2)
    node.culprit(guilty)
    node.xid(31, guilty)
    assert [(one.server, one.anew) for one in node.of(fx.Open)] == [(server("q1"), False)]
    node.do(ev.ServerOpened(server=server("q1"), ok=True, detail=""))
    assert node.told() == {1: ("quarantine", "culprit", "q1")}
    node.do(ev.Gone(ref=guilty))
    assert node.of(fx.Close) == [fx.Close(server=server("q1"))]


def test_a_quarantine_that_cannot_be_opened_ends_in_fail() -> None:
    node = Node()
    guilty = node.task(1, on_culprit=OnCulprit.QUARANTINE)
    node.culprit(guilty)
    node.xid(31, guilty)
    node.do(ev.ServerOpened(server=server("q1"), ok=False, detail="no"))
    assert node.told() == {1: ("fail", "culprit", "")}


def test_a_broken_gpu_requeues_elsewhere_and_drains_once() -> None:
    node = Node()
    first, second = node.task(1), node.task(2, batch=False)
    node.xid(79)
    assert node.told() == {1: ("requeue", "bystander", ""), 2: ("fail", "bystander", "")}
    (drain,) = node.of(fx.AskDrain)
    assert drain_reason(drain.intent).startswith("mpsr: GPU-1d5f7a52")
    node.see(What.XID, source=Source.NVML, xid=79)
    assert not node.of(fx.AskDrain)
    node.do(ev.Spilled(ref=first, seq=2))
    assert node.of(fx.AskRequeue)[0].exclude
    assert "GPU has fallen off the bus" in node.verdicts(node.log)[second].reason


def test_the_driver_asking_for_a_reset_condemns_the_gpu() -> None:
    node = Node()
    node.task(1)
    node.xid(154, recovery=0)
    assert node.told() == {}
    node.xid(154, recovery=4)
    assert node.told()[1][0] == "requeue"


def test_a_programs_word_does_not_drain() -> None:
    node = Node()
    who = node.task(1)
    effects = [*node.cuda(who, 214), *node.wait(5)]
    assert not node.of(fx.AskDrain, effects)
    assert node.told(effects)[1][1] == "bystander"


@pytest.mark.parametrize("rungs", [(Rung.RELAUNCH,), (Rung.RESTORE, Rung.REQUEUE), (Rung.REQUEUE,), ()])
def test_only_allowed_rungs_are_taken(rungs: tuple[Rung, ...]) -> None:
    node = Node()
    guilty = node.task(1)
    node.task(2, recover=rungs)
    node.culprit(guilty)
    assert node.told()[2][0] == (rungs[0].value if rungs else "fail")
