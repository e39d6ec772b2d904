"""The machine's safety rules under any order of events, and proof that breaking a rule is noticed.

A hypothesis state machine plays a hostile node: tasks come and go, every source says anything at any time, servers open
or fail, timers fire early or late. The rules are checked on what comes out, by a bookkeeping of their own that knows
only the events and the effects.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from resilience.machine import policy, recover, servers, verdicts
from resilience.machine.draft import Turn
from resilience.model.ids import Color, IncidentId, ServerId, TaskRef
from resilience.model.incident import Part
from resilience.model.observation import Client, Source, What
from resilience.model.options import OnCulprit, Rung
from resilience.model.world import ServerState
from tests.unit.machine_hostile import Hostile, Partitioned
from tests.unit.machine_kit import ref, server

_SETTINGS = settings(
    max_examples=250,
    stateful_step_count=40,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize("kind", [Hostile, Partitioned])
def test_no_order_of_events_breaks_a_rule(kind: type[Hostile]) -> None:
    run_state_machine_as_test(kind, settings=_SETTINGS)


# ---------------------------------------------------------------- the rules notice when they are broken
def _climb_too_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requeue although a faster rung is open."""

    def climb(task: object, means: policy.Means, tried: tuple[Rung, ...], counted: bool) -> object:
        return (Rung.REQUEUE, ()) if not means.requeue else (None, ("no",))

    monkeypatch.setattr(policy, "climb", climb)


def _culprit_beside_bystanders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Send the culprit to the spare instead of a quarantine server."""

    def spare(turn: Turn, near: ServerId) -> ServerId:
        return replace(near, color=Color("b" if near.color == "a" else "a"))

    monkeypatch.setattr(servers, "open_quarantine", spare)


def _everyone_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treat tasks of other servers as hit."""
    monkeypatch.setattr("resilience.machine.decide.look", _careless_look)


def _careless_look(turn: Turn, name: IncidentId) -> None:
    incident = turn.incidents.get(name)
    if incident is not None:
        for who in sorted(turn.tasks):
            if who not in turn.incidents[name].cases and not turn.tasks[who].over:
                recover.begin(turn, name, who, Part.BYSTANDER)


def _one_fate_for_all_partitions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treat a server with SM partitions as any other."""
    monkeypatch.setattr(servers, "partitioned", lambda turn, server: False)


def _two_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Say `fail` twice."""
    real = verdicts.fail

    def twice(turn: Turn, name: IncidentId, who: TaskRef, reason: str) -> None:
        real(turn, name, who, reason)
        real(turn, name, who, reason)

    monkeypatch.setattr(verdicts, "fail", twice)


def _into_the_quarantine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let bystanders go to any server that is up, a culprit's included."""
    real = servers.target

    def anywhere(turn: Turn, hit: ServerId, task: object, own: ServerId | None) -> tuple[ServerId | None, bool]:
        pair = turn.pairs[hit.domain, hit.gpu]
        for color in pair.servers:
            if color.startswith("q") and pair.health(color).value == "up":
                return pair.server(color), True
        return real(turn, hit, task, own)  # type: ignore[arg-type]

    monkeypatch.setattr(servers, "target", anywhere)


@pytest.mark.parametrize(
    "mutation",
    [_climb_too_soon, _culprit_beside_bystanders, _everyone_is_told, _two_last_words],
)
def test_breaking_a_rule_is_noticed(
    monkeypatch: pytest.MonkeyPatch, mutation: Callable[[pytest.MonkeyPatch], None]
) -> None:
    mutation(monkeypatch)
    quick = settings(_SETTINGS, max_examples=600, report_multiple_bugs=False, phases=(Phase.explicit, Phase.generate))
    with pytest.raises(AssertionError):
        run_state_machine_as_test(Hostile, settings=quick)


def test_a_fault_that_is_spread_over_partitions_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    _one_fate_for_all_partitions(monkeypatch)
    quick = settings(_SETTINGS, max_examples=600, report_multiple_bugs=False, phases=(Phase.explicit, Phase.generate))
    with pytest.raises(AssertionError, match="not hit"):
        run_state_machine_as_test(Partitioned, settings=quick)


def _story_of_a_quarantine() -> None:
    """A culprit goes on in quarantine, then a second fault moves a bystander."""
    play = Hostile()
    for job, fate in ((1, OnCulprit.QUARANTINE), (2, OnCulprit.FAIL), (3, OnCulprit.FAIL)):
        play.join(job, 0, True, False, True, 0, tuple(Rung), fate, ("a", "b"))
    for job, where in ((1, "a"), (2, "b")):
        who = ref(job)
        client = Client(pid=play.tasks[who].active, task=who, job=who.job)
        play.struck(server(where))
        play.see(What.CULPRIT, server(where), Source.SERVER_LOG, client)
        play.see(What.XID, None, Source.KMSG, client, xid=31)
        if job == 1:
            play.opened(True)
            assert play.tasks[who].server == server("q1")
            play.state_seen("a", ServerState.FAULT, False)
            play.state_seen("a", ServerState.ACTIVE, False)
    assert play.tasks[ref(3)].server == server("a")


def test_a_bystander_stays_out_of_a_culprits_quarantine(monkeypatch: pytest.MonkeyPatch) -> None:
    _story_of_a_quarantine()
    _into_the_quarantine(monkeypatch)
    with pytest.raises(AssertionError, match="culprit's server"):
        _story_of_a_quarantine()
