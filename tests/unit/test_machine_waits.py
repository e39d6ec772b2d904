"""The machine waits for nobody without a bound, for nobody who is stopped, and its patience does not wear out."""

import pytest

from resilience.model import effect as fx
from resilience.model import event as ev
from resilience.model.ids import Color, JobId, TaskRef
from resilience.model.options import OnCulprit
from resilience.model.records.told import admin_comment
from resilience.model.settings import Recovery
from tests.unit.machine_kit import DOMAIN, GPU, Node, lease, newest_incident, pid, ref, server

AWAY = "slurmctld: cannot be asked: Unable to contact slurm controller (connect failure)"


def asked(node: Node, **task: object) -> TaskRef:
    """Task 2, a bystander without a retry left, spills, and Slurm is asked for its requeue."""
    guilty, other = node.task(1), node.task(2, retries=3, **task)  # type: ignore[arg-type]
    node.culprit(guilty)
    assert node.told()[2][0] == "requeue"
    node.do(ev.Exited(ref=other, role=ev.Role.ACTIVE, pid=pid(other), status=0, ours=True))
    node.do(ev.Spilled(ref=other, seq=4))
    assert node.of(fx.AskRequeue)
    return other


def answer(node: Node, *, ok: bool = False, detail: str = "no", away: bool = False) -> list[fx.Effect]:
    event = ev.SlurmAnswered(ask=ev.Ask.REQUEUE, job=JobId(2), ok=ok, detail=detail, away=away)
    return list(node.do(event))


# ---------------------------------------------------------------- a requeue comes to its end


def test_a_session_that_was_told_to_go_hears_that_nothing_came_of_it() -> None:
    node = Node()
    other = asked(node)
    effects = answer(node, detail="Requested operation is presently disabled")
    assert "Requested operation is presently disabled" in node.verdicts(effects)[other].reason
    (comment,) = node.of(fx.AskComment, effects)
    text = admin_comment(comment.account)
    assert text.startswith("mpsr: 1 fault by job 1 step 0 task 0")
    assert "Slurm did not requeue the job: Requested operation is presently disabled" in text
    lines = node.lines(2, effects)
    assert any("Requested operation is presently disabled" in line for line in lines)


def test_a_plain_program_that_ends_while_its_job_is_requeued_hears_it_too() -> None:
    node = Node()
    guilty, other = node.task(1), node.task(2, retries=3, session=False)
    node.culprit(guilty)
    node.do(ev.Spilled(ref=other, seq=-1))
    assert node.told(node.exit(other)) == {}, "its end was to be expected"
    assert node.told(answer(node))[2][0] == "fail"


def test_a_program_that_ends_well_by_itself_has_ended_well() -> None:
    node = Node()
    guilty, other = node.task(1), node.task(2, retries=3, session=False)
    node.culprit(guilty)
    node.do(ev.Spilled(ref=other, seq=-1))
    node.exit(other, status=0)
    assert node.told(answer(node)) == {}


def test_slurm_is_asked_again_while_nobody_answers_and_then_takes_the_job_back() -> None:
    node = Node()
    asked(node)
    for _ in range(20):
        answer(node, detail=AWAY, away=True)
        assert not node.verdicts()
        assert len(node.of(fx.AskRequeue, node.wait(1.0))) == 1
    assert node.told(answer(node, ok=True)) == {}
    assert [row.get("uid") for row in node.journal("slurm.intent") if row["ask"] == "requeue"].count(1001) == 1


def test_a_slurm_that_stays_away_is_asked_for_so_long_and_the_reason_is_told() -> None:
    node = Node(Recovery(requeue_timeout=40))
    other, began = asked(node), node.now
    while not (told := node.told(answer(node, detail=AWAY, away=True))):
        node.wait(1.0)
        assert node.now - began <= 40
    assert told[2][0] == "fail"
    assert node.now - began > 38
    assert AWAY in node.verdicts()[other].reason
    assert AWAY in node.comments(effects=node.last)[0]


def test_a_slurm_that_gives_no_answer_at_all_is_not_waited_for() -> None:
    node = Node(Recovery(requeue_timeout=40))
    other = asked(node)
    assert 2 not in node.told(node.wait(49.9))
    effects = node.wait(0.2)
    assert node.told(effects)[2][0] == "fail"
    assert "Slurm did not requeue the job: no answer in 50 s" in node.verdicts(effects)[other].reason
    assert node.told(answer(node, ok=True)) == {}, "too late"


def test_what_is_left_of_a_requeue_after_a_restart_of_the_agent_ends_too() -> None:
    """A new agent knows of no incident: the task said `spilled`, and its program may end by itself."""
    node = Node()
    who = ref(2)
    node.do(
        ev.Hello(
            ref=who, lease=lease(2), server=server("a"), mpi=False, resumed=True, retries=0, active=0, session=True
        )
    )
    node.do(ev.JobKnown(job=JobId(2), batch=True, requeueable=True))
    node.do(ev.Spilled(ref=who, seq=4))
    assert node.of(fx.AskRequeue)
    assert node.told(node.exit(who)) == {}
    assert node.told(node.wait(2)) == {}
    effects = answer(node, detail="Job is no longer known")
    assert node.verdicts(effects)[who].reason == "Slurm did not requeue the job: Job is no longer known"
    assert node.comments(effects=effects) == [
        "mpsr: failed: Slurm did not requeue the job: Job is no longer known (incident unknown)"
    ]


def test_a_task_that_came_after_the_requeue_began_is_left_alone() -> None:
    node = Node()
    other = asked(node)
    late = node.task(2, 1)
    told = node.verdicts(answer(node))
    assert other in told
    assert late not in told


def test_an_end_by_order_says_nothing_about_the_task() -> None:
    """The agent that gave the order has ended: the new one takes neither success nor failure from it."""
    node = Node()
    who = ref(2)
    node.do(
        ev.Hello(
            ref=who, lease=lease(2), server=server("b"), mpi=False, resumed=True, retries=1, active=2000, session=True
        )
    )
    node.do(ev.Exited(ref=who, role=ev.Role.ACTIVE, pid=2000, status=0, ours=True))
    assert not node.state.tasks[who].over
    node.do(ev.Started(ref=who, role=ev.Role.ACTIVE, pid=2001, color=Color("b")))
    node.do(ev.SessionOpened(ref=who, role=ev.Role.ACTIVE, pid=2001))
    node.culprit(node.task(1), "b")
    assert node.told()[2][0] == "restore"


def test_a_job_that_slurm_has_said_nothing_of_is_asked_for_again() -> None:
    node = Node()
    node.task(1, batch=None)
    assert [one.job for one in node.of(fx.LookUpJob, node.wait(45))] == [1, 1]
    node.do(ev.JobKnown(job=JobId(1), batch=True, requeueable=True))
    assert node.of(fx.LookUpJob, node.wait(100)) == []


# ---------------------------------------------------------------- stopped is not hung


def restored(node: Node) -> TaskRef:
    guilty, other = node.task(1), node.task(2, ready=False)
    node.culprit(guilty)
    assert node.told()[2][0] == "restore"
    return other


def test_a_suspended_task_is_waited_for_and_has_its_time_when_it_goes_on() -> None:
    node = Node()
    other = restored(node)
    node.wait(10)
    node.stopped.add(other)
    effects = node.wait(3600)
    assert node.told(effects) == {}
    assert sum("is stopped" in line for line in node.lines(effects=effects)) == 1
    node.stopped.clear()
    assert node.told(node.wait(18)) == {}
    assert node.told(node.wait(3)) == {2: ("relaunch", "bystander", "b")}


def test_stops_that_are_over_before_the_deadline_do_not_count_either() -> None:
    """Gang scheduling: a slice runs, a slice stands still."""
    node = Node()
    other = restored(node)
    for _ in range(5):
        node.wait(5)
        node.stopped.add(other)
        assert node.told(node.wait(20)) == {}
        node.stopped.clear()
    assert node.told(node.wait(12)) == {2: ("relaunch", "bystander", "b")}


def test_a_suspended_task_that_has_its_first_step_after_the_resume_has_recovered() -> None:
    node = Node()
    other = restored(node)
    node.stopped.add(other)
    node.wait(100)
    node.stopped.clear()
    node.do(ev.Stepped(ref=other, incident=newest_incident(node), seq=4, ms=1.0))
    assert [row["task"] for row in node.journal("recovered")] == ["2.0.0"]
    assert node.told(node.wait(100)) == {}


def test_the_standby_of_a_suspended_task_is_kept_until_it_takes_over() -> None:
    """The hit server is back long before, and would take another."""
    node = Node()
    guilty, other = node.task(1), node.task(2)
    node.culprit(guilty)
    assert node.told()[2] == ("promote", "bystander", "b")
    node.do(ev.Gone(ref=guilty))
    assert node.of(fx.StartStandby, node.rebuilt("a")) == []
    node.wait(600)
    node.cuda(other)
    effects = node.do(ev.Stepped(ref=other, incident=newest_incident(node), seq=4, ms=1.0))
    assert [(one.ref, one.server) for one in node.of(fx.StartStandby, effects)] == [(other, server("a"))]


def test_a_suspended_task_has_its_time_to_spill_too() -> None:
    node = Node()
    guilty, other = node.task(1), node.task(2, retries=3)
    node.culprit(guilty)
    node.stopped.add(other)
    assert node.of(fx.AskRequeue, node.wait(600)) == []
    node.stopped.clear()
    assert node.of(fx.AskRequeue, node.wait(28)) == []
    assert len(node.of(fx.AskRequeue, node.wait(4))) == 1


def test_a_job_that_was_suspended_as_slurm_was_asked_is_requeued_after_the_resume() -> None:
    node = Node(Recovery(requeue_timeout=40))
    other = asked(node)
    node.stopped.add(other)
    answer(node, detail="job 2: is suspended", away=True)
    effects = node.wait(3600)
    assert node.of(fx.AskRequeue, effects) == []
    assert 2 not in node.told(effects)
    node.stopped.clear()
    assert len(node.of(fx.AskRequeue, node.wait(2))) == 1
    effects = node.wait(60)
    assert node.told(effects)[2][0] == "fail", "the rest of its time is as long as ever"


# ---------------------------------------------------------------- retries come back


def hit(node: Node, color: str) -> str:
    """A fault by a task of its own on the server; what task 2 is told."""
    guilty = ref(1)
    node.do(
        ev.Hello(
            ref=guilty, lease=lease(1), server=server(color), mpi=False, resumed=True, retries=0, active=pid(guilty),
            session=True,
        )
    )  # fmt: skip
    told = node.told(node.culprit(guilty, color))[2]
    node.do(ev.Gone(ref=guilty))
    if told[0] != "requeue":
        node.do(ev.Started(ref=ref(2), role=ev.Role.ACTIVE, pid=pid(ref(2)), color=Color(told[2])))
        node.do(ev.SessionOpened(ref=ref(2), role=ev.Role.ACTIVE, pid=pid(ref(2))))
        node.do(ev.Stepped(ref=ref(2), incident=newest_incident(node), seq=1, ms=1.0))
        node.rebuilt(color)
        node.wait(3)
    return told[0]


def test_faults_far_apart_do_not_use_up_the_retries() -> None:
    node = Node(Recovery(retries_window=600))
    node.task(2, ready=False)
    for number in range(12):
        assert hit(node, "ab"[number % 2]) == "restore", f"fault {number}"
        node.wait(600)
    assert node.state.tasks[ref(2)].retries == 1


def test_faults_close_together_do() -> None:
    node = Node(Recovery(retries_window=600))
    node.task(2, ready=False)
    assert [hit(node, "ab"[number % 2]) for number in range(4)] == ["restore"] * 3 + ["requeue"]


@pytest.mark.parametrize(("ago", "told"), [(0, "requeue"), (599, "requeue"), (601, "promote")])
def test_a_new_agent_knows_how_long_ago_the_retries_were_used(ago: float, told: str) -> None:
    node = Node(Recovery(retries_window=600))
    who = ref(2)
    node.do(
        ev.Hello(
            ref=who, lease=lease(2), server=server("a"), mpi=False, resumed=True, retries=3, retried=ago,
            active=pid(who), session=True,
        )
    )  # fmt: skip
    node.do(ev.JobKnown(job=JobId(2), batch=True, requeueable=True))
    node.standby(who, "b")
    assert node.told(node.culprit(node.task(1)))[2][0] == told


def test_a_culprit_in_quarantine_gets_them_back_too() -> None:
    node = Node(Recovery(retries_window=600))
    guilty = node.task(1, retries=3, on_culprit=OnCulprit.QUARANTINE)
    node.wait(601)
    node.culprit(guilty)
    node.xid(31, guilty)
    assert [one.server for one in node.of(fx.Open)] == [server("q1")]


def test_a_standby_that_seldom_ends_is_always_started_again() -> None:
    node = Node(Recovery(retries_window=600))
    who = node.task(1)
    for number in range(12):
        node.exit(who, number=1 + number, role=ev.Role.STANDBY)
        (start,) = node.of(fx.StartStandby, node.wait(100))
        node.standby(who, start.server.color, number=2 + number)
        node.wait(600)
    assert (DOMAIN, GPU) in node.state.pairs
