"""Logs in users' hands: who writes without end waits, and others are read first."""

from pathlib import Path

from resilience.adapters.linux.turns import REST, Turns
from resilience.adapters.mps.server_logs import _LINES, MOST, ServerLogFollower
from resilience.model.ids import DomainKey
from tests.unit.agent_kit import readable, until
from tests.unit.machine_kit import server

A, B = DomainKey("u1001"), DomainKey("u1002")


def test_who_costs_much_rests_alone_and_not_for_ever() -> None:
    turns: Turns[DomainKey] = Turns(MOST)
    assert not turns.spend(B, 3, 0.0)
    assert not turns.spend(A, MOST - 1, 0.0)
    assert turns.spend(A, 1, 0.5)
    assert not turns.spend(A, MOST, 0.5), "it rests already"
    assert (turns.rests(A), turns.rests(B)) == (True, False)
    assert turns.wait(0.75) == REST - 0.25
    assert turns.woken(REST) == frozenset()
    assert turns.woken(REST + 0.5) == {A}
    assert not turns.rests(A)
    assert turns.wait(2.0) is None


def test_a_second_forgives() -> None:
    turns: Turns[DomainKey] = Turns(MOST)
    assert not any(turns.spend(B, MOST // 2 + 1, 1.5 * number) for number in range(10))


def test_of_lines_without_end_the_last_are_taken_apart(tmp_path: Path) -> None:
    logs = ServerLogFollower()
    logs.watch(server("a"), str(tmp_path))
    (tmp_path / "server.log").write_bytes(b"\n" * 200_000 + b"last\n")
    lines = until(logs.read, "lines")
    assert len(lines) == _LINES
    assert lines[-1].text == "last"
    logs.close()


def test_the_quiet_come_first_and_the_loud_are_read_again_after_their_rest(tmp_path: Path) -> None:
    now = [100.0]
    logs = ServerLogFollower(lambda: now[0], most=1000)
    places = {server(color, domain): tmp_path / domain / color for domain in (B, A) for color in "ab"}
    for one, place in places.items():
        place.mkdir(parents=True)
        logs.watch(one, str(place))
    for one, place in places.items():
        if one.domain == B:
            for name in ("server.log", "control.log"):
                (place / name).write_bytes(b"\n" * 10_000)
    (places[server("b", A)] / "server.log").write_text("hello\n")
    first = logs.read()
    assert (first[0].server, first[0].text) == (server("b", A), "hello")
    (places[server("a", B)] / "server.log").open("ab").write(b"of the loud\n")
    (places[server("b", A)] / "server.log").open("ab").write(b"again\n")
    assert [(line.server, line.text) for line in logs.read()] == [(server("b", A), "again")]
    for name in ("one", "two"):
        (places[server("a", B)] / "server.log").open("ab").write(f"{name}\n".encode())
    assert logs.read() == (), "not even woken"
    readable(logs)
    now[0] += REST
    found = until(logs.read, "what came during the rest")
    assert [line.text for line in found if line.text] == ["of the loud", "one", "two"]
    logs.close()
