"""The locks of a node's fault domains: flock on files that only root can open, so that no user can hold them.

Two kinds. A *domain* lock (`{run}/{node}/d/{key}/lock`) is held while the servers or leases of a domain change: by
prolog, epilog, and an agent that replaces one. A *colour* lock (`.{color}.talk` beside the pipe directory) is held for
one conversation with one control daemon, which serves only one at a time.
The kernel drops a lock with its process, so none survives a kill. Removing a locked file is allowed: whoever gets a
lock checks that the file is still the one on disk, else tries again. Waiting ends at a deadline with MpsControlError.
"""

import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from resilience import contract
from resilience.adapters.linux.guarded_files import make_dirs
from resilience.model.errors import MpsControlError
from resilience.model.ids import DomainKey, NodeName, ServerId

_POLL = 0.003
"""Seconds between two tries for a lock; a conversation with a daemon takes about as long."""


class DomainLocks:
    """Re-entrant within a process, also across its threads: the lock is the process's, not the thread's."""

    def __init__(
        self, run: str, node: NodeName, *, made: Callable[[DomainKey], AbstractContextManager[None]] | None = None
    ) -> None:
        """`made` has a domain's directory, in place of a plain one, and keeps it while its lock is taken."""
        self._made = made or self._plain
        self._run = run
        self._node = node
        self._guard = threading.Lock()
        self._held: dict[str, tuple[int, int]] = {}
        """Path -> descriptor and number of holders in this process."""

    def domain_dir(self, key: DomainKey) -> str:
        return contract.path("domain", run=self._run, node=self._node, key=key)

    @contextmanager
    def _plain(self, key: DomainKey) -> Iterator[None]:
        make_dirs(self.domain_dir(key))
        yield

    @contextmanager
    def domain(self, key: DomainKey, *, timeout: float, create: bool = False) -> Iterator[None]:
        """Hold a domain. Without `create` a domain that is closed is an error: only a prolog opens one."""
        path = f"{self.domain_dir(key)}/lock"
        deadline = time.monotonic() + timeout
        while not self._join(path):
            try:
                with self._made(key) if create else nullcontext():
                    fd = _try(path)
            except FileNotFoundError:
                fd = None
                if not create:
                    raise MpsControlError("domain", "is closed", key) from None
            if fd is not None:
                with self._guard:
                    self._held[path] = (fd, 1)
                break
            _wait(path, deadline, f"domain {key}")
        try:
            yield
        finally:
            self._leave(path)

    @contextmanager
    def talk(self, server: ServerId, *, timeout: float, create: bool = False) -> Iterator[None]:
        """Hold the conversation with one control daemon. Not re-entrant: one conversation at a time is the point.

        Only who holds the domain may `create` the lock's file: to others a server without one is closed, so that nobody
        puts a file back into a directory that is being removed.
        """
        pipe = contract.path(
            "pipe", run=self._run, node=self._node, key=server.domain, gpu=server.gpu, color=server.color
        )
        path = talk_lock(pipe)
        deadline = time.monotonic() + timeout
        while True:
            try:
                fd = _try(path, create=create)
            except FileNotFoundError:
                raise MpsControlError("domain", "is closed", server.domain) from None
            if fd is not None:
                break
            _wait(path, deadline, f"server {server.domain}/g{server.gpu}/{server.color}")
        try:
            yield
        finally:
            os.close(fd)

    def _join(self, path: str) -> bool:
        with self._guard:
            held = self._held.get(path)
            if held is None:
                return False
            self._held[path] = (held[0], held[1] + 1)
            return True

    def _leave(self, path: str) -> None:
        with self._guard:
            fd, count = self._held[path]
            if count > 1:
                self._held[path] = (fd, count - 1)
            else:
                del self._held[path]
                os.close(fd)


def talk_lock(pipe: str) -> str:
    """The file that is locked for a conversation with the daemon of this pipe directory."""
    directory, color = os.path.split(pipe)
    return f"{directory}/.{color}.talk"


def _try(path: str, *, create: bool = True) -> int | None:
    """A locked descriptor of the file that is at `path` now, None when another holds it. Raises FileNotFoundError."""
    fd = os.open(path, os.O_RDWR | (os.O_CREAT if create else 0) | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(fd), os.stat(path)):
            return fd
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(fd)
    return None


def _wait(path: str, deadline: float, subject: str) -> None:
    if time.monotonic() >= deadline:
        raise MpsControlError(subject, "is locked by another process", path, hint=f"see who: fuser -v {path}")
    time.sleep(_POLL)
