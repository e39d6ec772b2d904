"""What opens an incident and who is blamed for it: the one who is named, the only one left, or nobody."""

from dataclasses import replace

import pytest

from resilience.model import effect as fx
from resilience.model import event as ev
from resilience.model.ids import Color, JobId
from resilience.model.observation import Client, Source, What
from resilience.model.world import ServerState
from tests.unit.machine_kit import Node, newest_incident, pid, server


def test_the_culprit_is_told_after_the_wait_even_without_an_xid() -> None:
    node = Node()
    guilty = node.task(1)
    node.task(2)
    node.culprit(guilty)
    assert node.told(node.wait(0.099)) == {}
    assert node.told(node.wait(0.002)) == {1: ("fail", "culprit", "")}


def test_a_name_from_the_kernel_log_does_not_hide_the_certain_one_from_the_servers_log() -> None:
    node = Node()
    guilty, _ = node.task(1), node.task(2)
    node.xid(31, guilty)
    assert node.told() == {}
    node.culprit(guilty)
    assert node.told() == {1: ("fail", "culprit", ""), 2: ("promote", "bystander", "b")}


def test_a_memory_error_makes_the_named_process_a_victim() -> None:
    node = Node()
    named = node.task(1)
    node.task(2)
    node.culprit(named)
    node.xid(94, named)
    assert node.told() == {1: ("promote", "bystander", "b")}


def test_the_only_client_is_the_culprit() -> None:
    node = Node()
    only = node.task(1)
    node.cuda(only, 716)
    assert node.told() == {1: ("fail", "culprit", "")}
    assert "misaligned address, CUDA 716" in node.verdicts()[only].reason


def test_a_stranger_is_named_and_every_task_is_a_bystander() -> None:
    node = Node()
    node.task(1)
    node.task(2)
    node.see(What.CULPRIT, color="a", client=Client(pid=77, job=JobId(9)))
    assert {job: told[:2] for job, told in node.told().items()} == dict.fromkeys((1, 2), ("promote", "bystander"))


def test_an_xid_with_a_pid_names_the_culprit_after_the_wait() -> None:
    node = Node()
    guilty = node.task(1)
    node.task(2)
    node.handling()
    node.xid(13, guilty)
    assert node.told() == {}
    told = node.told(node.wait(0.11))
    assert told == {1: ("fail", "culprit", ""), 2: ("promote", "bystander", "b")}


def test_nobody_named_splits_the_suspects_until_one_is_left() -> None:
    node = Node()
    tasks = [node.task(job) for job in (1, 2, 3, 4)]
    node.handling()
    effects = node.wait(0.11)
    told = node.told(effects)
    assert told == {1: ("promote", "suspect", "b"), 2: ("promote", "suspect", "b")}
    assert [one.server for one in node.of(fx.Open, effects)] == [server("q1")]
    node.do(ev.ServerOpened(server=server("q1"), ok=True, detail=""))
    assert node.told() == {3: ("restore", "suspect", "q1"), 4: ("restore", "suspect", "q1")}
    for who in tasks:
        node.do(ev.Started(ref=who, role=ev.Role.ACTIVE, pid=pid(who) + 7, color=Color("b" if who.job < 3 else "q1")))
        node.do(ev.SessionOpened(ref=who, role=ev.Role.ACTIVE, pid=pid(who) + 7))
        node.do(ev.Stepped(ref=who, incident=newest_incident(node), seq=1, ms=1.0))
    node.rebuilt("a")
    assert not node.state.incidents
    # the second fault, again without a name, on the quarantine server: two suspects are left
    node.now += 5
    node.handling("q1")
    effects = node.wait(0.11)
    assert 1 not in node.told(effects)
    assert 2 not in node.told(effects)
    opened = [one.server.color for one in node.of(fx.Open, effects)]
    assert opened == ["q2"], "the other half goes to the colour where nobody runs"
    for color in opened:
        node.do(ev.ServerOpened(server=server(color), ok=True, detail=""))
    where = {who.job: node.state.tasks[who].server.color for who in tasks}
    assert where == {1: "b", 2: "b", 3: "a", 4: "q2"}
    # the third fault hits one alone: it is the culprit
    node.now += 5
    node.handling("q2")
    node.wait(0.11)
    assert node.told([one for one in node.log if isinstance(one, fx.Verdict)][-1:]) == {4: ("fail", "culprit", "")}


def test_a_fault_on_the_spare_touches_no_task() -> None:
    node = Node()
    first = node.task(1)
    second = node.task(2)
    effects = [*node.handling("b"), *node.wait(0.2)]
    assert not node.verdicts(effects)
    effects = node.rebuilt("b")
    assert {one.ref for one in node.of(fx.StartStandby, effects)} == {first, second}


def test_a_dead_server_blames_nobody() -> None:
    node = Node()
    node.task(1)
    node.task(2)
    node.see(What.SERVER_GONE, source=Source.CONTROL_LOG, color="a")
    assert node.told() == dict.fromkeys((1, 2), ("promote", "bystander", "b"))


def test_a_failure_without_a_fault_passes_on() -> None:
    node = Node()
    who = node.task(1)
    node.task(2)
    node.exit(who)
    node.sight("a", ServerState.ACTIVE)
    assert node.told(node.wait(0.031)) == {1: ("none", "unknown", "")}
    assert not node.state.incidents


def test_a_slow_daemon_is_waited_for_within_bounds() -> None:
    node = Node()
    who = node.task(1)
    node.exit(who)
    assert node.told(node.wait(0.5)) == {}
    assert node.told(node.wait(0.2)) == {1: ("none", "unknown", "")}


def test_a_failure_before_the_news_gets_its_verdict_by_part() -> None:
    node = Node()
    guilty, other = node.task(1), node.task(2)
    node.exit(other)
    node.culprit(guilty)
    assert node.told() == {2: ("promote", "bystander", "b")}
    assert node.told(node.wait(1)) == {1: ("fail", "culprit", "")}


def test_a_failure_seen_only_in_the_servers_state() -> None:
    node = Node()
    who = node.task(1)
    node.task(2)
    node.exit(who)
    node.sight("a", ServerState.FAULT)
    effects = node.wait(0.11)
    assert node.told(effects) == {1: ("promote", "suspect", "b")}
    assert [one.server for one in node.of(fx.Open, effects)] == [server("q1")]


def test_a_named_culprit_that_has_failed_is_not_passed_on_while_its_verdict_waits() -> None:
    node = Node()
    only = node.task(1)
    node.exit(only)
    node.sight("a", ServerState.FAULT)
    assert node.told(node.wait(0.2)) == {1: ("fail", "culprit", "")}


def test_a_second_fault_on_the_rebuilt_server_is_a_second_incident() -> None:
    node = Node()
    guilty = node.task(1, colors=("a",))
    other = node.task(2, colors=("a",))
    node.culprit(guilty)
    node.xid(31, guilty)
    node.do(ev.Gone(ref=guilty))
    node.now += 0.05
    node.rebuilt("a")
    node.do(ev.Started(ref=other, role=ev.Role.ACTIVE, pid=pid(other) + 5, color=Color("a")))
    third = node.task(3, colors=("a",))
    node.now += 0.05
    node.culprit(third)
    assert len(node.journal("incident.opened")) == 2


def test_late_words_of_the_old_process_open_nothing() -> None:
    node = Node()
    guilty, other = node.task(1), node.task(2)
    node.culprit(guilty)
    node.xid(31, guilty)
    node.do(ev.Stepped(ref=other, incident=newest_incident(node), seq=1, ms=1.0))
    node.rebuilt("a")
    node.now += 3
    effects = [*node.cuda(other, 700), *node.exit(other, 9), *node.xid(31, guilty)]
    assert len(node.journal("incident.opened")) == 1
    assert not node.verdicts(effects)


def test_nobody_is_blamed_by_elimination_before_everyone_is_known() -> None:
    node = Node()
    node.state = replace(node.state, complete=node.now + 2.5)
    only = node.task(1)
    node.cuda(only, 715)
    node.wait(0.2)
    assert [row["culprit"] for row in node.journal("incident.attributed")] == [None]
    assert node.state.tasks[only].over is False


def test_what_a_dead_standby_says_of_its_fault_is_not_about_the_task_that_left_its_server() -> None:
    node = Node()
    guilty, other = node.task(1), node.task(2, ready=False)
    node.standby(other, "a", 2)  # on the server that will be hit
    node.culprit(guilty)
    assert node.told()[2] == ("restore", "bystander", "b")
    node.cuda(other, 719, 2)
    assert len(node.journal("incident.opened")) == 1


# ---------------------------------------------------------------- a program's word
def test_a_programs_word_for_hardware_does_not_hide_whom_the_log_names() -> None:
    node = Node()
    guilty, liar = node.task(1), node.task(2)
    node.cuda(liar, 214)
    assert node.told() == {2: ("promote", "bystander", "b")}
    node.culprit(guilty)
    node.xid(31, guilty)
    assert node.told([*node.log, *node.wait(0.2)])[1] == ("fail", "culprit", "")
    assert "illegal address" in node.verdicts(node.log)[guilty].reason
    assert node.journal("incident.attributed")[-1]["culprit"] == "job 1 step 0 task 0"


@pytest.mark.parametrize("driver", ["log", "kernel"])
def test_one_who_says_that_it_is_hardware_and_then_does_it_is_the_culprit(driver: str) -> None:
    node = Node()
    guilty, _ = node.task(1), node.task(2)
    node.cuda(guilty, 214)
    if driver == "log":
        node.culprit(guilty)
    else:
        node.handling()
        node.xid(31, guilty)
    effects = [*node.log, *node.wait(0.2)]
    assert node.told(effects) == {1: ("fail", "culprit", ""), 2: ("promote", "bystander", "b")}


def test_a_programs_word_excuses_nobody_of_a_server_that_is_hit() -> None:
    node = Node()
    liar, _ = node.task(1), node.task(2)
    node.handling()
    node.cuda(liar, 214)
    node.wait(0.2)
    assert node.journal("incident.attributed")[-1]["suspects"] == ["1.0.0", "2.0.0"]


def test_the_drivers_word_for_hardware_excuses_everyone_whatever_programs_say() -> None:
    node = Node()
    named, other = node.task(1), node.task(2)
    node.culprit(named)
    node.xid(94, named)
    node.cuda(other, 700)
    node.wait(0.2)
    assert {one.part.value for one in node.verdicts(node.log).values()} == {"bystander"}
