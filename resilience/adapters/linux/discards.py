"""What users have filled and nobody needs any more: taken away at once, removed afterwards.

Taking away is one rename into a directory of root's on the same file system, `gone`: it takes no time, however much is
in it, and what lies there is the record of what is still to be removed. Whoever comes next goes on with it: the hook
server after each epilog and at its start, and each epilog for as long as it may. One works at a time.
"""

import ctypes
import fcntl
import os
import re
import time
from contextlib import suppress

from resilience import contract
from resilience.adapters.linux.guarded_files import make_dir, make_dirs, remove_tree, take
from resilience.model.ids import NodeName

_DETACH = 2 | 8
"""MNT_DETACH | UMOUNT_NOFOLLOW."""
_LIBC = ctypes.CDLL(None, use_errno=True)
_PATIENCE = 2.0
"""Seconds for what cannot be taken away."""


class Discards:
    """Those of a node: what lies in `{run}/{node}` and, where it is given, in `{log}/{node}`."""

    def __init__(self, node: NodeName, *, run: str, log: str = "") -> None:
        places = [contract.path("gone", run=run, node=node)]
        if log:
            places.append(contract.path("gone_logs", log=log, node=node))
        self._places = sorted(places, key=len, reverse=True)  # one may lie in the other

    def prepare(self) -> None:
        """Have the directories, while there is room for them. Raises OSError."""
        for place in self._places:
            make_dirs(os.path.dirname(place))
            make_dir(place, mode=0o700)

    def discard(self, path: str) -> str:
        """Nothing is at `path` afterwards; empty, else why something is."""
        place = next(one for one in self._places if path.startswith(f"{os.path.dirname(one)}/"))
        try:
            _detach(path)
            os.close(take(path))
        except FileNotFoundError:
            return ""
        except OSError:  # no directory
            return remove_tree(path)
        try:
            with suppress(OSError):
                os.rmdir(path)  # most are empty
                return ""
            with suppress(OSError):
                make_dir(place, mode=0o700)
            name = f"{time.time_ns()}.{os.getpid()}"
            if os.stat(place).st_dev == os.lstat(path).st_dev:
                os.rename(path, f"{place}/{name}")
            else:  # in a room, with which it goes at the latest
                aside = f"{_top(path)}/.{name}"
                os.rename(path, aside)
                remove_tree(aside, until=time.monotonic() + _PATIENCE)
        except OSError:  # as on a file system without an inode left
            return remove_tree(path, until=time.monotonic() + _PATIENCE)
        return ""

    def clear(self, *, until: float) -> tuple[str, ...]:
        """Remove what was discarded, up to a time on the monotonic clock; what is left, and why, in words.

        What another process works on is not left: that goes on with all that is there.
        """
        return tuple(wrong for place in self._places for wrong in _clear(place, until))


def _top(path: str) -> str:
    """Where the file system of a path is mounted."""
    while not os.path.ismount(path):
        path = os.path.dirname(path)
    return path


def _detach(path: str) -> None:
    """Unmount what is mounted here or below, by us or by the user (fuse). Who has it open keeps it until then."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        places = [_plain(line.split()[4]) for line in file]
    for place in sorted((one for one in places if one == path or one.startswith(f"{path}/")), key=len, reverse=True):
        _LIBC.umount2(os.fsencode(place), _DETACH)


def _plain(field: str) -> str:
    """Space, tab, newline and backslash are written as octal numbers (proc(5))."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), field)


def _clear(place: str, until: float) -> list[str]:
    try:
        fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return []
    except OSError as error:
        return [f"{place}: {error.strerror}"]
    left: list[str] = []
    tried: set[str] = set()
    try:
        while names := sorted(set(os.listdir(fd)) - tried):
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return left
            tried.update(names)
            left += [wrong for name in names if (wrong := remove_tree(f"{place}/{name}", until=until))]
            fcntl.flock(fd, fcntl.LOCK_UN)  # before the next look: who came meanwhile has gone away
    finally:
        os.close(fd)
    return left
