"""What users can do to files that root has to look at or to remove: it neither fails, nor hangs, nor leads elsewhere."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from resilience.adapters.linux import inotify
from resilience.adapters.linux.guarded_files import remove_tree
from resilience.adapters.linux.inotify import Tail
from resilience.adapters.mps.server_logs import ServerLogFollower
from tests.unit.agent_kit import until
from tests.unit.machine_kit import server

USER = 64201
root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, as an epilog is")

# Plants directories and files below its argument as fast as it can, through descriptors that it opened before; some
# thousands, so that a slow machine is not left with millions to remove.
PLANTS = """
import os, signal, sys
top = os.open(sys.argv[1], os.O_RDONLY)
held = [top]
print("up", flush=True)
for number in range(40):
    for fd in list(held):
        try:
            os.mkdir(f"d{number}", dir_fd=fd)
            held.append(os.open(f"d{number}", os.O_RDONLY, dir_fd=fd))
            os.close(os.open(f"f{number}", os.O_CREAT | os.O_WRONLY, dir_fd=held[-1]))
        except OSError:
            pass
    held = held[-200:]
signal.pause()
"""


# ---------------------------------------------------------------- removing


@root
def test_a_tree_that_its_user_goes_on_filling_is_removed(shared_path: Path) -> None:
    """A process of another job of the user could have the node drained: what cannot be removed is residue."""
    tree = shared_path / "tree"
    tree.mkdir()
    os.chown(tree, USER, USER)
    planting = subprocess.Popen(
        [sys.executable, "-c", PLANTS, str(tree)], user=USER, group=USER, stdout=subprocess.PIPE
    )
    try:
        assert planting.stdout is not None
        assert planting.stdout.readline() == b"up\n"
        until(lambda: len(list(tree.iterdir())) > 3, "plants")
        assert remove_tree(str(tree)) == ""
        assert not tree.exists()
    finally:
        planting.kill()
        planting.wait()


def test_a_tree_deeper_than_any_path_is_removed(tmp_path: Path) -> None:
    """Deeper than Python's recursion and than the descriptors of a process."""
    fd = os.open(tmp_path, os.O_RDONLY)
    os.mkdir("tree", dir_fd=fd)
    for _ in range(3000):
        deeper = os.open("tree" if _ == 0 else "d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = deeper
        os.mkdir("d", dir_fd=fd)
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)
    (tmp_path / "tree" / ".moved-1").mkdir()
    (tmp_path / "tree" / ".moved-3").write_text("x")
    wrong = remove_tree(str(tmp_path / "tree"))
    left = list(tmp_path.iterdir())
    subprocess.run(["rm", "-rf", tmp_path / "tree"], check=True)  # pytest could not
    assert (wrong, left) == ("", [])


def test_a_tree_of_everything_that_is_no_file_is_removed(tmp_path: Path) -> None:
    """Sockets, FIFOs, directories without rights, names that no text has."""
    tree = tmp_path / "tree"
    tree.mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tree / "socket"))
    os.mkfifo(tree / "fifo")
    os.symlink("loop", tree / "loop")
    os.link(tree / "fifo", tree / "twin")
    for name in (b"\xff\xfe", b"new\nline", b"\x1b[2J", b"-rf", b" ", b"x" * 255):
        inner = os.path.join(os.fsencode(tree), name)
        os.mkdir(inner)
        os.mkfifo(os.path.join(inner, name))
        os.chmod(inner, 0)
    for path in (tree, *tree.iterdir()):
        os.lchown(path, USER, USER)
    os.chmod(tree, 0)
    assert remove_tree(str(tree)) == ""
    assert list(tmp_path.iterdir()) == []


def test_links_in_a_tree_are_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "precious").write_text("x")
    tree = tmp_path / "tree"
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "link").symlink_to(victim)
    (tree / "a" / "link").symlink_to(victim)
    (tree / "a" / "b" / "link").symlink_to(victim / "precious")
    assert remove_tree(str(tree)) == ""
    assert (victim / "precious").read_text() == "x"
    tree.symlink_to(victim)
    assert remove_tree(str(tree)) == ""
    assert victim.exists()


# ---------------------------------------------------------------- following


def test_a_log_of_a_terabyte_of_nothing_does_not_hold_up_the_agent(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    log.write_text("first\n")
    follower = ServerLogFollower()
    try:
        follower.watch(server("a"), str(tmp_path))
        os.truncate(log, 1 << 40)
        with log.open("a") as file:
            file.write("\nlast\n")
        began = time.monotonic()
        lines = until(follower.read, "the log's news")
        assert time.monotonic() - began < 2
        assert lines[-1].text == "last"
        assert sum(len(line.text) for line in lines) <= inotify._MOST
    finally:
        follower.close()


def test_of_a_burst_the_end_is_read_by_whole_lines(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("")
    tail = Tail(str(log))
    assert tail.read() == []
    log.write_text("".join(f"line {number}\n" for number in range(100_000)))
    lines = tail.read()
    assert lines[-1] == "line 99999"
    assert all(line.startswith("line ") for line in lines)
    assert sum(len(line) + 1 for line in lines) <= inotify._MOST
    with log.open("a") as file:
        file.write("next\n")
    assert tail.read() == ["next"]
    tail.close()
