"""dcgm-exporter's job mapping files: many at once lose nothing, others' lines stay, no link is followed."""

import multiprocessing
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from resilience.adapters.linux.job_mapping import JobMapping
from resilience.model.errors import TrustError
from resilience.model.ids import JobId

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="root's prolog writes them")


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/run") as name:  # every directory above it is root's
        yield Path(name)


def _jobs(directory: str, first: int) -> None:
    mapping = JobMapping(directory)
    for job in range(first, first + 20):
        mapping.add(JobId(job), [0, 3])
        if job % 2:
            mapping.remove(JobId(job))


def test_many_prologs_and_epilogs_at_once_lose_nothing(directory: Path) -> None:
    context = multiprocessing.get_context("spawn")
    every = [context.Process(target=_jobs, args=(str(directory), 100 * number)) for number in range(4)]
    for one in every:
        one.start()
    for one in every:
        one.join(60)
        assert one.exitcode == 0
    left = sorted(str(100 * number + job) for number in range(4) for job in range(0, 20, 2))
    assert sorted((directory / "0").read_text().splitlines()) == left
    assert sorted((directory / "3").read_text().splitlines()) == left


def test_a_file_goes_with_its_last_job_and_what_is_no_gpus_file_stays(directory: Path) -> None:
    (directory / "notes").write_text("7\n")
    mapping = JobMapping(str(directory))
    mapping.add(JobId(7), [0])
    assert (directory / "0").stat().st_mode & 0o777 == 0o644
    mapping.remove(JobId(7))
    mapping.remove(JobId(7))
    assert sorted(file.name for file in directory.iterdir()) == [".lock", "notes"]


def test_a_link_is_not_followed(directory: Path) -> None:
    (directory / "victim").write_text("kept\n")
    (directory / "0").symlink_to("victim")
    with pytest.raises(OSError):
        JobMapping(str(directory)).add(JobId(7), [0])
    assert (directory / "victim").read_text() == "kept\n"


def test_a_directory_that_others_can_write_is_refused(directory: Path) -> None:
    directory.chmod(0o777)
    with pytest.raises(TrustError):
        JobMapping(str(directory)).add(JobId(7), [0])
    assert list(directory.iterdir()) == []
