"""Rooms of bounded size: tried in a mount namespace of our own, where this program is process 1."""

import errno
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from resilience.adapters.linux.discards import Discards
from resilience.adapters.linux.inotify import Tail
from resilience.adapters.linux.leases import LeaseFiles
from resilience.adapters.linux.rooms import Rooms
from resilience.adapters.mps.domain_locks import DomainLocks
from resilience.model.ids import DomainKey, NodeName
from resilience.model.settings import Paths
from tests.unit.domain_world import MemoryJournal

ROOT = Path(__file__).resolve().parents[2]
NODE, KEY, USER = NodeName("n0"), DomainKey("u64201"), 64201
OWN = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--mount")
INODES = 1024
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, as a prolog is")


def fill(directory: str) -> int:
    """Empty files until there is no room; how many."""
    for number in range(10 * INODES):
        try:
            os.mknod(f"{directory}/f{number}")
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            return number
    raise AssertionError("no end of files")


def scenario(base: str) -> None:
    """A domain and a job's directory, filled, closed and opened again."""
    paths = Paths(run=f"{base}/run", log=f"{base}/log")
    rooms, discards = Rooms(NODE, paths, 1), Discards(NODE, run=paths.run, log=paths.log)
    locks, leases = DomainLocks(paths.run, NODE, made=rooms.made_domain), LeaseFiles(paths.run, NODE, MemoryJournal())
    domain, logs, job = f"{base}/run/n0/d/{KEY}", f"{base}/log/n0/d/{KEY}", f"{base}/run/n0/jobs/7"
    for again in (False, True):
        with locks.domain(KEY, timeout=1, create=True):
            assert [os.path.ismount(one) for one in (domain, logs)] == [True, True]
            assert os.listdir(logs) == []
            os.makedirs(f"{logs}/g0/a")
            Path(f"{logs}/g0/a/server.log").write_text(f"{again}\n")
            os.makedirs(f"{domain}/g0/a")
            assert not rooms.full(KEY)
            assert 500 < fill(f"{domain}/g0/a") < INODES
            assert fill(f"{logs}/g0/a") < INODES
            assert rooms.full(KEY)
            assert discards.discard(f"{domain}/g0/a") == ""  # as when a server is replaced
            assert os.listdir(f"{domain}/g0") == []
            assert not leases.forget_gpu(KEY, leases.servers(KEY)[0].gpu)
            rooms.keep_logs(KEY)
            with rooms.changing(KEY):
                assert leases.forget_domain(KEY) == ()
        assert (os.path.exists(domain), os.path.ismount(logs)) == (False, False)
        assert [str(one.relative_to(logs)) for one in Path(logs).rglob("*") if one.is_file()] == ["g0/a/server.log"]
        assert Path(f"{logs}/g0/a/server.log").read_text() == f"{again}\n"
        assert os.stat(f"{logs}/g0/a/server.log").st_uid == 0
        os.makedirs(os.path.dirname(job), exist_ok=True)
        for _ in range(2):  # a prolog that is run twice
            rooms.make(job, mode=0o700, uid=USER, gid=USER)
        assert (os.stat(job).st_uid, os.stat(job).st_mode & 0o777) == (USER, 0o700)
        os.mkdir(f"{job}/inner")
        subprocess.run(["mount", "-t", "tmpfs", "users-own", f"{job}/inner"], check=True)  # as fuse
        held = os.open(f"{job}/inner", os.O_RDONLY)
        assert fill(job) < INODES
        assert discards.discard(job) == ""
        assert not os.path.exists(job)
        os.close(held)
    assert base not in Path("/proc/self/mounts").read_text()


def opens_and_closes(base: str, *, apart: bool = True) -> None:
    """Four processes have the domain in turns, each the last to leave: nobody's room goes while he has it."""
    children = []
    for _ in range(4):
        if (child := os.fork()) == 0:
            status = 1
            try:
                paths = Paths(run=f"{base}/run", log=f"{base}/log")
                rooms, domain = Rooms(NODE, paths, 1), f"{base}/run/n0/d/{KEY}"
                locks = DomainLocks(paths.run, NODE, made=rooms.made_domain)
                leases = LeaseFiles(paths.run, NODE, MemoryJournal())
                for _ in range(50):
                    with locks.domain(KEY, timeout=30, create=True):
                        os.mkdir(f"{domain}/g0")
                        assert os.path.ismount(domain)
                        os.rmdir(f"{domain}/g0")
                        with rooms.changing(KEY) if apart else nullcontext():
                            assert leases.forget_domain(KEY) == ()
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4


def test_a_room_that_goes_takes_no_new_one_along(tmp_path: Path) -> None:
    done = run(OWN, f"opens_and_closes({str(tmp_path)!r})")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def writes_for_ever(base: str) -> None:
    """Ten times what the room holds, each time followed; then the domain's file is another one of the same number."""
    rooms = Rooms(NODE, Paths(run=f"{base}/run", log=f"{base}/log"), 1)
    path = f"{base}/room"
    tails: list[Tail] = []
    for again in ("first", "second"):
        os.makedirs(path, exist_ok=True)
        rooms.make(path)
        os.makedirs(f"{path}/g0/a")
        tails = tails or [Tail(f"{path}/g0/a/server.log", room=path)]
        with open(f"{path}/g0/a/server.log", "a") as log:
            for number in range(160):
                log.write(f"{again} {number}".ljust((1 << 16) - 1) + "\n")
                log.flush()
                assert [line.split() for line in tails[0].read()] == [[again, str(number)]]
        assert os.stat(log.name).st_size == 160 << 16
        subprocess.run(["umount", "-l", path], check=True)


def test_a_log_that_is_followed_never_fills_its_room(tmp_path: Path) -> None:
    done = run(OWN, f"writes_for_ever({str(tmp_path)!r})")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def run(own: tuple[str, ...], code: str) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(
        [*own, sys.executable, "-c", f"from tests.unit.test_rooms import *; {code}"],
        check=False, cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    if "unshare failed" in done.stderr:
        pytest.skip(f"no namespaces of our own: {done.stderr.strip()}")
    return done


def test_what_a_user_fills_is_his_own_and_goes_at_once(tmp_path: Path) -> None:
    done = run(OWN, f"scenario({str(tmp_path)!r})")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_where_others_do_not_look_nothing_is_mounted(tmp_path: Path) -> None:
    """A mount namespace that is not process 1's: a plain directory of the user's, and a word."""
    done = run(("unshare", "--mount"), f"Rooms(NODE, Paths(), 1).make({str(tmp_path / 'job')!r}, uid=USER, gid=USER)")
    assert done.stderr.endswith("job: files there have no limit: not in the mount namespace of process 1\n")
    assert (tmp_path / "job").stat().st_uid == USER
