"""What users have filled goes away at once, however much it is, and is removed by whoever comes next."""

import fcntl
import math
import os
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from resilience.adapters.linux.discards import Discards
from resilience.adapters.linux.guarded_files import remove_tree
from resilience.model.ids import NodeName


@pytest.fixture
def gone(tmp_path: Path) -> Path:
    """The record of what is still to be removed, of node n0 in tmp_path."""
    return tmp_path / "n0" / "gone"


def discards(tmp_path: Path) -> Discards:
    made = Discards(NodeName("n0"), run=str(tmp_path))
    made.prepare()
    return made


def full(directory: Path, files: int = 200) -> Path:
    directory.mkdir(parents=True)
    for number in range(files):
        os.mknod(directory / str(number))
    return directory


def test_what_is_discarded_is_away_before_it_is_removed(tmp_path: Path, gone: Path) -> None:
    here = discards(tmp_path)
    tree = full(tmp_path / "n0" / "jobs" / "7")
    assert here.discard(str(tree)) == ""
    assert not tree.exists()
    (kept,) = gone.iterdir()
    assert len(list(kept.iterdir())) == 200
    assert here.clear(until=math.inf) == ()
    assert list(gone.iterdir()) == []


def test_time_that_runs_out_is_told_and_the_next_goes_on(tmp_path: Path, gone: Path) -> None:
    here = discards(tmp_path)
    here.discard(str(full(tmp_path / "n0" / "jobs" / "7")))
    (wrong,) = here.clear(until=time.monotonic())
    assert wrong.endswith("holds more than could be removed in time")
    assert len(list(gone.iterdir())) == 1
    assert discards(tmp_path).clear(until=math.inf) == ()
    assert list(gone.iterdir()) == []


def test_what_one_works_on_no_other_waits_for(tmp_path: Path, gone: Path) -> None:
    here = discards(tmp_path)
    here.discard(str(full(tmp_path / "n0" / "jobs" / "7", 1)))
    fd = os.open(gone, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    assert here.clear(until=math.inf) == ()
    assert len(list(gone.iterdir())) == 1
    os.close(fd)
    assert here.clear(until=math.inf) == ()
    assert list(gone.iterdir()) == []


def test_without_a_place_to_put_it_it_is_removed_where_it_is(tmp_path: Path, gone: Path) -> None:
    """As on a file system without an inode left."""
    tree = full(tmp_path / "n0" / "jobs" / "7")
    gone.write_text("in the way")
    assert Discards(NodeName("n0"), run=str(tmp_path)).discard(str(tree)) == ""
    assert not tree.exists()


@pytest.mark.parametrize("kind", ["nothing", "empty", "file", "link"])
def test_whatever_lies_there_goes(tmp_path: Path, gone: Path, kind: str) -> None:
    here, path = discards(tmp_path), tmp_path / "n0" / "thing"
    precious = full(tmp_path / "precious", 2)
    if kind == "empty":
        path.mkdir()
    elif kind == "file":
        path.write_text("x")
    elif kind == "link":
        path.symlink_to(precious)
    assert here.discard(str(path)) == ""
    assert not os.path.lexists(path)
    assert (list(gone.iterdir()), len(list(precious.iterdir()))) == ([], 2)


def test_neither_depth_nor_width_ends_a_removal() -> None:
    """70,000 levels were residue once; more directories side by side than are kept in mind, with files between them.
    On tmpfs, where they lie on a node."""
    tree = Path(tempfile.mkdtemp(prefix="mpsr-tree-", dir="/dev/shm"))
    for number in range(2500):
        (tree / f"d{number}").mkdir()
        os.mknod(tree / f"d{number}" / "file")
        (tree / "d0" / f"inner{number}").mkdir()
        os.mknod(tree / f"f{number}")
    fd = os.open(tree, os.O_RDONLY)
    for _ in range(70_000):
        os.mkdir("deep", dir_fd=fd)
        deeper = os.open("deep", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = deeper
    os.close(fd)
    wrong = remove_tree(str(tree))
    left = tree.exists()
    subprocess.run(["rm", "-rf", tree], check=True)  # pytest could not
    assert (wrong, left) == ("", False)
