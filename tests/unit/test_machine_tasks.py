"""Tasks that come, leave and come back while incidents run."""

from dataclasses import replace

from resilience.model import effect as fx
from resilience.model import event as ev
from resilience.model.ids import JobId
from resilience.model.world import ServerState
from tests.unit.machine_kit import DOMAIN, GPU, Node, lease, pid, ref, server


def test_hello_is_answered_with_a_server_and_a_spare() -> None:
    node = Node()
    node.task(1)
    (place,) = node.of(fx.Place, node.log)
    assert (place.server, place.standby) == (server("a"), server("b"))
    assert node.of(fx.LookUpJob, node.log) == [fx.LookUpJob(job=JobId(1))]
    assert [one.server for one in node.of(fx.Watch, node.log)] == [server("a"), server("b")]


def test_a_failure_is_not_answered_to_the_task_that_comes_after() -> None:
    """A supervisor whose task failed before it was said to have started has gone; its successor hears nothing of that."""
    node = Node()
    hello = ev.Hello(
        ref=ref(1), lease=lease(1), server=server("a"), mpi=False, resumed=False, retries=0, active=0, session=False
    )
    node.do(hello)
    node.do(ev.Exited(ref=ref(1), role=ev.Role.ACTIVE, pid=0, status=9))
    node.do(ev.Gone(ref=ref(1)))
    node.do(hello)
    assert node.verdicts(node.wait(60)) == {}


def test_a_task_that_died_mute_waits_for_what_a_neighbour_has_seen() -> None:
    """It died just before the first sighting, and that the server is hit is known after `settle_ms` only."""
    node = Node()
    mute, other = node.task(1), node.task(2)
    node.exit(mute)
    node.sight("a", ServerState.ACTIVE)
    node.wait(0.013)
    node.cuda(other)
    assert node.told(node.wait(0.025)) == {}
    node.handling()
    assert node.told(node.wait(0.1)) == {1: ("promote", "suspect", "b")}  # the neighbour waits for a server of its own


def test_a_task_that_died_of_itself_beside_a_fault_that_spared_it_is_not_held_for_long() -> None:
    node = Node()
    own, other = node.task(1), node.task(2)
    node.exit(own)
    node.sight("a", ServerState.ACTIVE)
    node.cuda(other)
    node.sight("a", ServerState.ACTIVE)
    assert node.told(node.wait(0.2))[1] == ("none", "unknown", "")


def test_a_wired_task_that_is_no_rank_of_mpi_has_its_standby_and_every_rung() -> None:
    node = Node()
    guilty, wired = node.task(1), node.task(2, mpi=True)
    effects = node.do(ev.RanksKnown(ref=wired, mpi=False))
    assert node.of(fx.StartStandby, effects) == [fx.StartStandby(ref=wired, server=server("b"))]
    assert node.of(fx.StartStandby, node.do(ev.RanksKnown(ref=wired, mpi=False))) == []
    node.standby(wired, "b")
    node.culprit(guilty)
    assert node.told()[2][0] == "promote"


def test_a_task_that_is_seen_to_be_a_rank_of_mpi_comes_back_with_its_job_only() -> None:
    node = Node()
    guilty, rank = node.task(1), node.task(2)
    node.do(ev.RanksKnown(ref=rank, mpi=True))
    assert node.state.tasks[rank].standby_server is None
    node.culprit(guilty)
    assert node.told()[2][0] == "requeue"


def test_a_resumed_task_keeps_its_server() -> None:
    node = Node()
    hello = ev.Hello(
        ref=ref(1), lease=lease(1), server=server("q3"), mpi=False, resumed=True, retries=1, active=5, session=True
    )
    node.do(hello)
    task = node.state.tasks[ref(1)]
    assert (task.server, task.active, task.retries, task.session) == (server("q3"), 5, 1, True)
    assert node.state.pairs[DOMAIN, GPU].quarantines == 3


def test_another_task_of_the_same_name_has_nothing_to_do_with_the_fault() -> None:
    node = Node()
    gone = node.task(1)
    other = node.task(2)
    node.cuda(gone, 810)
    node.do(ev.Gone(ref=gone))
    node.task(1)
    told = node.told([*node.cuda(other, 700), *node.wait(0.2)])
    assert 1 not in told


def test_a_supervisor_that_came_back_is_told_again() -> None:
    node = Node()
    guilty = node.task(1, colors=("a",))
    other = node.task(2, colors=("a",))
    node.culprit(guilty)
    node.cuda(other, 700)
    node.do(ev.Gone(ref=other))
    resumed = ev.Hello(
        ref=other,
        lease=lease(2, colors=("a",)),
        server=server("a"),
        mpi=False,
        resumed=True,
        retries=0,
        active=pid(other),
        session=True,
    )
    node.do(resumed)
    node.cuda(other, 700)
    node.do(ev.ServerOpened(server=server("a"), ok=True, detail=""))
    assert node.told() == {2: ("restore", "bystander", "a")}


def test_a_task_that_comes_while_no_server_is_up_is_placed_later() -> None:
    node = Node()
    guilty = node.task(1, colors=("a",))
    node.culprit(guilty)
    hello = ev.Hello(
        ref=ref(2),
        lease=lease(2, colors=("a",)),
        server=server("a"),
        mpi=False,
        resumed=False,
        retries=0,
        active=0,
        session=False,
    )
    assert not node.of(fx.Place, node.do(hello))
    effects = node.rebuilt("a")
    assert [(one.ref, one.server) for one in node.of(fx.Place, effects)] == [(ref(2), server("a"))]


def test_a_standby_that_ends_is_started_again_a_few_times() -> None:
    node = Node()
    who = node.task(1)
    for number in range(1, 8):
        node.exit(who, 9, number, ev.Role.STANDBY)
        effects = node.wait(40)
        offered = node.of(fx.StartStandby, effects)
        assert len(offered) == (1 if number <= 5 else 0), number
        node.standby(who, "b", number + 1)


def test_everything_is_forgotten_when_the_last_task_leaves() -> None:
    node = Node()
    who = node.task(1)
    node.culprit(who)
    effects = node.do(ev.Gone(ref=who))
    assert {one.server.color for one in node.of(fx.Unwatch, effects)} == {"a", "b"}
    assert (node.state.tasks, node.state.pairs, node.state.jobs) == ({}, {}, {})
    node.wait(60)
    assert not node.state.incidents


def test_a_task_that_comes_back_after_the_incident_began_gets_its_verdict() -> None:
    node = Node()
    node.state = replace(node.state, complete=node.now + 2.5)
    first = node.task(1)
    node.cuda(first, 715)
    node.task(2)
    node.cuda(ref(2), 715)
    node.wait(0.2)
    assert {row["task"] for row in node.journal("verdict")} == {"1.0.0", "2.0.0"}
