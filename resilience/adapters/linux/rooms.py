"""Rooms: each directory of a user on /run and /var/log has a small tmpfs of its own, so that he fills nobody else's.

One for each job's directory, two for each fault domain of a user or job: its pipe directories, its logs. The prolog
mounts them before the job's first process, so that containers and private namespaces that are made for the job show
them; they go with MNT_DETACH (discards.py), which takes no time however full they are. A room shows in the mount
namespace of process 1 or there is none: otherwise slurmd, the agent and the jobs would not see the same. Where none can
be had the directory is a plain one, which is told.
"""

import ctypes
import fcntl
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from resilience import contract
from resilience.adapters.linux.discards import Discards
from resilience.adapters.linux.guarded_files import make_dir, make_dirs, read_regular, write_whole
from resilience.model.ids import DomainKey, NodeName
from resilience.model.settings import Paths

_INODES = 1024
"""A MiB, which is what as many cost the kernel."""
_FLAGS = 0x2 | 0x4 | 0x8
"""MS_NOSUID | MS_NODEV | MS_NOEXEC."""
_MNT_DETACH = 2
_LOGS = ("control.log", "server.log")
_LIBC = ctypes.CDLL(None, use_errno=True)


class Rooms:
    """Those of a node, each of `mib` MiB; 0: plain directories."""

    def __init__(self, node: NodeName, paths: Paths, mib: int) -> None:
        self._node = node
        self._paths = paths
        self._mib = mib
        self._discards = Discards(node, run=paths.run, log=paths.log)

    def make(self, path: str, *, mode: int = 0o755, uid: int = 0, gid: int = 0) -> None:
        """Have a directory with this owner and mode, in a room of its own when it is new. Raises OSError."""
        if os.path.ismount(path):
            return
        make_dir(path, mode=0o700)
        if os.listdir(path) or not self._mib or not self._mounted(path, f"mode={mode:o},uid={uid},gid={gid}"):
            make_dir(path, mode=mode, uid=uid, gid=gid)

    @contextmanager
    def changing(self, key: DomainKey) -> Iterator[None]:
        """While no domain's directory comes or goes: a room that is being taken away leaves a bare directory for a moment.
        Raises OSError."""
        directory = self._domain(key)
        make_dirs(os.path.dirname(directory))
        # A directory's lock would be any user's who can open it.
        fd = os.open(
            f"{os.path.dirname(os.path.dirname(directory))}/rooms.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    @contextmanager
    def made_domain(self, key: DomainKey) -> Iterator[None]:
        """The directory of a domain, new ones with rooms for pipes and logs; nobody takes it away inside. Raises OSError."""
        directory = self._domain(key)
        with self.changing(key):
            if not os.path.isdir(directory):
                if _is_shared(key):
                    make_dir(directory)
                else:
                    self._make_logs(self._domain_logs(key))
                    self.make(directory)
            yield

    def _make_logs(self, logs: str) -> None:
        """Without them a domain opens all the same."""
        try:
            self._discards.discard(logs)
            make_dirs(os.path.dirname(logs))
            self.make(logs)
        except OSError as error:
            _say(f"{logs}: {error.strerror}")

    def keep_logs(self, key: DomainKey) -> None:
        """A domain has closed: the ends of its logs become root's, on the disk; whatever else was there goes."""
        logs = self._domain_logs(key)
        if _is_shared(key) or not os.path.isdir(logs):
            return
        texts: dict[str, str] = {}
        for gpu in _directories(logs):
            for color in _directories(f"{logs}/{gpu}"):
                for name in _LOGS:
                    with suppress(OSError):
                        texts[f"{gpu}/{color}/{name}"] = read_regular(f"{logs}/{gpu}/{color}/{name}", tail=True)
        try:
            self._discards.discard(logs)
            for name, text in texts.items():
                make_dirs(os.path.dirname(f"{logs}/{name}"))
                write_whole(f"{logs}/{name}", text, mode=0o600)
        except OSError as error:
            _say(f"{logs}: the logs of a closed domain are not kept: {error.strerror}")

    def full(self, key: DomainKey) -> bool:
        """Whether the domain's own files have used up its rooms: then what fails there is no failure of the node."""
        for path in (self._domain(key), self._domain_logs(key)):
            with suppress(OSError):
                if os.path.ismount(path) and 0 in ((space := os.statvfs(path)).f_bavail, space.f_favail):
                    return True
        return False

    def _domain(self, key: DomainKey) -> str:
        return contract.path("domain", run=self._paths.run, node=self._node, key=key)

    def _domain_logs(self, key: DomainKey) -> str:
        one = contract.path(
            "mps_log", run=self._paths.run, log=self._paths.log, node=self._node, key=key, gpu=0, color="a"
        )
        return os.path.dirname(os.path.dirname(one))

    def _mounted(self, path: str, owner: str) -> bool:
        data = f"{owner},size={self._mib}m,nr_inodes={self._mib * _INODES}"
        if _LIBC.mount(b"mpsr", os.fsencode(path), b"tmpfs", _FLAGS, data.encode()) != 0:
            _say(f"{path}: files there have no limit: tmpfs: {os.strerror(ctypes.get_errno())}")
            return False
        if _shows_in_first_namespace(path):
            return True
        _LIBC.umount2(os.fsencode(path), _MNT_DETACH)
        _say(f"{path}: files there have no limit: not in the mount namespace of process 1")
        return False


def _shows_in_first_namespace(path: str) -> bool:
    """Whether a mount is seen where the node's services look: made there, or propagated to there."""
    mount = os.path.realpath(path)
    try:
        with open("/proc/1/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
            return any(line.split(maxsplit=5)[4] == mount for line in lines)
    except OSError:
        return False


def _is_shared(key: DomainKey) -> bool:
    """Its directories are root's alone."""
    return key.startswith("shared")


def _directories(path: str) -> list[str]:
    with os.scandir(path) as entries:
        return [entry.name for entry in entries if stat.S_ISDIR(entry.stat(follow_symlinks=False).st_mode)]


def _say(text: str) -> None:
    print(f"mpsr: room: {text}", file=sys.stderr)
