"""What the log, the journal and Slurm's comment say of a fault, and when."""

import pytest

from resilience.model import effect as fx
from resilience.model import event as ev
from resilience.model.ids import JobId
from resilience.model.lease import Isolation
from resilience.model.observation import Source, What
from resilience.model.records.told import admin_comment
from resilience.model.settings import Recovery
from tests.unit.machine_kit import Node, newest_incident, server


@pytest.mark.parametrize(
    ("began", "slot", "turns", "words"),
    [
        (Isolation.DOMAINS, 0, (), "isolation: domains"),
        (Isolation.DOMAINS, 0, (True,), "isolation: guard"),
        (Isolation.GUARD, 0, (), "isolation: guard"),
        (Isolation.GUARD, 0, (False,), "isolation: domains"),
        (Isolation.GUARD, 3, (True, False), "isolation: SM partitions"),
        (Isolation.SM, 3, (True,), "isolation: guard, SM partitions"),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_the_log_names_the_isolation_at_the_fault(
    began: Isolation, slot: int, turns: tuple[bool, ...], words: str, first: bool
) -> None:
    """Whether the guard is turned before the job's first task or after it."""
    node = Node()
    for on in turns if first else ():
        node.do(ev.GuardTurned(on=on))
    who = node.task(1, isolation=began, slot=slot)
    for on in () if first else turns:
        node.do(ev.GuardTurned(on=on))
    node.culprit(who)
    node.wait(1)
    lines = node.lines()
    assert any(f"{words}" in line.split(";")[-1] for line in lines), lines


def test_bystanders_are_promoted_in_the_turn_that_names_the_culprit() -> None:
    node = Node()
    guilty, other, third = node.task(1), node.task(2), node.task(3)
    node.culprit(guilty)
    told = node.told()
    assert told[2] == told[3] == ("promote", "bystander", "b")
    assert 1 not in told, "the culprit waits for the fault's class"
    assert node.of(fx.SetActive) == [fx.SetActive(server=server("b"))]
    node.xid(31, guilty)
    assert node.told() == {1: ("fail", "culprit", "")}
    assert "illegal address, Xid 31" in node.verdicts()[guilty].reason
    node.do(ev.Stepped(ref=other, incident=newest_incident(node), seq=17, ms=1.5))
    node.do(ev.Stepped(ref=third, incident=newest_incident(node), seq=17, ms=1.5))
    comments = {one.job: admin_comment(one.account) for one in node.of(fx.AskComment, node.log)}
    assert comments[JobId(2)].startswith("mpsr: 1 fault by job 1 step 0 task 0 (illegal address, Xid 31) on GPU-1d5f")
    assert "recovered on standby in 0.0 ms" in comments[JobId(2)]
    assert comments[JobId(1)].startswith("mpsr: caused a fault in step 0 task 0 (illegal address, Xid 31)")


def test_a_kind_of_fault_that_is_known_late_is_told_late() -> None:
    """The server's log, which names the culprit, may come before the Xid, which says what it was."""
    node = Node()
    guilty, other = node.task(1), node.task(2)
    node.culprit(guilty)
    node.xid(31, guilty)
    node.xid(31, guilty)
    for job in (guilty.job, other.job):
        lines = node.lines(job)
        assert lines[0].startswith("GPU fault on ")
        assert "Xid" not in lines[0]
        assert [line.partition(" was: ")[2] for line in lines if " was: " in line] == ["illegal address, Xid 31"]


def test_a_kind_of_fault_that_is_known_at_once_is_told_once() -> None:
    node = Node()
    guilty = node.task(1)
    node.xid(31, guilty)
    node.culprit(guilty)
    lines = node.lines()
    assert "illegal address, Xid 31" in lines[0]
    assert not [line for line in lines if " was: " in line]


def test_steps_of_a_job_are_told_apart() -> None:
    """Two steps of one job have a task 0 each: log, journal and account say which one did it."""
    node = Node()
    solver = node.task(1)
    guilty = node.task(1, step=2)
    script = node.task(1, step=0xFFFFFFFB, session=False)
    node.culprit(guilty)
    node.xid(31, guilty)
    lines = node.lines()
    assert "by job 1 step 2 task 0 certain" in lines[0]
    assert lines[0].endswith(
        "; step 0 task 0 bystander, step 2 task 0 culprit, step batch task 0 bystander; isolation: domains"
    )
    assert "step 0 task 0: handed to its standby on server b" in lines
    assert any(line.startswith("step 2 task 0: failed: this task caused") for line in lines)
    assert any(line.startswith("step batch task 0: relaunched") for line in lines)
    assert node.journal("incident.attributed")[0]["culprit"] == "job 1 step 2 task 0"
    assert {solver, guilty, script} == set(node.verdicts(node.log))


def test_the_account_of_a_failed_task_does_not_wait_for_its_mates() -> None:
    """The job may end with its first failed task, and Slurm takes no account of a job that ends."""
    node = Node()
    guilty, mate = node.task(1), node.task(1, 1)
    node.culprit(guilty)
    node.xid(31, guilty)
    (early,) = node.of(fx.AskComment, node.log)
    assert admin_comment(early.account).startswith("mpsr: caused a fault in step 0 task 0 (illegal address, Xid 31)")
    node.do(ev.Stepped(ref=mate, incident=newest_incident(node), seq=17, ms=1.5))
    assert node.of(fx.AskComment, node.log) == [early], "what stands there is not asked for again"


@pytest.mark.parametrize(("said", "ms"), [(0.007, 7.0), (0.0, 12.0), (-3.0, 12.0), (0.5, 12.0), (1e9, 12.0)])
def test_the_first_step_is_when_the_program_says_unless_that_cannot_be(said: float, ms: float) -> None:
    node = Node()
    guilty, other = node.task(1), node.task(2)
    node.culprit(guilty)
    begun = node.now
    node.wait(0.012)
    at = begun + said if said > 0 else said
    node.do(ev.Stepped(ref=other, incident=newest_incident(node), seq=17, ms=1.5, at=at))
    assert [line["ms"] for line in node.journal("recovered")] == [pytest.approx(ms)]


def test_a_second_fault_takes_a_task_over_and_accounts_for_both() -> None:
    node = Node()
    guilty, other = node.task(1), node.task(2)
    node.culprit(guilty)
    node.see(What.SERVER_GONE, source=Source.CONTROL_LOG, color="b")
    assert not [one for one in node.of(fx.AskComment, node.log) if one.job == 2]
    node.rebuilt("a")
    assert node.told()[2][0] == "restore"
    node.do(ev.Stepped(ref=other, incident=newest_incident(node), seq=1, ms=1.0))
    (comment,) = node.comments(2)
    assert comment.startswith("mpsr: 2 faults, last")


def test_observing_says_what_would_be_done_and_does_nothing() -> None:
    node = Node(Recovery(mode="observe"))
    guilty, other = node.task(1), node.task(2)
    effects = [*node.culprit(guilty), *node.xid(31, guilty), *node.cuda(other), *node.exit(other), *node.wait(60)]
    effects += [*node.xid(79), *node.rebuilt("a")]
    allowed = (fx.WriteJournal, fx.JobLine, fx.Poll, fx.SetTimer, fx.Verdict, fx.Watch, fx.Unwatch, fx.LookUpJob)
    assert not [one for one in effects if not isinstance(one, allowed)]
    assert {one.action.value for one in node.of(fx.Verdict, effects)} <= {"none"}
    dry = [row for row in node.journal("verdict") if row.get("dry_run") and "task" in row]
    assert {(row["task"], row["action"]) for row in dry} >= {("1.0.0", "fail"), ("2.0.0", "promote")}
