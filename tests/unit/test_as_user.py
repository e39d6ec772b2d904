"""A root process that does something as a user: all its rights are gone, it cannot be taken over, it cannot hang us."""

import ctypes
import errno
import os
import time
from pathlib import Path

import pytest

from resilience.adapters.linux.as_user import as_user
from resilience.model.errors import ResilienceError

UID, GID = 65534, 65534
PTRACE_SEIZE = 0x4206
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, as an epilog is")


def test_nothing_of_root_is_left() -> None:
    def work() -> list[object]:
        try:
            os.setresuid(0, 0, 0)
            back = True
        except PermissionError:
            back = False
        capabilities = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("Cap")]
        return [os.getresuid(), os.getresgid(), os.getgroups(), back, capabilities]

    uids, gids, groups, back, capabilities = as_user(UID, GID, work, seconds=10)
    assert (uids, gids, back) == ([UID] * 3, [GID] * 3, False)
    assert 0 not in groups
    assert all(line.split()[1].strip("0") == "" for line in capabilities if not line.startswith("CapBnd"))


def test_the_user_cannot_take_the_process_over() -> None:
    """What is not dumpable belongs to root in /proc: neither ptrace nor its descriptors are the user's."""
    assert as_user(UID, GID, lambda: os.stat("/proc/self/environ").st_uid, seconds=10) == 0


def test_the_user_cannot_trace_it() -> None:
    """Neither from its beginning nor later: what asks is the same user, without more."""

    def traced() -> int:
        parent = os.getpid()
        child = os.fork()
        if child == 0:
            libc = ctypes.CDLL(None, use_errno=True)
            libc.ptrace(PTRACE_SEIZE, parent, 0, 0)
            os._exit(ctypes.get_errno())
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    assert as_user(UID, GID, traced, seconds=10) == errno.EPERM


def test_no_favour_of_roots_services_goes_along() -> None:
    """An agent has OOMScoreAdjust; here it is a positive one, which anybody may set."""

    def favours() -> list[str]:
        status = Path("/proc/self/status").read_text().splitlines()
        return [
            Path("/proc/self/oom_score_adj").read_text(),
            *(line for line in status if line.startswith("NoNewPrivs")),
        ]

    mine = Path("/proc/self/oom_score_adj")
    before = mine.read_text()
    try:
        mine.write_text("500")
        assert as_user(UID, GID, favours, seconds=10) == ["0\n", "NoNewPrivs:\t1"]
    finally:
        mine.write_text(before)


def test_descriptors_of_root_do_not_go_along(tmp_path: Path) -> None:
    with (tmp_path / "secret").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        fds = as_user(UID, GID, lambda: sorted(map(int, os.listdir("/proc/self/fd"))), seconds=10)
        assert file.fileno() not in fds
    assert len([fd for fd in fds if fd > 2]) == 2  # the pipe, and the listing itself


def test_a_user_whose_file_system_hangs_is_not_waited_for() -> None:
    began = time.monotonic()
    with pytest.raises(ResilienceError, match="work of uid 65534: did not end in time"):
        as_user(UID, GID, lambda: time.sleep(60), seconds=0.2)
    assert time.monotonic() - began < 5


def test_what_the_work_raises_comes_back(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("root's")
    (tmp_path / "mine").chmod(0o600)
    with pytest.raises(ResilienceError, match="work of uid 65534: failed: PermissionError"):
        as_user(UID, GID, (tmp_path / "mine").read_text, seconds=10)


def test_a_child_that_ends_itself_is_told() -> None:
    with pytest.raises(ResilienceError, match="did not end in time"):
        as_user(UID, GID, lambda: os._exit(0), seconds=10)


def test_a_long_answer_arrives_whole() -> None:
    assert as_user(UID, GID, lambda: "x" * 300_000, seconds=10) == "x" * 300_000
