"""The ladder, the culprit's fate, the halves; the breaker and what is remembered."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience.machine import history
from resilience.machine.policy import Means, climb, culprit, split
from resilience.model.ids import TaskRef
from resilience.model.incident import Action
from resilience.model.options import JobOptions, OnCulprit, Rung
from resilience.model.records.journal import Entry, entry
from resilience.model.world import History, Task
from tests.unit.machine_kit import DOMAIN, GPU, ref, server


def _task(*, mpi: bool = False, session: bool = True, retries: int = 0, **options: object) -> Task:
    chosen = JobOptions(**options)  # type: ignore[arg-type]
    return Task(ref=ref(1), options=chosen, mpi=mpi, server=server("a"), session=session, retries=retries)


@pytest.mark.parametrize(("standby", "where", "requeue"), list(product(["", "no"], repeat=3)))
def test_the_fastest_open_rung_is_taken(standby: str, where: str, requeue: str) -> None:
    rung, reasons = climb(_task(), Means(standby=standby, server=where, requeue=requeue), (), False)
    expected = Rung.STANDBY if not standby else Rung.RESTORE if not where else Rung.REQUEUE if not requeue else None
    assert rung is expected
    assert len(reasons) == (len(Rung) if rung is None else list(Rung).index(rung))


def test_a_plain_program_is_relaunched() -> None:
    assert climb(_task(session=False), Means(standby="none ready"), (), False)[0] is Rung.RELAUNCH


def test_retries_close_what_is_in_place_but_not_within_an_incident() -> None:
    used = _task(retries=3)
    assert climb(used, Means(), (), False)[0] is Rung.REQUEUE
    assert climb(used, Means(), (Rung.STANDBY,), True)[0] is Rung.RESTORE


def test_mpi_has_requeue_only() -> None:
    assert climb(_task(mpi=True), Means(), (), False)[0] is Rung.REQUEUE
    assert climb(_task(mpi=True), Means(requeue="not a batch job"), (), False)[0] is None


def test_what_is_not_allowed_is_not_taken() -> None:
    only = _task(recover=(Rung.RESTORE,))
    assert climb(only, Means(), (), False)[0] is Rung.RESTORE
    rung, reasons = climb(only, Means(), (Rung.RESTORE,), True)
    assert rung is None
    assert "requeue: not in --mps-recover" in reasons


@pytest.mark.parametrize(
    ("wish", "mpi", "retries", "requeue", "action"),
    [
        (OnCulprit.FAIL, False, 0, "", Action.FAIL),
        (OnCulprit.QUARANTINE, False, 0, "", Action.QUARANTINE),
        (OnCulprit.QUARANTINE, True, 0, "", Action.FAIL),
        (OnCulprit.QUARANTINE, False, 3, "", Action.FAIL),
        (OnCulprit.REQUEUE, False, 3, "", Action.REQUEUE),
        (OnCulprit.REQUEUE, False, 0, "not a batch job", Action.FAIL),
    ],
)
def test_the_culprits_fate(wish: OnCulprit, mpi: bool, retries: int, requeue: str, action: Action) -> None:
    assert culprit(_task(mpi=mpi, retries=retries, on_culprit=wish), requeue)[0] is action


_REFS = st.sets(st.integers(1, 30).map(ref), min_size=1)


@given(_REFS, st.data())
def test_a_split_halves_and_loses_nobody(suspects: set[TaskRef], data: st.DataObject) -> None:
    ready = frozenset(data.draw(st.sets(st.sampled_from(sorted(suspects)))))
    first, second = split(suspects, ready, None)
    assert first | second == suspects
    assert not first & second
    assert 0 <= len(first) - len(second) <= 1
    assert not (second & ready and first - ready), "those who can be promoted come first"


@given(_REFS, st.data())
def test_one_that_evidence_points_at_goes_alone(suspects: set[TaskRef], data: st.DataObject) -> None:
    alone = data.draw(st.sampled_from(sorted(suspects)))
    assert split(suspects, frozenset(), alone) == (frozenset(suspects - {alone}), frozenset({alone}))


def test_the_breaker_counts_an_hour() -> None:
    past = History()
    for at in (0.0, 10.0):
        past = history.with_requeue(past, 1001, at)
    assert not history.may_requeue(past, 2, 1002, 20.0)
    assert history.may_requeue(past, 2, 1001, 3601.0)
    assert history.may_drain(past, 1, 20.0)
    assert not history.may_drain(history.with_drain(past, 20.0), 1, 30.0)
    assert not history.may_requeue(past, 0, 1001, 99999.0)


def said(**values: object) -> Entry:
    found = entry(values)
    assert found is not None
    return found


def asked(ask: str, mono: float, wall: float, **words: object) -> Entry:
    return said(event="slurm.intent", ask=ask, mono=mono, wall=wall, **words)


def test_a_new_agent_knows_what_the_last_one_asked_for() -> None:
    rows = [
        asked("requeue", 100.0, 50_100.0, uid=1001),  # more than an hour ago
        asked("requeue", 900.0, 50_900.0, uid=1001),
        asked("drain", 950.0, 50_950.0),
        asked("comment", 960.0, 50_960.0),
        asked("requeue", 990.0, 50_990.0),  # of an older version
        said(event="slurm.outcome", ask="requeue", mono=991.0, wall=50_991.0, uid=1001),
    ]
    for step in (0.0, 61.0, 3600.0, -3600.0, -80_000.0):
        past = history.recalled(rows, wall=54_000.0 + step, mono=4000.0)
        assert past == History(requeues=((900.0, 1001),), drains=(950.0,))


def started(boot: str, mono: float, wall: float) -> Entry:
    return said(event="agent.started", boot=boot, mono=mono, wall=wall)


def test_what_was_asked_for_before_the_last_boot_does_not_count() -> None:
    """Each clock alone could take these lines for ones of the last hour."""
    rows = [
        started("one", 3000.0, 50_000.0),
        asked("requeue", 3100.0, 50_100.0, uid=1),
        started("two", 3200.0, 50_200.0),
        asked("requeue", 3300.0, 50_300.0, uid=2),
        asked("drain", 3400.0, 40_000.0),  # the wall clock was stepped back
    ]
    assert history.recalled(rows, 50_500.0, 3500.0, "two") == History(requeues=((3300.0, 2),), drains=(3400.0,))
    assert history.recalled(rows, 50_500.0, 3500.0, "three") == History()
    assert history.recalled(rows, 5_000_000.0, 3500.0, "two") == History(requeues=((3300.0, 2),), drains=(3400.0,))


def test_a_monotonic_clock_that_began_again_is_another_boots() -> None:
    """The line that names the boot has gone with the last file."""
    rows = [asked("requeue", 9000.0, 50_000.0, uid=1), asked("requeue", 100.0, 50_100.0, uid=2)]
    assert history.recalled(rows, 50_200.0, 9100.0, "two") == History()
    assert history.recalled(rows, 50_200.0, 200.0, "two").requeues == ((100.0, 2),)
    late = [asked("requeue", 100.0, 50_100.0, uid=2), asked("drain", 99.0, 50_100.0)]  # written by two processes
    assert history.recalled(late, 50_200.0, 200.0, "two") == History(requeues=((100.0, 2),), drains=(99.0,))


@given(st.integers(0, 60), st.integers(0, 60))
def test_one_user_cannot_take_all_requeues_of_a_node(limit: int, tries: int) -> None:
    past = History()
    for at in range(tries):
        if history.may_requeue(past, limit, 1001, float(at)):
            past = history.with_requeue(past, 1001, float(at))
    assert len(past.requeues) == min(tries, limit - limit // 4)
    assert history.may_requeue(past, limit, 1002, 100.0) is (limit > len(past.requeues))


def test_suspicion_fades_and_is_cleared() -> None:
    past = history.with_suspicion(
        History(), DOMAIN, GPU, 0.0, clients=frozenset({ref(1), ref(2)}), suspects=frozenset({ref(1)})
    )
    assert history.suspicion(past, DOMAIN, GPU, 3599.0) is not None
    assert history.suspicion(past, DOMAIN, GPU, 3600.0) is None
    assert history.suspicion(history.cleared(past, DOMAIN, GPU), DOMAIN, GPU, 1.0) is None
