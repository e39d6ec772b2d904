"""What users' news may cost: each has a share of the agent's time, and waits for others no longer than their turns."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience.agent.shares import BURST, PART, REST, Shares
from resilience.agent.turns import TURN, Turns
from resilience.model.event import Event
from resilience.model.records import Record, UserThrottled

ALICE, BOB = 1001, 1002


def test_who_has_used_up_the_share_rests_alone_and_not_for_ever() -> None:
    shares = Shares()
    assert not shares.spend(BOB, 0.1, 0.0)
    assert not shares.spend(ALICE, BURST - 0.01, 0.0)
    assert shares.spend(ALICE, 0.02, 0.0)
    assert not shares.spend(ALICE, 5.0, 0.0), "rests already"
    assert (shares.rests(ALICE), shares.rests(BOB)) == (True, False)
    assert shares.next() == REST
    assert shares.woken(REST - 0.1) == frozenset()
    assert shares.woken(REST) == {ALICE}
    assert shares.next() is None
    assert shares.spend(ALICE, 0.001, REST), "what was used meanwhile counts"
    assert shares.next() == pytest.approx(REST + (5.0 + 0.01 - PART * REST) / PART, abs=0.1)


@given(st.lists(st.tuples(st.floats(0, 0.3), st.floats(0, 3)), max_size=60))
def test_nobody_has_more_than_the_share(uses: list[tuple[float, float]]) -> None:
    shares, now, used, last = Shares(), 0.0, 0.0, 0.0
    for seconds, pause in uses:
        now += pause
        shares.woken(now)
        if not shares.rests(ALICE):
            shares.spend(ALICE, seconds, now)
            used, last = used + seconds, seconds
    assert used <= BURST + PART * now + last + 1e-6


def test_a_slow_day_uses_up_nothing() -> None:
    shares = Shares()
    assert not any(shares.spend(BOB, 0.5 * PART, float(second)) for second in range(3600))


class Node:
    """A clock that the news moves, a journal, and what hears users."""

    def __init__(self) -> None:
        self.cpu = 0.0
        self.written: list[Record] = []
        self.deaf: set[int] = set()
        self.read: dict[int, float] = {}
        self.taken: list[int] = []
        self.turns = Turns(self, self, {"logs": self}, Shares())

    def wall(self) -> float:
        return self.cpu

    monotonic = worked = wall

    def boot_id(self) -> str:
        return ""

    def append(self, record: Record) -> None:
        self.written.append(record)

    def hush(self, uid: int) -> None:
        self.deaf.add(uid)

    def listen(self, uid: int) -> None:
        self.deaf.remove(uid)

    def costs(self) -> Mapping[int, float]:
        read, self.read = self.read, {}
        return read

    def put(self, uid: int, cost: float, many: int = 1) -> None:
        def piece() -> Iterable[Event]:
            self.cpu += cost
            self.taken.append(uid)
            return ()

        for _ in range(many):
            self.turns.put(uid, "logs", piece)

    def run(self) -> list[int]:
        self.taken = []
        deque(self.turns.run(), maxlen=0)
        return self.taken


def test_a_quiet_user_comes_first_and_waits_for_one_turn_of_a_loud_one() -> None:
    node = Node()
    node.put(BOB, 0.001, 1000)
    node.put(ALICE, 0.001)
    taken = node.run()
    assert taken[0] == ALICE
    assert len(taken) <= 2 + TURN / 0.001
    assert node.turns.waiting() == {BOB}
    assert node.turns.due() == (0.0,), "goes on at once"
    node.put(ALICE, 0.001)
    assert node.run()[0] == ALICE


def test_who_costs_too_much_is_not_heard_for_a_while_and_is_named_once_a_minute() -> None:
    node = Node()

    def until_deaf() -> None:
        node.put(BOB, 0.01, 1000)
        while BOB not in node.deaf:
            node.run()

    until_deaf()
    assert node.run() == []
    (due,) = node.turns.due()
    assert 0 < due - node.cpu <= REST + TURN / PART
    (named,) = node.written
    assert isinstance(named, UserThrottled)
    assert (named.uid, named.messages_ms) == (BOB, None)
    assert named.logs_ms == pytest.approx(1000 * BURST, rel=0.2)
    assert "uid 1002 is heard less often" in named.sentence()
    node.cpu = due
    node.run()
    until_deaf()
    assert len(node.written) == 1


def test_what_reading_costs_counts() -> None:
    node = Node()
    node.read = {BOB: BURST + 0.1, ALICE: 0.1}
    assert node.run() == []
    assert node.deaf == {BOB}


def test_one_users_news_keeps_its_order() -> None:
    node, order = Node(), list[int]()

    def piece(number: int) -> Callable[[], Iterable[Event]]:
        def take() -> Iterable[Event]:
            node.cpu += 0.002
            order.append(number)
            return ()

        return take

    for number in range(20):
        node.turns.put(ALICE, "logs", piece(number))
    while node.turns.waiting():
        node.run()
    assert order == list(range(20))
