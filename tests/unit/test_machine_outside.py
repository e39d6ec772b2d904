"""Processes of a job without a supervisor: known by job, told once, requeued where that is open, blamed by name."""

import pytest

from resilience.model import effect as fx
from resilience.model import event as ev
from resilience.model.ids import Color, JobId
from resilience.model.observation import Client, Source, What
from resilience.model.options import OnCulprit, Rung
from resilience.model.settings import Recovery
from resilience.model.world import ServerState
from tests.unit.machine_kit import DOMAIN, GPU, Node, lease, pid, ref, server

ALICE = 1001


def opened(node: Node, job: int, *, batch: bool = True, requeueable: bool = True, **options: object) -> None:
    node.do(ev.JobOpened(lease=lease(job, **options), active=((GPU, Color("a")),)))  # type: ignore[arg-type]
    node.do(ev.JobKnown(job=JobId(job), batch=batch, requeueable=requeueable))


def joined(node: Node, job: int, pid: int, uid: int = ALICE) -> Client:
    client = Client(pid=pid, job=JobId(job))
    node.do(ev.ClientJoined(server=server("a"), client=client, uid=uid))
    return client


def requeued(node: Node) -> list[int]:
    return [one.job for one in node.of(fx.AskRequeue, node.log)]


def test_one_that_is_hit_has_its_job_requeued_and_told() -> None:
    node = Node()
    opened(node, 1)
    opened(node, 2)
    guilty = joined(node, 1, 100)
    joined(node, 2, 200)
    node.see(What.CULPRIT, color="a", client=guilty)
    assert requeued(node) == [2]
    (line,) = [one for one in node.lines(2) if "not recovered" in one]
    assert line.endswith(
        "process 200 not recovered: no supervisor (start it with srun or mpsr run); the job is requeued"
    )
    assert not node.comments(2), "the requeue's own comment"
    assert "caused a fault" in node.comments(1)[0]
    assert node.comments(1)[0].split("; ")[-1].startswith("a culprit is not requeued")
    node.handling()
    assert requeued(node) == [2], "once"
    assert len([one for one in node.lines(2) if "not recovered" in one]) == 1


def test_who_was_told_hears_what_the_driver_says_later() -> None:
    node = Node()
    opened(node, 1)
    opened(node, 2)
    guilty = joined(node, 1, 100)
    joined(node, 2, 200)
    node.see(What.CULPRIT, color="a", client=guilty)
    node.see(What.XID, source=Source.KMSG, client=guilty, xid=31)
    for job in (1, 2):
        assert sum("the GPU fault on GPU-" in line and "Xid 31" in line for line in node.lines(job)) == 1


def test_who_was_hit_and_left_before_anybody_was_named_counts() -> None:
    node = Node()
    opened(node, 2)
    other = node.task(3)
    joined(node, 2, 200)
    node.handling()
    node.do(ev.ClientLeft(server=server("a"), pid=200))
    node.do(ev.JobClosed(job=JobId(2)))
    assert requeued(node) == []
    node.culprit(other)
    assert requeued(node) == [2]


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"recover": (Rung.RESTORE,)}, "requeue: not in --mps-recover"),
        ({"batch": False}, "requeue: not a batch job"),
        ({"requeueable": False}, "requeue: Slurm shows it with Requeue=0"),
    ],
)
def test_one_that_cannot_be_requeued_is_told_why(facts: dict[str, object], why: str) -> None:
    node = Node()
    opened(node, 2, **facts)  # type: ignore[arg-type]
    joined(node, 2, 200)
    node.culprit(node.task(3))
    assert requeued(node) == []
    assert why in node.comments(2)[0]
    assert why in node.lines(2)[-1]


def test_a_job_is_not_taken_from_its_supervised_tasks() -> None:
    node = Node()
    opened(node, 2)
    mine = node.task(2)
    joined(node, 2, 200)
    guilty = node.task(3)
    node.culprit(guilty)
    node.xid(31, guilty)
    node.do(ev.Stepped(ref=mine, incident=next(iter(node.state.incidents)), seq=1, ms=1.0))
    assert requeued(node) == []
    assert any(line.endswith("other tasks of the job go on") for line in node.lines(2))
    assert "recovered on standby in 0.0 ms; process 200 not recovered" in node.comments(2)[-1]


def test_nobody_makes_a_job_of_others_hear_of_his_processes() -> None:
    """SLURM_JOB_ID is whatever a process says; the process is another user's."""
    node = Node()
    opened(node, 2)
    joined(node, 2, 200, uid=1002)
    node.culprit(node.task(3))
    assert requeued(node) == []
    assert node.lines(2) == []


def test_a_culprit_is_requeued_only_where_its_job_asked_for_that() -> None:
    node = Node()
    opened(node, 1, on_culprit=OnCulprit.REQUEUE)
    guilty = joined(node, 1, 100)
    node.see(What.CULPRIT, color="a", client=guilty)
    assert requeued(node) == [1]


def test_observing_asks_nobody() -> None:
    node = Node(Recovery(mode="observe"))
    opened(node, 2)
    joined(node, 2, 200)
    node.culprit(node.task(3))
    assert requeued(node) == []
    assert [row["would"] for row in node.journal("verdict") if row["job"] == 2][:1] == ["AskRequeue"]


def test_a_refused_requeue_is_told_and_the_next_run_begins_anew() -> None:
    node = Node()
    opened(node, 2)
    joined(node, 2, 200)
    node.culprit(node.task(3))
    node.do(ev.JobClosed(job=JobId(2)))
    node.do(ev.SlurmAnswered(ask=ev.Ask.REQUEUE, job=JobId(2), ok=False, detail="no"))
    assert node.lines(2)[-1] == "requeue refused: no"
    assert JobId(2) not in node.state.jobs
    opened(node, 2)
    assert node.state.jobs[JobId(2)].requeue is None


def test_servers_are_followed_as_long_as_a_lease_holds_them() -> None:
    node = Node()
    opened(node, 2)
    assert [one.server for one in node.of(fx.Watch, node.log)] == [server("a"), server("b")]
    node.see(What.FAULT_STATE, color="a")
    node.wait(1)
    assert node.rebuilt("a"), "it is mended with no task there"
    node.sight("a", ServerState.ACTIVE)
    node.do(ev.JobClosed(job=JobId(2)))
    assert {one.server for one in node.of(fx.Unwatch)} == {server("a"), server("b")}
    assert not node.state.pairs
    assert not node.state.jobs


def test_a_tasks_processes_are_no_strangers_to_an_agent_that_came_back() -> None:
    """It reads in the servers' logs who is connected before the supervisors are back."""
    node = Node()
    tasks = ref(1), ref(2)
    for who in tasks:
        opened(node, who.job)
        joined(node, who.job, pid(who))
        node.do(ev.ClientJoined(server=server("b"), client=Client(pid=pid(who) + 1, job=who.job), uid=ALICE))
    for who in tasks:
        held, at = lease(who.job), server("a")
        node.do(
            ev.Hello(ref=who, lease=held, server=at, mpi=False, resumed=True, retries=0, active=pid(who), session=True)
        )
        node.standby(who, "b")
    before = len(node.log)
    node.cuda(tasks[0])
    node.handling()
    node.wait(2)
    assert not [line for line in node.lines() if "no supervisor" in line]
    verdicts = node.told(node.log[before:])
    assert ("promote", "suspect", "b") in verdicts.values(), "where nobody else is, a suspect may go on at once"
    assert not node.state.pairs[DOMAIN, GPU].strangers
