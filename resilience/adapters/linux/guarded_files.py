"""Files that root keeps where users look on, and files that users keep where root must look.

Relies on trust.py for whether the directories above a file are root's alone. Guarantees: no symbolic link is followed at
the last step, no fifo or device is opened for long, reads are bounded, a written file is whole or absent, removal never
leaves the directory it was asked to remove. Failures raise OSError,
or TrustError for a file that must not be trusted, with the component that is wrong.
"""

import errno
import itertools
import math
import os
import stat
import time
from collections.abc import Iterator
from contextlib import suppress

from resilience.adapters.linux.trust import check_status

_AT_ONCE = 1 << 10
"""Directories that are kept in mind at a time."""
_LOOK = 64
"""Removals between two looks at the clock."""
READ_LIMIT = 1 << 18
"""Bytes read of a log: thousands of lines, and no more than a moment's work."""


def read_regular(path: str, *, limit: int = READ_LIMIT, tail: bool = False, owner: int | None = None) -> str:
    """Text of a regular file, its first (or last) `limit` bytes. Raises OSError; ELOOP for a link, EINVAL for others.

    `owner` demands that the *opened* file is that user's, or root's, and that nobody else may write it.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        if owner is not None:
            check_status(path, info, owner=owner)
        if tail and info.st_size > limit:
            os.lseek(fd, info.st_size - limit, os.SEEK_SET)
        chunks: list[bytes] = []
        while (left := limit - sum(map(len, chunks))) > 0 and (chunk := os.read(fd, left)):
            chunks.append(chunk)
    finally:
        os.close(fd)
    return b"".join(chunks).decode("utf-8", "replace")


def read_or_empty(path: str, *, tail: bool = True) -> str:
    """A log's text; empty when it is not there or not a file that can be read without harm."""
    try:
        return read_regular(path, tail=tail)
    except OSError:
        return ""


def write_whole(path: str, text: str, *, mode: int = 0o644) -> None:
    """Write beside, then rename into place: readers see the old text or the new one, never half of it."""
    beside = f"{path}.{os.getpid()}.new"
    with suppress(FileNotFoundError):
        os.unlink(beside)
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        try:
            data = text.encode("utf-8")
            while data:
                data = data[os.write(fd, data) :]
            os.fchmod(fd, mode)
        finally:
            os.close(fd)
        os.rename(beside, path)
    except OSError:
        with suppress(OSError):
            os.unlink(beside)
        raise


def make_dir(path: str, *, mode: int = 0o755, uid: int = -1, gid: int = -1) -> None:
    """Have directory `path` with this owner and mode. Its parent must be root's; a link in its place is refused."""
    with suppress(FileExistsError):
        os.mkdir(path, mode)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        info = os.fstat(fd)
        if (uid, gid) != (-1, -1) and (info.st_uid, info.st_gid) != (uid, gid):
            os.fchown(fd, uid, gid)
        if stat.S_IMODE(info.st_mode) != mode:
            os.fchmod(fd, mode)
    finally:
        os.close(fd)


def make_dirs(path: str) -> None:
    """Have `path` and all above it; what is missing is made root's, 0755, whatever the umask is."""
    if os.path.isdir(path):
        return
    make_dirs(os.path.dirname(path))
    make_dir(path)


def remove_tree(path: str, *, until: float = math.inf) -> str:
    """Remove a directory (or whatever lies there) and all in it; empty when gone, else what is in the way.

    Works on descriptors of directories: a link that a user plants while we work is removed, not followed. Root takes
    each directory away from its user before it looks inside, so that nobody goes on filling it. However deep the tree
    is, two descriptors do: what lies deeper than one level is moved up. However much is in it, little memory does.
    `until`, on the monotonic clock, it gives up; what is left then can be removed later.
    """
    try:
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            os.unlink(path)
            return ""
        top = take(path)
        try:
            _empty(top, path, until)
        finally:
            os.close(top)
        os.rmdir(path)
    except FileNotFoundError:
        return "" if not os.path.lexists(path) else f"{path}: changes while it is removed"
    except OSError as error:
        return f"{error.filename or path}: {error.strerror}"
    return ""


def take(path: str, inside: int | None = None) -> int:
    """A descriptor of a directory that is root's alone from now on."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=inside)
    if os.geteuid() == 0:
        os.fchown(fd, 0, 0)
        os.fchmod(fd, 0o700)
    return fd


def _empty(top: int, path: str, until: float) -> None:
    """Remove all that a directory holds. Raises OSError."""
    moved = itertools.count(1)
    while directories := _some_directories(top, path, until):
        for name in directories:
            inner = take(name, top)
            try:
                while deeper := _some_directories(inner, path, until):
                    for one in deeper:
                        _move_up(one, inner, top, moved)
            finally:
                os.close(inner)
            os.rmdir(name, dir_fd=top)


def _move_up(name: str, inner: int, top: int, moved: Iterator[int]) -> None:
    for number in moved:
        try:
            os.stat(place := f".moved-{number}", dir_fd=top, follow_symlinks=False)
        except FileNotFoundError:
            os.rename(name, place, src_dir_fd=inner, dst_dir_fd=top)
            return


def _some_directories(fd: int, path: str, until: float) -> list[str]:
    """Some directories that a directory holds, with other things on the way removed; none once it is empty."""
    directories: list[str] = []
    found = True
    while found and not directories:
        found = False
        with os.scandir(fd) as entries:
            for number, entry in enumerate(entries):
                found = True
                if number % _LOOK == 0 and time.monotonic() >= until:
                    raise OSError(errno.ETIME, "holds more than could be removed in time", path)
                if not entry.is_dir(follow_symlinks=False):
                    os.unlink(entry.name, dir_fd=fd)
                    continue
                directories.append(entry.name)
                if len(directories) == _AT_ONCE:
                    break
    return directories
