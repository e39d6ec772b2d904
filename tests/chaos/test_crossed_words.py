"""Words that cross each other, or the agent's death: what a supervisor says is taken for what it meant."""

from dataclasses import replace

from resilience.model import effect as fx
from resilience.model import event as ev
from resilience.model.ids import Color, JobId
from resilience.model.options import JobOptions
from tests.unit.machine_kit import Node, lease, pid, ref, server


def hello(node: Node, job: int, task: int = 0, *, resumed: bool = False) -> None:
    known = ev.Hello(
        ref=ref(job, task), lease=lease(job), server=server("a"), mpi=False, resumed=resumed, retries=0, active=0,
        session=resumed,
    )  # fmt: skip
    node.do(known)


def test_the_first_process_is_told_to_go_before_we_hear_that_it_runs() -> None:
    node = Node()
    guilty = node.task(1)
    hello(node, 2)
    node.culprit(guilty)
    assert node.told()[2] == ("relaunch", "bystander", "b")
    node.do(ev.Started(ref=ref(2), role=ev.Role.ACTIVE, pid=2000, color=Color("a")))
    node.exit(ref(2))
    assert node.journal("recovery.failed") == []
    node.do(ev.Started(ref=ref(2), role=ev.Role.ACTIVE, pid=2005, color=Color("b")))
    assert [entry["action"] for entry in node.journal("recovered")] == ["relaunch"]


def test_a_new_agent_goes_on_with_a_requeue() -> None:
    node = Node()
    hello(node, 2, 0, resumed=True)
    hello(node, 2, 1, resumed=True)
    node.do(ev.Spilled(ref=ref(2, 0), seq=7))
    assert {who: one.action.value for who, one in node.verdicts().items()} == {ref(2, 1): "requeue"}
    assert node.of(fx.AskRequeue) == []
    node.do(ev.Spilled(ref=ref(2, 1), seq=7))
    assert [ask.job for ask in node.of(fx.AskRequeue)] == [2]
    node.do(ev.Spilled(ref=ref(2, 1), seq=7))
    assert node.of(fx.AskRequeue) == []


def test_a_requeue_that_slurm_refuses_to_a_new_agent_fails_its_tasks() -> None:
    node = Node()
    hello(node, 2, resumed=True)
    node.do(ev.Spilled(ref=ref(2), seq=7))
    node.do(ev.SlurmAnswered(ask=ev.Ask.REQUEUE, job=JobId(2), ok=False, detail="disabled"))
    assert node.told()[2][0] == "fail"
    assert "disabled" in node.verdicts()[ref(2)].reason


def test_a_requeue_that_is_not_possible_fails_at_once() -> None:
    node = Node()
    hello(node, 2, resumed=True)
    node.do(ev.JobKnown(job=JobId(2), batch=False, requeueable=True))
    node.do(ev.Spilled(ref=ref(2), seq=7))
    assert node.told()[2][0] == "fail"
    assert "not a batch job" in node.verdicts()[ref(2)].reason


def test_no_retries_are_not_called_used() -> None:
    node = Node()
    guilty, other = node.task(1), node.task(2, batch=False)
    node.state = replace(
        node.state, tasks={**node.state.tasks, other: replace(node.state.tasks[other], options=JobOptions(retries=0))}
    )
    node.culprit(guilty)
    assert "standby: --mps-retries=0" in node.verdicts()[other].reason


def test_a_process_that_slurm_has_ended_is_not_recovered() -> None:
    node = Node()
    guilty, other = node.task(1), node.task(2, ready=False)
    node.culprit(guilty)
    assert node.told()[2][0] == "restore"
    node.do(ev.Started(ref=other, role=ev.Role.ACTIVE, pid=pid(other) + 5, color=Color("b")))
    gone = ev.Exited(ref=other, role=ev.Role.ACTIVE, pid=pid(other) + 5, status=15)
    node.do(replace(gone, told=True))
    assert node.verdicts() == {}
    assert node.journal("recovery.failed") == []


def test_the_daemon_is_not_asked_while_the_verdict_is_due() -> None:
    node = Node()
    guilty = node.task(1)
    node.cuda(guilty)
    assert node.of(fx.Poll) == []
    assert [poll.server for poll in node.of(fx.Poll, node.wait(0.03))][:1] == [server("a")]
