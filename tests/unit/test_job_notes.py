"""What the agent puts into a job's files itself, and how it hears of leases."""

import os
import select
from pathlib import Path

import pytest

from resilience.adapters.linux.job_notes import JobNotes
from resilience.adapters.linux.lease_watch import LeaseWatch
from resilience.adapters.linux.procfs import ProcfsTree
from resilience.model.errors import ResilienceError
from resilience.model.ids import NodeName

ME = (os.getuid(), os.getgid())


def test_lines_are_appended_to_a_file_of_the_users_alone(tmp_path: Path) -> None:
    file = tmp_path / "mpsr-1.log"
    for line in ("one", "two"):
        JobNotes().write(*ME, str(file), line, create=True)
    assert file.read_text() == "one\ntwo\n"
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("kind", ["link", "second name", "pipe", "nothing"])
def test_nothing_else_is_written(tmp_path: Path, kind: str) -> None:
    other, file = tmp_path / "other", tmp_path / "file"
    other.write_text("theirs\n")
    if kind == "link":
        file.symlink_to(other)
    elif kind == "second name":
        os.link(other, file)
    elif kind == "pipe":
        os.mkfifo(file)
    with pytest.raises(ResilienceError):
        JobNotes().write(*ME, str(file), "ours", create=False)
    assert other.read_text() == "theirs\n"
    assert kind != "nothing" or not file.exists()


def test_a_lease_that_comes_or_goes_is_news(tmp_path: Path) -> None:
    watch = LeaseWatch(str(tmp_path), NodeName("n0"))

    def news() -> bool:
        ready = bool(select.select([watch.fileno()], [], [], 0)[0])
        watch.read()
        return ready

    jobs = tmp_path / "n0/jobs"
    assert not news()
    (jobs / "7.lease.new").write_text("")
    (jobs / "7.lease.new").rename(jobs / "7.lease")
    assert news()
    assert not news()
    (jobs / "7.lease").unlink()
    assert news()
    watch.close()


def test_whose_a_process_is() -> None:
    assert ProcfsTree().uid(os.getpid()) == os.getuid()
    assert ProcfsTree().uid(1 << 30) is None
