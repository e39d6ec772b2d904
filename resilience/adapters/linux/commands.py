"""Running one program, bounded in time and in what it may print; as another user when its first words say so
(enclosures.py).

Guarantees: the program gets exactly the environment given, no descriptor of ours, a session of its own, and its
output goes to anonymous memory rather than a pipe: a daemon that keeps it open keeps nobody waiting. A program that
does not end in time, or whose end is not told, is killed and reported as such; one that cannot be started is status 127
or 126, as in a shell.
"""

import os
import pwd
import resource
import select
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

OUTPUT_LIMIT = 1 << 16
"""Bytes kept of each output stream; an answer of a control daemon with 60 clients has 500."""
INPUT_LIMIT = 4096
"""Bytes of standard input; they fit into a pipe whole, so that writing never waits for the reader."""
OPEN_FILES = 16384
"""NVIDIA's advice for an MPS server's limit of open files."""
_REAP = 0.5
"""Seconds for the status of a program that has ended or been killed. It is not told as long as a tracer, such as its
user's, takes no note of the end (ptrace(2)), or a call of the driver does not return."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    status: int
    """Exit status; 128 + n after signal n."""
    stdout: str
    stderr: str
    timed_out: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RunAs:
    uid: int
    gid: int

    def words(self) -> tuple[str, str, str]:
        """For mpsr-enter: user, group, and the supplementary groups by the system's user database; the group alone for a
        user that it does not know."""
        try:
            groups = os.getgrouplist(pwd.getpwuid(self.uid).pw_name, self.gid)
        except KeyError:
            groups = [self.gid]
        return str(self.uid), str(self.gid), ",".join(map(str, groups))


_unreaped: list[subprocess.Popen[bytes]] = []


def run(argv: Sequence[str], *, stdin: bytes, env: Mapping[str, str], timeout: float) -> Ran:
    """Run to the end of the program itself; what it leaves in the background is not waited for."""
    _unreaped[:] = [one for one in _unreaped if one.poll() is None]
    out, err = (os.memfd_create(name, os.MFD_CLOEXEC) for name in ("out", "err"))
    feed, write = os.pipe2(os.O_CLOEXEC)
    try:
        try:
            os.write(write, stdin[:INPUT_LIMIT])
        finally:
            os.close(write)
        try:
            child = subprocess.Popen(
                list(argv),
                stdin=feed,
                stdout=out,
                stderr=err,
                env=dict(env),
                cwd="/",
                start_new_session=True,
                umask=0o022,
            )
        except FileNotFoundError:
            return Ran(status=127, stdout="", stderr=f"not found: {argv[0]}", timed_out=False)
        except OSError as error:
            return Ran(status=126, stdout="", stderr=str(error.strerror), timed_out=False)
        timed_out = not _ended(child.pid, timeout)
        if timed_out:
            child.kill()
        try:
            status = child.wait(_REAP)
        except subprocess.TimeoutExpired:
            _unreaped.append(child)
            status, timed_out = -signal.SIGKILL, True
        return Ran(
            status=status if status >= 0 else 128 - status, stdout=_text(out), stderr=_text(err), timed_out=timed_out
        )
    finally:
        for fd in (out, err, feed):
            os.close(fd)


def _ended(pid: int, timeout: float) -> bool:
    """Wait for a child that nobody else waits for, without the polling of Popen.wait."""
    fd = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return bool(poll.poll(max(timeout, 0) * 1000))
    finally:
        os.close(fd)


def _text(fd: int) -> str:
    return os.pread(fd, OUTPUT_LIMIT, 0).decode("utf-8", "replace")


def raise_open_files() -> None:
    """Let children of this process open as many files as an MPS server needs, as far as that is allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
