"""The servers of a pair: after a fault they swap, come back or are replaced; without a daemon they take nobody more."""

from dataclasses import replace

from resilience.model import effect as fx
from resilience.model import event as ev
from resilience.model.ids import Color
from resilience.model.observation import Source, What
from resilience.model.settings import MpsSettings
from resilience.model.world import Health, ServerState
from tests.unit.machine_kit import DOMAIN, GPU, Node, lease, newest_incident, ref, server


# ---------------------------------------------------------------- after a fault
def test_colours_swap_and_standbys_come_back_after_the_rebuild() -> None:
    node = Node()
    guilty, other = node.task(1), node.task(2)
    node.culprit(guilty)
    node.xid(31, guilty)
    node.do(ev.Stepped(ref=other, incident=newest_incident(node), seq=3, ms=1.0))
    node.do(ev.Gone(ref=guilty))
    assert node.state.incidents, "open until the server is back"
    effects = node.rebuilt("a")
    assert node.of(fx.StartStandby, effects) == [fx.StartStandby(ref=other, server=server("a"))]
    assert not node.state.incidents
    assert node.journal("server.rebuilt")
    node.standby(other, "a", 2)
    late = node.task(3)
    placed = [one for one in node.of(fx.Place, node.log) if one.ref == late]
    assert placed[0].server == server("b")
    node.culprit(late, "b")
    assert node.told()[2] == ("promote", "bystander", "a")


def test_a_server_that_does_not_recover_is_replaced() -> None:
    node = Node()
    guilty, other = node.task(1), node.task(2)
    node.culprit(guilty)
    node.do(ev.Stepped(ref=other, incident=newest_incident(node), seq=3, ms=1.0))
    node.sight("a", ServerState.FAULT)
    effects = node.wait(10.1)
    assert [(one.server, one.anew) for one in node.of(fx.Open, effects)] == [(server("a"), True)]
    node.do(ev.ServerOpened(server=server("a"), ok=True, detail=""))
    assert node.of(fx.StartStandby) == [fx.StartStandby(ref=other, server=server("a"))]


def test_an_answer_from_before_the_fault_proves_nothing() -> None:
    node = Node()
    guilty = node.task(1)
    node.task(2)
    asked = node.now
    node.now += 0.001
    node.culprit(guilty)
    node.do(ev.ServerSeen(server=server("a"), sight=ServerState.FAULT, asked=node.now))
    node.do(ev.ServerSeen(server=server("a"), sight=ServerState.ACTIVE, asked=asked))
    assert node.state.pairs[DOMAIN, GPU].health(Color("a")) is Health.FAULTED


def test_with_one_colour_tasks_wait_for_the_same_server() -> None:
    node = Node()
    guilty = node.task(1, colors=("a",))
    node.task(2, colors=("a",))
    node.culprit(guilty)
    node.xid(31, guilty)
    assert 2 not in node.told()
    node.do(ev.Gone(ref=guilty))
    assert node.told(node.rebuilt("a")) == {2: ("restore", "bystander", "a")}


def test_with_one_colour_a_waiting_program_has_its_dead_server_replaced_at_once() -> None:
    node = Node()
    guilty, other = node.task(1, colors=("a",)), node.task(2, colors=("a",))
    node.culprit(guilty)
    assert not node.of(fx.Open)
    effects = node.cuda(other, 700)
    assert [(one.server, one.anew) for one in node.of(fx.Open, effects)] == [(server("a"), True)]
    node.do(ev.ServerOpened(server=server("a"), ok=True, detail=""))
    assert node.told() == {2: ("restore", "bystander", "a")}


# ---------------------------------------------------------------- a control daemon's death
def _daemon_gone(node: Node, color: str) -> None:
    node.see(What.DAEMON_GONE, source=Source.PROCESS, color=color)


def _newcomer(node: Node) -> None:
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
    node.do(hello)


def test_tasks_of_a_server_without_a_daemon_go_on_and_newcomers_go_elsewhere() -> None:
    node = Node()
    first = node.task(1)
    _daemon_gone(node, "a")
    assert node.told() == {}
    assert node.of(fx.Open) == []
    assert node.of(fx.SetActive) == [fx.SetActive(server=server("b"))]
    node.task(2)
    assert node.state.tasks[ref(2)].server == server("b")
    node.do(ev.Gone(ref=first))
    assert [one.server for one in node.of(fx.Open)] == [server("a")]
    node.do(ev.ServerOpened(server=server("a"), ok=True, detail=""))
    assert node.state.pairs[DOMAIN, GPU].health(Color("a")) is Health.UP


def test_a_fault_on_a_server_without_a_daemon_is_recovered_like_any_other() -> None:
    node = Node()
    guilty, _ = node.task(1), node.task(2)
    _daemon_gone(node, "a")
    node.culprit(guilty)
    assert node.told()[2] == ("promote", "bystander", "b")


def test_a_standby_on_a_server_without_a_daemon_still_takes_over() -> None:
    node = Node()
    guilty, other = node.task(1), node.task(2)
    node.task(3)
    node.state = replace(
        node.state, tasks={**node.state.tasks, ref(3): replace(node.state.tasks[ref(3)], server=server("b"))}
    )
    _daemon_gone(node, "b")
    assert node.state.pairs[DOMAIN, GPU].health(Color("b")) is Health.CLOSED
    node.culprit(guilty)
    assert node.told()[other.job] == ("promote", "bystander", "b")


def test_a_domain_with_one_server_gets_another_when_its_daemon_is_gone() -> None:
    node = Node()
    node.task(1, colors=("a",))
    _daemon_gone(node, "a")
    assert [one.server for one in node.of(fx.Open)] == [server("b")]
    _newcomer(node)
    assert node.of(fx.Place) == []
    node.do(ev.ServerOpened(server=server("b"), ok=True, detail=""))
    assert [(one.ref, one.server) for one in node.of(fx.Place)] == [(ref(2), server("b"))]


def test_where_a_gpu_takes_one_server_newcomers_are_refused_instead() -> None:
    node = Node(mps=MpsSettings(compute_mode="exclusive"))
    node.task(1, colors=("a",))
    _daemon_gone(node, "a")
    assert node.of(fx.Open) == []
    _newcomer(node)
    assert [one.ref for one in node.of(fx.Refuse)] == [ref(2)]


def test_a_process_that_could_not_join_for_want_of_a_daemon_is_started_elsewhere() -> None:
    node = Node()
    late, _ = node.task(1, session=False, ready=False), node.task(2)
    _daemon_gone(node, "a")
    node.exit(late, status=3 << 8)
    assert node.told() == {1: ("relaunch", "bystander", "b")}


def test_a_daemon_that_the_epilog_ends_is_not_started_again() -> None:
    node = Node()
    last = node.task(1)
    node.exit(last, status=0)
    _daemon_gone(node, "b")
    _daemon_gone(node, "a")
    assert node.of(fx.Open, node.log) == []


def test_a_daemon_that_dies_as_the_first_task_comes_is_started_anew() -> None:
    """Both did, between the look at them and the hello: nobody is sent to a server that takes no clients."""
    node = Node()
    node.do(ev.JobOpened(lease=lease(2), active=((GPU, Color("a")),)))
    _daemon_gone(node, "b")
    _daemon_gone(node, "a")
    assert node.of(fx.Open, node.log) == []
    _newcomer(node)
    assert {(one.server, one.anew) for one in node.of(fx.Open)} == {(server("a"), True), (server("b"), True)}
    assert node.of(fx.Place, node.log) == []
    assert node.of(fx.Refuse, node.log) == []
    node.do(ev.ServerOpened(server=server("b"), ok=True, detail=""))
    assert [(one.ref, one.server) for one in node.of(fx.Place)] == [(ref(2), server("b"))]
