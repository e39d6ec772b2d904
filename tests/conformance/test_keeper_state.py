"""What the keeper holds: one writer's deposits, until the next and no bigger than allowed."""

import os
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from resilience.model.errors import StateError
from resilience.state import table, wire
from resilience.state.record import HELD, Commit, CommitRecord
from tests.conformance.keeper_kit import MIB, ROOT, STANDBY_TOKEN, TABLE, TOKEN, Running, deposit


def test_what_was_deposited_outlives_the_depositor(keeper: Running) -> None:
    active = keeper.link()
    assert active.first is None
    layout, fds, record = deposit(b"kept bytes")
    active.put(layout, fds)
    active.close()
    wire.close_all(fds)
    del record

    taken = keeper.link().first
    assert taken is not None
    assert taken[0] == layout
    assert [os.pread(fd, 20, 0) for fd in taken[1][2:]] == [b"kept bytes"] * 2
    assert CommitRecord(taken[1][1]).latest() == Commit(0, HELD, 41, {"r": 0.5})


def test_status_tells_what_is_held(keeper: Running) -> None:
    active = keeper.link()
    assert active.status()["sequence"] == -1
    layout, fds, _ = deposit()
    active.put(layout, fds)
    status = active.status()
    assert status["writer"] == os.getpid()
    assert (status["regions"], status["bytes"], status["sequence"], status["step"]) == (2, 4 * MIB, 0, 41)


def test_a_standby_waits_for_the_layout(keeper: Running) -> None:
    standby = keeper.link("standby")
    standby.ask_to_wait()
    assert select.select([standby.fileno()], [], [], 0.05)[0] == []
    layout, fds, _ = deposit()
    active = keeper.link()
    active.put(layout, fds)
    held = standby.heard_layout()
    assert held is not None
    assert held[0] == layout
    assert [table.read(fd) for fd in held[1]] == [TABLE], "a standby has no descriptor of what another process works on"
    assert keeper.link("reader").first is not None
    active.close()


def test_there_is_one_writer(keeper: Running) -> None:
    active = keeper.link()
    with pytest.raises(StateError, match=f"process {os.getpid()} is the writer"):
        keeper.link(timeout=0.05)
    reader = keeper.link("reader")
    layout, fds, _ = deposit()
    with pytest.raises(StateError, match="not the writer"):
        reader.put(layout, fds)
    active.put(layout, fds)
    assert keeper.link("reader").first is not None


def test_a_promoted_standby_is_the_writer_at_once(keeper: Running) -> None:
    active = keeper.link()
    layout, fds, _ = deposit(b"one")
    active.put(layout, fds)
    standby = keeper.link("standby")
    held = standby.take(TOKEN, expected=True)
    assert held is not None
    assert held[0] == layout
    assert [os.pread(fd, 9, 0) for fd in held[1][2:]] == [b"one", b"one"]
    with pytest.raises(StateError, match="not the writer"):
        active.put(layout, fds)
    changed, others, _ = deposit(b"two")
    standby.put(changed, others)
    taken = keeper.link("reader").first
    assert taken is not None
    assert os.pread(taken[1][2], 9, 0) == b"two"


@pytest.mark.parametrize("token", [STANDBY_TOKEN, "", "a-guess"])
def test_a_standby_that_was_not_promoted_gets_nothing(keeper: Running, token: str) -> None:
    """Whatever it asks for, in whatever order: no descriptor, and the writer stays who it is."""
    active = keeper.link()
    layout, fds, _ = deposit(b"live")
    active.put(layout, fds)
    standby = keeper.link("standby")
    assert standby.first is not None
    assert (standby.first[0], list(map(table.read, standby.first[1]))) == (layout, [TABLE])
    with pytest.raises(StateError, match="not promoted"):
        standby.take(token, expected=True)
    assert list(map(table.read, standby._ask({"op": "wait"})[1])) == [TABLE]
    assert standby._ask({"op": "status"})[1] == []
    for done in ({"op": "put", "layout": layout}, {"op": "drop"}):
        with pytest.raises(StateError, match="not the writer"):
            standby._ask(done)
    assert active.status()["writer"] == os.getpid()
    assert active.status()["regions"] == 2
    active.put(layout, fds)
    for role in ("active", "reader"):
        with pytest.raises(StateError, match="wrong token"):
            keeper.link(role, token=STANDBY_TOKEN)


def test_only_a_standby_takes(keeper: Running) -> None:
    keeper.link()
    with pytest.raises(StateError, match="reader is no standby"):
        keeper.link("reader").take(TOKEN, expected=False)


def test_a_program_that_ended_well_leaves_nothing(keeper: Running) -> None:
    active = keeper.link()
    layout, fds, _ = deposit()
    active.put(layout, fds)
    active.drop()
    assert (active.status()["regions"], active.status()["bytes"]) == (0, 0)
    active.close()
    assert keeper.link().first is None


def test_a_killed_writer_leaves_its_place_though_a_child_holds_the_connection(keeper: Running) -> None:
    code = (
        "import os, sys\nfrom resilience.state.link import KeeperLink\n"
        f"link = KeeperLink({str(keeper.path)!r}, {TOKEN!r}, 'active')\n"
        "if os.fork() == 0:\n    sys.stdin.read()\nelse:\n    print('writer', flush=True); os._exit(0)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "writer\n"
        assert child.wait(10) == 0
        assert keeper.link().status()["writer"] == os.getpid()
        child.communicate()


def test_the_limit_holds_and_what_was_kept_stays(tmp_path: Path) -> None:
    running = Running(tmp_path / "k", "--limit-mib", "4")
    try:
        active = running.link()
        layout, fds, _ = deposit(b"small")
        active.put(layout, fds)
        bigger = layout | {"regions": [4 * MIB, 2 * MIB]}
        with pytest.raises(StateError, match=r"6 MiB is over the limit of 4 MiB \(--mps-state\)"):
            active.put(bigger, fds)
        assert active.status()["bytes"] == 4 * MIB
    finally:
        running.end()


@pytest.mark.parametrize(
    ("layout", "count", "wrong"),
    [
        (None, 1, "no list of regions"),
        ({"regions": "x"}, 1, "no list of regions"),
        ({"regions": [1, -1]}, 4, "above 0"),
        ({"regions": [True, 1.5]}, 4, "above 0"),
        ({"regions": [1, 1]}, 3, "need 4 descriptors, not 3"),
        ({"regions": [1, 1]}, 0, "need 4 descriptors, not 0"),
    ],
)
def test_bad_deposits_are_refused(keeper: Running, layout: Any, count: int, wrong: str) -> None:
    active = keeper.link()
    _, fds, _ = deposit()
    with pytest.raises(StateError, match=wrong):
        active.put(layout, fds[:count])
    for mixed, said in ((fds[1:] + fds[:1], "not a table"), ([fds[0], *fds[2:], fds[1]], "not a commit record")):
        with pytest.raises(StateError, match=said):
            active.put({"regions": [1, 1]}, mixed)
    active.put({"regions": [1, 1]}, fds)
    assert active.status()["regions"] == 2
