"""The agent's metrics file on a real journal: it follows every writer, through rotation and torn lines, and leaves be."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from resilience.adapters.linux.clock import SystemClock
from resilience.adapters.linux.guarded_files import write_whole
from resilience.adapters.linux.journal import JournalFile
from resilience.adapters.linux.metrics_file import MetricsFile
from resilience.model.errors import ResilienceError
from resilience.model.ids import JobId
from resilience.model.records import JobRefused, Sighting
from resilience.model.records.journal import line
from tests.cluster.sandbox import wait_for
from tests.unit.metrics_kit import value

MODULE = "resilience.adapters.linux.metrics_file"
SECONDS = 15.0
PACE = 0.02
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the agent runs as root")


class Node:
    """A journal and the file that is made from it, in directories that only root can change."""

    def __init__(self, home: Path) -> None:
        self.path = home / "log" / "journal.jsonl"
        self.path.parent.mkdir()
        self.directory = home / "textfile"
        self.directory.mkdir()
        self.file = self.directory / "mpsr-n0.prom"
        self.journal = JournalFile(str(self.path), SystemClock())
        self.said: list[str] = []
        self.writer: MetricsFile | None = None

    def begin(self, pace: float = PACE) -> None:
        self.writer = MetricsFile(str(self.path), str(self.file), self.said.append, pace=pace)

    def refused(self, times: int = 1) -> None:
        for _ in range(times):
            self.journal.append(JobRefused(job=JobId(7)))

    def until(self, count: float, name: str = "mpsr_jobs_refused_total") -> None:
        wait_for(self.file.exists, SECONDS, lambda: f"no file; {self.said}")

        def now() -> float:
            return value(self.file.read_text(), name)

        wait_for(lambda: now() == count, SECONDS, lambda: f"{name} is {now()}, not {count}")


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path)
    yield made
    if made.writer is not None:
        made.writer.close()
    made.journal.close()


def test_it_begins_with_noughts_and_follows_what_is_appended(node: Node) -> None:
    node.refused(5)
    node.begin()
    node.until(0)
    assert node.file.stat().st_mode & 0o777 == 0o644
    node.refused(3)
    node.until(3)
    assert [entry.name for entry in node.directory.iterdir()] == [node.file.name]


def test_lines_of_other_processes_count(node: Node) -> None:
    node.begin()
    hook = (
        "import sys; from resilience.adapters.linux.clock import SystemClock; from resilience.adapters.linux.journal import JournalFile;"
        "from resilience.model.records import JobRefused; JournalFile(sys.argv[1], SystemClock()).append(JobRefused(job=8))"
    )
    for _ in range(2):
        subprocess.run([sys.executable, "-c", hook, str(node.path)], check=True, timeout=SECONDS)
    node.refused()
    node.until(3)


def test_a_journal_that_begins_later_is_read_from_its_start(node: Node) -> None:
    node.begin()
    node.until(0)
    node.refused(2)
    node.until(2)


def test_rotation_loses_nothing(node: Node) -> None:
    """As logrotate does with our template: the file is moved away, and the next writer begins a new one."""
    node.refused()
    node.begin()
    for number in range(1, 4):
        node.refused(50)
        node.path.rename(node.path.with_suffix(f".{number}"))
        if number == 2:
            node.until(150)  # the old file is read to its end before there is a new one
        node.refused(50)
        node.until(number * 100)


def test_a_line_cut_by_a_full_disk_is_counted_and_the_rest_goes_on(node: Node) -> None:
    node.refused()
    node.begin()
    with node.path.open("ab") as file:
        file.write(b'{"event":"job.refu')
        file.flush()
        node.refused()  # runs on in the torn line
        file.write(b'{"event":"job.refu')
        file.flush()
        file.write(b"\n")
    lines = (line(JobRefused(job=JobId(7)), wall=1.0, mono=1.0, lost=4), "")
    with node.path.open("a") as text:
        text.write("\n".join(lines))
    node.until(1)
    told = node.file.read_text()
    assert value(told, "mpsr_journal_skipped_lines_total") == 2
    assert value(told, "mpsr_journal_lost_records_total") == 4


def test_half_a_line_waits_for_its_other_half(node: Node) -> None:
    node.begin()
    whole = json.dumps({"event": "job.refused", "wall": 1.0}).encode() + b"\n"
    with node.path.open("ab", buffering=0) as file:
        file.write(whole + whole[:9])
        node.until(1)
        file.write(whole[9:])
    node.until(2)
    assert value(node.file.read_text(), "mpsr_journal_skipped_lines_total") == 0


def test_nothing_is_written_when_no_figure_changes(node: Node) -> None:
    node.begin()
    node.until(0)
    before = node.file.stat()
    for _ in range(3):
        node.journal.append(Sighting(source="kmsg", what="xid"))
    wait_for(lambda: node.writer is not None and node.writer._tail._offset == node.path.stat().st_size, SECONDS)
    threading.Event().wait(5 * PACE)  # were there a write, it would follow at once
    after = node.file.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_many_records_at_once_are_one_write(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[str] = []

    def counted(path: str, text: str) -> None:
        writes.append(text)
        write_whole(path, text)

    monkeypatch.setattr(f"{MODULE}.write_whole", counted)
    node.begin(pace=1.0)
    node.until(0)
    node.refused(400)
    node.until(400)
    assert len(writes) == 2


def test_a_directory_that_is_missing_is_told_once_and_found_later(node: Node) -> None:
    node.directory.rmdir()
    node.begin()
    for _ in range(2):
        node.refused()
        wait_for(lambda: node.writer is not None and node.writer._tail._offset == node.path.stat().st_size, SECONDS)
    assert len(node.said) == 1
    assert str(node.directory) in node.said[0]
    node.directory.mkdir()
    node.refused()
    node.until(3)


@pytest.mark.parametrize("spoil", [lambda at: os.chown(at, 65534, -1), lambda at: os.chmod(at, 0o777)])
def test_a_directory_that_others_could_change_is_refused(node: Node, spoil: object) -> None:
    spoil(node.directory)  # type: ignore[operator]
    node.begin()
    wait_for(lambda: node.said, SECONDS)
    assert str(node.directory) in node.said[0]
    assert list(node.directory.iterdir()) == []


def test_a_link_in_the_files_place_is_replaced_not_followed(node: Node) -> None:
    precious = node.path.parent / "precious"
    precious.write_text("mine")
    node.file.symlink_to(precious)
    node.begin()
    wait_for(lambda: not node.file.is_symlink() and node.file.exists(), SECONDS)
    assert precious.read_text() == "mine"


def test_the_file_goes_with_the_agent(node: Node) -> None:
    node.begin()
    node.until(0)
    assert node.writer is not None
    node.writer.close()
    node.writer = None
    assert list(node.directory.iterdir()) == []


def test_a_file_system_that_hangs_holds_nobody_up(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    hangs, freed = threading.Event(), threading.Event()

    def hang(path: str, text: str) -> None:
        hangs.set()
        freed.wait(SECONDS)

    monkeypatch.setattr(f"{MODULE}.write_whole", hang)
    monkeypatch.setattr(f"{MODULE}._PATIENCE", 0.1)
    node.begin()
    assert hangs.wait(SECONDS)
    node.refused()
    assert node.writer is not None
    node.writer.close()
    assert node.writer._thread.is_alive()
    freed.set()
    node.writer._thread.join(SECONDS)
    assert not node.writer._thread.is_alive()


def test_a_mistake_of_ours_costs_one_look(
    node: Node, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    made = threading.Event()

    def broken(path: str, text: str) -> None:
        monkeypatch.undo()
        made.set()
        raise ZeroDivisionError("a mistake")

    monkeypatch.setattr(f"{MODULE}.write_whole", broken)
    node.begin()
    assert made.wait(SECONDS)
    node.refused()
    node.until(1)
    assert "a mistake" in capfd.readouterr().err


def test_a_journal_without_a_directory_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(ResilienceError, match="cannot be watched"):
        MetricsFile(str(tmp_path / "none" / "j"), str(tmp_path / "m.prom"), print)
