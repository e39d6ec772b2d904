"""The files that the agent writes and follows: its journal, the kernel's log, the servers' logs."""

import json
import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

from resilience.adapters.linux.clock import SystemClock
from resilience.adapters.linux.journal import JournalFile
from resilience.adapters.linux.kmsg import KernelLogReader
from resilience.adapters.mps import server_logs
from resilience.adapters.mps.server_logs import ServerLogFollower
from resilience.model.errors import ResilienceError
from resilience.model.ids import JobId
from resilience.model.records import AgentStarted, AgentStopped, Sighting, SlurmIntent
from resilience.ports import ServerLine
from tests.unit.agent_kit import readable, until
from tests.unit.machine_kit import server


# ---------------------------------------------------------------- journal
def _rows(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines() if line]


def test_journal_lines(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    journal = JournalFile(str(path), SystemClock())
    journal.append(AgentStarted(node="n0"))
    journal.append(AgentStopped())
    first, second = _rows(path)
    assert first["event"] == "agent.started"
    assert first["node"] == "n0"
    assert "mode" not in first
    assert second["event"] == "agent.stopped"
    assert path.stat().st_mode & 0o777 == 0o640
    journal.close()


def test_journal_of_a_missing_directory_tells_what_was_lost(tmp_path: Path) -> None:
    path = tmp_path / "later" / "j.jsonl"
    journal = JournalFile(str(path), SystemClock())
    for _ in range(3):
        journal.append(Sighting())
    path.parent.mkdir()
    journal.append(AgentStarted())
    (row,) = _rows(path)
    assert row["lost"] == 3
    journal.close()


_FULL = """
import resource, signal, sys
from resilience.adapters.linux.clock import SystemClock
from resilience.adapters.linux.journal import JournalFile
from resilience.model.records import AgentStarted, Sighting
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
journal = JournalFile(sys.argv[1], SystemClock())
resource.setrlimit(resource.RLIMIT_FSIZE, (300, resource.RLIM_INFINITY))
for number in range(8):
    journal.append(Sighting(pid=number, text="x" * 40))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
journal.append(AgentStarted())
"""


def test_a_full_disk_never_raises_and_the_torn_line_is_ended(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    subprocess.run([sys.executable, "-c", _FULL, str(path)], check=True, timeout=30)
    lines = path.read_text().splitlines()
    whole = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
    assert whole[-1]["event"] == "agent.started"
    assert whole[-1]["lost"] == 8 - sum(row["event"] == "observation" for row in whole)
    assert 0 < whole[-1]["lost"] < 8


def test_a_rotated_journal_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    journal = JournalFile(str(path), SystemClock())
    journal.append(AgentStarted())
    path.rename(tmp_path / "j.1")
    journal.append(AgentStopped())
    assert [row["event"] for row in _rows(path)] == ["agent.stopped"]
    journal.close()


def test_a_long_journal_is_moved_away_by_its_writers(tmp_path: Path) -> None:
    """Several write it: none moves away what another has just begun."""
    path = tmp_path / "j.jsonl"
    writers = [JournalFile(str(path), SystemClock(), rotate=2000) for _ in range(3)]
    for number in range(200):
        writers[number % 3].append(SlurmIntent(ask="drain", job=JobId(number)))
        assert path.stat().st_size < 2200
        moved = tmp_path / "j.jsonl.1"
        kept = [*(_rows(moved) if moved.exists() else []), *_rows(path)]
        jobs = [row["job"] for row in kept]
        assert jobs == list(range(number + 1 - len(jobs), number + 1)), "nothing between was lost"
        assert len(jobs) > min(number, 15)
    assert writers[0].recent()[-1].record.jobs() == frozenset({199})
    assert len(writers[0].recent()) == len(kept)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["j.jsonl", "j.jsonl.1"]


def test_recent_skips_what_is_broken(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    path.write_text('[1]\n{"event":"slurm.intent","ask":"drain","wall":1}\n{"ev\n\xff\n')
    journal = JournalFile(str(path), SystemClock())
    assert [entry.record for entry in journal.recent()] == [SlurmIntent(ask="drain")]
    assert JournalFile(str(tmp_path / "none"), SystemClock()).recent() == ()


# ---------------------------------------------------------------- kernel log
def test_a_kernel_log_file_is_followed_from_its_end(tmp_path: Path) -> None:
    path = tmp_path / "kmsg"
    path.write_text("old\n")
    log = KernelLogReader(str(path))
    assert log.read() == ()
    with path.open("a") as file:
        file.write("one\ntw")
        file.flush()
        readable(log)
        assert log.read() == ("one",)
        file.write("o\n")
    readable(log)
    assert log.read() == ("two",)
    log.close()


def test_a_kernel_log_that_comes_later_or_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "kmsg"
    log = KernelLogReader(str(path))
    path.write_text("first\n")
    readable(log)
    assert log.read() == ("first",)
    path.unlink()
    path.write_text("second\n")
    assert until(log.read, "the new file's line") == ("second",)
    log.close()


def test_a_kernel_log_without_a_directory_says_so(tmp_path: Path) -> None:
    with pytest.raises(ResilienceError, match="no such directory"):
        KernelLogReader(str(tmp_path / "none" / "kmsg"))


def test_the_real_kernel_log_device() -> None:
    """As root /dev/kmsg can be read; nothing old comes, and reading does not block."""
    try:
        os.close(os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK))
    except OSError:
        with pytest.raises(ResilienceError, match="cannot be read"):
            KernelLogReader("/dev/kmsg")
        return
    log = KernelLogReader("/dev/kmsg")
    assert isinstance(log.read(), tuple)
    log.close()


def test_in_a_container_the_kernel_log_names_other_processes(tmp_path: Path) -> None:
    device = tmp_path / "kmsg"
    try:
        os.mknod(device, 0o20600, os.makedev(1, 3))
        os.close(os.open(device, os.O_RDONLY))
    except OSError:
        pytest.skip("no device can be made here")
    for namespace, ours in (("pid:[4026531836]", True), ("pid:[4026532198]", False)):
        link = tmp_path / namespace
        link.symlink_to(namespace)
        log = KernelLogReader(str(device), pids=str(link))
        assert log.names_our_processes is ours
        log.close()
    file = tmp_path / "file"
    file.write_text("")
    log = KernelLogReader(str(file), pids=str(link))
    assert log.names_our_processes, "a file is written by somebody who counts as its readers do"
    log.close()


# ---------------------------------------------------------------- server logs
def _lines(lines: tuple[ServerLine, ...]) -> list[tuple[str, bool, str]]:
    return [(line.server.color, line.control, line.text) for line in lines]


def test_logs_are_followed_by_server_and_file(tmp_path: Path) -> None:
    logs = ServerLogFollower()
    for color in "ab":
        (tmp_path / color).mkdir()
    (tmp_path / "a" / "server.log").write_text("before\n")
    assert _lines(logs.watch(server("a"), str(tmp_path / "a"))) == [("a", False, "before")]
    assert logs.watch(server("b"), str(tmp_path / "b")) == ()
    with (tmp_path / "a" / "server.log").open("a") as file:
        file.write("new\n")
    (tmp_path / "b" / "control.log").write_text("hello\n")
    seen: list[tuple[str, bool, str]] = []

    def both() -> bool:
        seen.extend(_lines(logs.read()))
        return len(seen) == 2

    until(both, "both lines")
    assert sorted(seen) == [("a", False, "new"), ("b", True, "hello")]
    logs.unwatch(server("a"))
    (tmp_path / "a" / "server.log").write_text("nobody listens\n")
    (tmp_path / "b" / "server.log").write_text("still\n")
    assert _lines(until(logs.read, "b's line")) == [("b", False, "still")]
    logs.close()


def test_a_directory_that_does_not_exist_yet(tmp_path: Path) -> None:
    logs = ServerLogFollower()
    directory = tmp_path / "x" / "y" / "q1"
    assert logs.watch(server("q1"), str(directory)) == ()
    (tmp_path / "x").mkdir()
    logs.read()
    directory.mkdir(parents=True)
    (directory / "server.log").write_text("first\n")
    assert _lines(until(logs.read, "the first line")) == [("q1", False, "first")]
    with (directory / "server.log").open("a") as file:
        file.write("second\n")
    assert _lines(until(logs.read, "the second line")) == [("q1", False, "second")]
    logs.close()


def test_truncation_starts_over(tmp_path: Path) -> None:
    logs = ServerLogFollower()
    path = tmp_path / "server.log"
    path.write_text("one\ntwo\n")
    logs.watch(server("a"), str(tmp_path))
    os.truncate(path, 0)
    with path.open("a") as file:
        file.write("new\n")
    assert _lines(until(logs.read, "the line")) == [("a", False, "new")]
    logs.close()


@pytest.mark.parametrize("trick", ["link", "fifo"])
def test_a_users_link_or_pipe_in_place_of_a_log_is_not_read(tmp_path: Path, trick: str) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hidden\n")
    place = tmp_path / "logs"
    place.mkdir()
    if trick == "link":
        (place / "server.log").symlink_to(secret)
    else:
        os.mkfifo(place / "server.log")
    logs = ServerLogFollower()
    assert logs.watch(server("a"), str(place)) == ()
    (place / "control.log").write_text("fine\n")
    assert _lines(until(logs.read, "the honest log")) == [("a", True, "fine")]
    logs.close()


def test_of_lines_without_end_the_last_are_taken_apart(tmp_path: Path) -> None:
    logs = ServerLogFollower()
    logs.watch(server("a"), str(tmp_path))
    (tmp_path / "server.log").write_bytes(b"\n" * 200_000 + b"last\n")
    lines = until(logs.read, "lines")
    assert len(lines) == server_logs.LINES
    assert lines[-1].text == "last"
    logs.close()


def test_a_users_logs_are_left_alone_until_they_are_heard_again(tmp_path: Path) -> None:
    logs = ServerLogFollower()
    places = {1001: tmp_path / "a", 1002: tmp_path / "b"}
    for uid, place in places.items():
        place.mkdir()
        logs.watch(server(place.name), str(place), uid)
    logs.hush(1001)
    for place in places.values():
        (place / "server.log").write_text("first\n")
    assert [(line.uid, line.text) for line in until(logs.read, "the other's")] == [(1002, "first")]
    with (places[1001] / "server.log").open("a") as file:
        file.write("second\n")
    assert not select.select([logs], [], [], 0)[0], "not even woken"
    logs.listen(1001)
    readable(logs)
    assert [line.text for line in logs.read()] == ["first", "second"]
    assert logs.costs().keys() == {1001, 1002}
    logs.close()


def test_what_a_look_leaves_is_news_though_nothing_is_written_any_more(tmp_path: Path) -> None:
    """So much of one user at a time, and nothing while there is enough of them."""
    logs = ServerLogFollower()
    for color in "ab":
        (tmp_path / color).mkdir()
        logs.watch(server(color), str(tmp_path / color), 1001)
        (tmp_path / color / "server.log").write_bytes(b"\n" * 1000)
    assert until(lambda: logs.read(busy=[1001]) == (), "no line while there is enough")
    readable(logs)
    assert len(logs.read()) == server_logs.LINES
    readable(logs)
    assert len(logs.read()) == server_logs.LINES
    assert logs.read() == ()
    assert not select.select([logs], [], [], 0)[0]
    logs.close()
