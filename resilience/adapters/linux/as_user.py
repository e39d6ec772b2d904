"""Doing something as a job's user, in a child of a root process that has given up its rights for good.

The child is forked and not executed anew: a process that changes its user without an exec is closed to that user's
debuggers and to /proc/<pid>/fd (ptrace(2), dumpable), so the user cannot make it do anything else. It has no descriptor
of the parent's but the pipe of its answer, nothing of what root's services have against the OOM killer, and no way to
rights by a setuid program.

Relies on the parent being root, or the very user. Guarantees: the work runs with the uid, gid and groups of the user
alone or not at all; the parent waits at most `seconds`, also when the user's file system hangs. Raises ResilienceError
with what the work raised, or that it did not end in time.
"""

import ctypes
import json
import os
import pwd
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

from resilience.adapters.linux.readable import readable
from resilience.model.errors import ResilienceError

_MAX_ANSWER = 1 << 20
_STREAMS = 3
_MAX_FD = 1 << 16
"""Descriptors that are closed in the child: a hook of Slurm has a dozen."""
_PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 4, 38
_LIBC = ctypes.CDLL(None, use_errno=True)


def as_user(uid: int, gid: int, work: Callable[[], Any], *, seconds: float) -> Any:
    """What `work` returns (a value of JSON), done as this user."""
    groups = _groups(uid, gid)
    answer, pipe = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _child(uid, gid, groups, work, pipe)
    os.close(pipe)
    try:
        text = _read(answer, time.monotonic() + seconds)
    finally:
        os.close(answer)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)  # ours until it is reaped: the number cannot be another's
        _reap(pid)
    try:
        said = json.loads(text)
    except ValueError:
        raise ResilienceError(f"work of uid {uid}", "did not end in time", f"{seconds:g} s") from None
    if "error" in said:
        raise ResilienceError(f"work of uid {uid}", "failed", said["error"])
    return said["value"]


def _groups(uid: int, gid: int) -> list[int]:
    try:
        return os.getgrouplist(pwd.getpwuid(uid).pw_name, gid)
    except KeyError:
        return [gid]


def _child(uid: int, gid: int, groups: list[int], work: Callable[[], Any], pipe: int) -> NoReturn:
    """Never returns, whatever happens: this is a copy of the parent."""
    try:
        os.closerange(0, pipe)
        os.closerange(pipe + 1, _MAX_FD)
        for _ in range(_STREAMS):
            os.open(os.devnull, os.O_RDWR)
        _give_up_favours()
        if os.geteuid() == 0:
            os.setgroups(groups)
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
        if os.getresuid() != (uid, uid, uid):
            raise PermissionError(f"cannot become uid {uid}")
        _prctl(_PR_SET_DUMPABLE, 0)  # also where fs.suid_dumpable is 1
        os.chdir("/")
        os.umask(0o077)
        said = {"value": work()}
    except BaseException as error:  # nothing may run on in a copy of the parent
        said = {"error": f"{type(error).__name__}: {error}"}
    try:
        text = json.dumps(said).encode()[:_MAX_ANSWER]
        while text:
            text = text[os.write(pipe, text) :]
    finally:
        os._exit(0)


def _give_up_favours() -> None:
    with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("0")
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def _prctl(what: int, value: int) -> None:
    if _LIBC.prctl(what, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), f"prctl {what}")


def _read(answer: int, deadline: float) -> bytes:
    """All of the child's answer, or what came in time."""
    text = b""
    while (left := deadline - time.monotonic()) > 0:
        if not readable(answer, timeout=left):
            break
        chunk = os.read(answer, 1 << 16)
        if not chunk or len(text) > _MAX_ANSWER:
            break
        text += chunk
    return text


def _reap(pid: int) -> None:
    """Take the child's end, but do not wait for one that hangs in the kernel."""
    for _ in range(50):
        if os.waitpid(pid, os.WNOHANG)[0]:
            return
        time.sleep(0.002)
