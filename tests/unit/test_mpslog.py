"""Lines of control.log and server.log in three dialects."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilience.catalog import messages
from resilience.model.mpslog import LogKind
from resilience.parse.mpslog import parse_line

_DATA = Path(__file__).parent.parent / "data" / "mpslog"


def _kinds(name: str) -> list[tuple[str, int]]:
    parsed = (parse_line(line) for line in (_DATA / name).read_text().splitlines())
    return [(line.kind.value, line.pid) for line in parsed if line and line.kind is not LogKind.ORDINARY]


@pytest.mark.parametrize("name", ["control-555.log", "server-550.log", "server-580.log"])
def test_every_line_of_real_logs_is_understood(name: str) -> None:
    assert [line for line in (_DATA / name).read_text().splitlines() if parse_line(line) is None] == []


def test_control_log_of_555() -> None:
    assert _kinds("control-555.log") == [
        ("daemon_started", 0),
        ("starting_server", 12710),
        ("server_exited", 12710),
        ("server_fatal", 0),
        ("new_client", 12720),
        ("starting_server", 12721),
        ("server_exited", 12721),
        ("daemon_exited", 0),
    ]


def test_server_log_of_550() -> None:
    assert _kinds("server-550.log") == [
        ("status", 11641),
        ("status", 11661),
        ("culprit", 11661),
        ("handling", 0),
        ("status", 11641),
        ("status", 11661),
        ("sticky_list", 0),
        ("exit", 11641),
        ("exit", 11661),
        ("destroying", 0),
        ("creating", 0),
    ]


def test_server_log_of_580() -> None:
    assert _kinds("server-580.log") == [
        ("creating", 0),
        ("server_started", 0),
        ("connected", 4267),
        ("connected", 4267),
        ("status", 4267),
        ("culprit", 4267),
        ("handling", 0),
        ("status", 4267),
        ("refused", 4300),
        ("exit", 4267),
        ("destroying", 0),
        ("creating", 0),
    ]


def test_head_and_parts() -> None:
    line = parse_line("[2026-03-02 08:11:41.150 Legacy Server    7] volta mps: STATUS OF CLIENT {7, 3} is active\n")
    assert line is not None
    assert (line.kind, line.pid, line.context, line.active) == (LogKind.STATUS, 7, 3, True)
    assert (line.stamp, line.writer) == ("2026-03-02 08:11:41.150", 7)
    user = parse_line("[2026-03-02 08:11:41.150 Control 7] NEW CLIENT 4267 from user 1000: Server already exists")
    assert user is not None
    assert user.uid == 1000
    ended = parse_line("[2026-03-02 08:11:41.150 Control 7] Server 12 exited with status 139")
    assert ended is not None
    assert ended.number == 139


def test_torn_down_names_the_process_that_triggered_it() -> None:
    line = parse_line(
        "[2026-03-02 08:11:41.150 Server 7] "
        "MPS Client {PID: 1, Context ID: 2} on the error-trigging process 9 to be torn down"
    )
    assert line is not None
    assert (line.kind, line.pid) == (LogKind.CULPRIT, 9)


def test_a_message_inside_a_command_is_no_event() -> None:
    """What a user types at the control program is logged as `Cmd:…` and must not pass for a fault."""
    line = parse_line("[2026-03-02 08:11:41.150 Control 7] Cmd:Server is handling a fatal GPU error.")
    assert line is not None
    assert line.kind is LogKind.ORDINARY


@given(st.one_of(st.text(), st.text().map(lambda tail: f"[2026-03-02 08:11:41.150 Server 7] {tail}")))
def test_never_raises(line: str) -> None:
    parse_line(line)


@given(st.sampled_from([row.sample for row in messages()]), st.integers(0, 200))
def test_a_line_cut_anywhere_never_raises(sample: str, cut: int) -> None:
    parse_line(f"[2026-03-02 08:11:41.150 Server 7] {sample}"[:cut])
