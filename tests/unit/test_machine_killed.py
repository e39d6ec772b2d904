"""A client that was killed without terminate_client: what its neighbours suffer next is put down to it, and not to one of them."""

import pytest

from resilience.model import event as ev
from resilience.model.ids import TaskRef
from tests.unit.machine_kit import Node, pid, server

KILLED = 9


def clients(node: Node) -> tuple[TaskRef, TaskRef]:
    """Two tasks whose processes are clients of server a."""
    made = node.task(1), node.task(2)
    for one in made:
        node.do(ev.OnServer(ref=one, server=server("a"), on=True))
    return made


def kill(node: Node, who: TaskRef) -> None:
    node.do(ev.Exited(ref=who, role=ev.Role.ACTIVE, pid=pid(who), status=KILLED))


@pytest.mark.parametrize("how", ["process", "with its supervisor"])
def test_the_neighbours_first_harm_is_put_down_to_it(how: str) -> None:
    node = Node()
    killed, neighbour = clients(node)
    if how == "process":
        kill(node, killed)
    else:  # Slurm's SIGKILL goes to both
        node.do(ev.Gone(ref=killed))
    assert [one["pid"] for one in node.journal("client.killed_busy")] == [pid(killed)]
    node.wait(1)
    node.cuda(neighbour, 719)
    told = node.told(node.wait(0.2)) or node.told()
    assert told == {2: ("promote", "bystander", "b")}
    reasons = [one["why"] for one in node.journal("incident.attributed")]
    assert "killed with work in flight 1." in str(reasons)


def test_later_harm_has_other_reasons() -> None:
    node = Node()
    killed, neighbour = clients(node)
    kill(node, killed)
    node.wait(11)
    node.cuda(neighbour, 719)
    assert node.told() == {2: ("fail", "culprit", "")}


def test_who_is_named_by_the_server_did_it_all_the_same() -> None:
    node = Node()
    killed, neighbour = clients(node)
    kill(node, killed)
    node.culprit(neighbour)
    told = node.told(node.wait(0.2)) or node.told()
    assert told == {2: ("fail", "culprit", "")}


@pytest.mark.parametrize("why", ["idle", "ended first", "ended by a verdict", "another signal", "exit"])
def test_who_was_no_client_or_was_ended_first_hurts_nobody(why: str) -> None:
    node = Node()
    killed = node.task(1)
    node.task(2)
    if why != "idle":
        node.do(ev.OnServer(ref=killed, server=server("a"), on=True))
    if why == "ended first":
        node.do(ev.OnServer(ref=killed, server=server("a"), on=False))
    node.do(ev.OnServer(ref=killed, server=server("b"), on=True))  # its standby
    status = {"another signal": 15, "exit": 9 << 8}.get(why, KILLED)
    ours = why == "ended by a verdict"
    node.do(ev.Exited(ref=killed, role=ev.Role.ACTIVE, pid=pid(killed), status=status, ours=ours))
    node.do(ev.Gone(ref=killed))
    assert node.journal("client.killed_busy") == []


def test_a_task_that_ended_well_hurts_nobody() -> None:
    node = Node()
    done = node.task(1)
    node.do(ev.OnServer(ref=done, server=server("a"), on=True))
    node.do(ev.Exited(ref=done, role=ev.Role.ACTIVE, pid=pid(done), status=0))
    node.do(ev.Gone(ref=done))
    assert node.journal("client.killed_busy") == []
