"""Programs that fault again and again: they hurt their owner's other jobs so many times, and then nobody's."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from resilience.adapters.linux.strike_file import StrikeFile
from resilience.model import effect as fx
from resilience.model import event as ev
from resilience.model.errors import ResilienceError
from resilience.model.ids import TaskRef
from resilience.model.options import Domain
from resilience.model.settings import Recovery
from resilience.model.world import Strike
from tests.unit.machine_kit import Node, lease, pid, ref, server

BUG, FINE = "0123456789abcdef", "fedcba9876543210"
FEW = Recovery(strikes=3, strikes_refuse=5, strikes_window=3600.0)


def node(recovery: Recovery = FEW) -> Node:
    made = Node()
    made.state = replace(made.state, recovery=recovery)
    return made


def hello(node: Node, job: int, program: str = BUG, *, uid: int = 1001, shared: bool = False) -> TaskRef:
    """A task that has said hello, and runs when it was placed."""
    who, held = ref(job), replace(lease(job, domain=Domain.SHARED if shared else Domain.USER), uid=uid)
    node.do(
        ev.Hello(
            ref=who, lease=held, server=server("a"), mpi=False, resumed=False, retries=0, active=0, session=False,
            program=program,
        )
    )  # fmt: skip
    effects = list(node.last)
    for opened in node.of(fx.Open, effects):
        effects += node.do(ev.ServerOpened(server=opened.server, ok=True, detail=""))
    if placed := node.of(fx.Place, effects):
        node.do(ev.JobKnown(job=who.job, batch=True, requeueable=True))
        node.do(ev.Started(ref=who, role=ev.Role.ACTIVE, pid=pid(who), color=placed[0].server.color))
    node.last = tuple(effects)
    return who


def color(node: Node, job: int, program: str = BUG) -> str:
    """Where a new task is put."""
    who = hello(node, job, program)
    return node.state.tasks[who].server.color


def faults(node: Node, who: TaskRef, address: int | None = None) -> None:
    """It makes a fault, dies of it, and its server is rebuilt."""
    there = node.state.tasks[who].server.color
    node.xid(31, who, address=address)
    node.culprit(who, there)
    node.exit(who)
    node.do(ev.Gone(ref=who))
    node.rebuilt(there)
    node.wait(3)


def test_an_array_of_faulty_tasks_hurts_its_owners_other_jobs_so_many_times() -> None:
    here = node()
    victim = hello(here, 1, FINE)
    refused = 0
    for number in range(2, 1002):
        who = hello(here, number)
        if here.of(fx.Refuse):
            refused += 1
            continue
        faults(here, who)
        there = here.state.tasks[victim].server.color
        here.do(ev.Started(ref=victim, role=ev.Role.ACTIVE, pid=pid(victim) + number, color=there))
    assert len(here.journal("recovered")) == FEW.strikes
    assert len(here.journal("strike.given")) == FEW.strikes_refuse
    assert refused == 1000 - FEW.strikes_refuse
    assert {row["action"] for row in here.journal("strikes.applied")} == {"apart", "refused"}
    assert here.state.tasks[victim].retries == FEW.strikes


def test_tasks_that_run_already_are_put_apart_with_the_fault_that_is_one_too_many() -> None:
    here = node()
    victim, later = hello(here, 1, FINE), hello(here, 2)
    for number in (3, 4):
        faults(here, hello(here, number))
        for who in (victim, later):
            place = here.state.tasks[who].server.color
            here.do(ev.Started(ref=who, role=ev.Role.ACTIVE, pid=pid(who) + number, color=place))
    who = hello(here, 5)
    there = here.state.tasks[who].server.color
    here.culprit(who, there)
    (opened,) = here.of(fx.Open, here.log)[-1:]
    assert opened.server.color == "q1"
    here.do(ev.ServerOpened(server=opened.server, ok=True, detail=""))
    assert here.state.tasks[later].server.color == "q1"
    assert here.state.tasks[victim].server.color in ("a", "b")


def test_another_users_or_another_program_is_not_held_to_it() -> None:
    here = node()
    for number in range(1, 4):
        faults(here, hello(here, number))
    for who in (hello(here, 11, FINE), hello(here, 12, uid=1002), hello(here, 13, "")):
        assert here.state.tasks[who].server.color in ("a", "b")
    assert color(here, 14).startswith("q")


def test_time_forgives() -> None:
    here = node()
    for number in range(1, 6):
        faults(here, hello(here, number))
    hello(here, 11)
    (refused,) = here.of(fx.Refuse)
    assert "has caused 5 GPU faults on this node within 1 h, the last as 5.0.0" in refused.reason
    here.wait(FEW.strikes_window)
    assert color(here, 12) in ("a", "b")


@pytest.mark.parametrize("strikes", [Recovery(), replace(FEW, strikes=0, strikes_refuse=7)])
def test_a_site_chooses(strikes: Recovery) -> None:
    here = node(strikes)
    for number in range(1, 6):
        faults(here, hello(here, number))
    who = hello(here, 11)
    assert here.of(fx.Refuse) == []
    assert here.state.tasks[who].server.color in ("a", "b")


def test_observing_does_nothing() -> None:
    here = node(replace(FEW, mode="observe"))
    for number in range(1, 7):
        faults(here, hello(here, number))
    assert color(here, 11) in ("a", "b")
    assert here.of(fx.Refuse, here.log) == []


# ---------------------------------------------------------------- the driver's own faults
def test_one_address_over_different_programs_is_the_drivers_fault() -> None:
    here = node()
    faults(here, hello(here, 1), 0x7F29_5B8C_9000)
    faults(here, hello(here, 2), 0x7F29_5B8C_9000)
    assert len(here.state.history.strikes) == 2, "one program, one address: its own"
    faults(here, hello(here, 3, FINE), 0x7F29_5B8C_9000)
    assert not here.state.history.strikes
    assert len(here.journal("strike.taken")) == 2
    assert "the driver's own fault" in str(here.journal("strike.taken")[0]["reason"])


def test_where_servers_are_shared_a_user_does_not_shed_strikes_with_two_programs() -> None:
    here = node()
    faults(here, hello(here, 1, shared=True), 0x7F29_5B8C_9000)
    faults(here, hello(here, 2, FINE, shared=True), 0x7F29_5B8C_9000)
    assert len(here.state.history.strikes) == 2
    faults(here, hello(here, 3, uid=1002, shared=True), 0x7F29_5B8C_9000)
    assert not here.state.history.strikes


def test_null_pointers_are_everybodys() -> None:
    here = node()
    faults(here, hello(here, 1), 0x10)
    faults(here, hello(here, 2, FINE), 0x10)
    assert len(here.state.history.strikes) == 2


def test_the_address_may_come_after_the_name() -> None:
    here = node()
    faults(here, hello(here, 1), 0x7F29_5B8C_9000)
    who = hello(here, 2, FINE)
    there = here.state.tasks[who].server.color
    here.culprit(who, there)
    here.xid(31, who, address=0x7F29_5B8C_9000)
    here.exit(who)
    here.do(ev.Gone(ref=who))
    here.rebuilt(there)
    here.wait(3)
    assert not here.state.history.strikes


def test_what_turns_out_to_be_hardware_counts_for_nobody() -> None:
    here = node()
    who = hello(here, 1)
    here.culprit(who)
    assert len(here.state.history.strikes) == 1
    here.xid(79)
    here.exit(who)
    here.do(ev.Gone(ref=who))
    here.wait(5)
    assert not here.state.history.strikes


def test_a_programs_own_word_does_not_excuse_it() -> None:
    here = node()
    who = hello(here, 1)
    here.cuda(who, 214)
    here.culprit(who)
    here.exit(who)
    here.do(ev.Gone(ref=who))
    here.rebuilt("a")
    here.wait(5)
    assert len(here.state.history.strikes) == 1


def test_a_hang_is_a_programs() -> None:
    here = node()
    who = hello(here, 1)
    here.xid(109, who)
    here.culprit(who)
    assert len(here.state.history.strikes) == 1


# ---------------------------------------------------------------- kept
def _strike(at: float, program: str = BUG) -> Strike:
    return Strike(at=at, uid=1001, program=program, address=None, task="1.0.0", incident="x-1")


def test_they_survive_the_agent(tmp_path: Path) -> None:
    here, file = node(), StrikeFile(str(tmp_path / "strikes.json"))
    assert file.read() == ()
    for number in range(1, 4):
        faults(here, hello(here, number), 0x7F29_0000_0000)
    file.write(here.of(fx.KeepStrikes, here.log)[-1].strikes)
    assert (tmp_path / "strikes.json").stat().st_mode & 0o777 == 0o600
    new = node()
    new.state = replace(new.state, history=replace(new.state.history, strikes=file.read()))
    assert color(new, 11).startswith("q")


@pytest.mark.parametrize("text", ["", "{", "7", '[{"at": 1}]', '[{"at": true}]', "[" * 100_000, '[["at"]]'])
def test_a_file_that_is_none_counts_for_nobody(tmp_path: Path, text: str) -> None:
    path = tmp_path / "strikes.json"
    path.write_text(text)
    found: tuple[Strike, ...] = ()
    with suppress(ResilienceError):
        found = StrikeFile(str(path)).read()
    assert found == ()


def test_one_users_faults_push_out_nobody_elses() -> None:
    here = node(Recovery())
    old = tuple(_strike(1.79e9 + n / 1000, f"{n:016x}") for n in range(600))
    other = replace(_strike(1.79e9), uid=1002)
    here.state = replace(here.state, history=replace(here.state.history, strikes=(other, *old)))
    faults(here, hello(here, 1))
    kept = here.state.history.strikes
    assert other in kept
    assert len(kept) <= 258
