"""Files that root keeps where users look on, and files that users keep where root must look.

Relies on trust.py for whether the directories above a file are root's alone. Guarantees: no symbolic link is followed at
the last step, no fifo or device is opened for long, reads are bounded, a written file is whole or absent, removal never
leaves the directory it was asked to remove. Failures raise OSError,
or TrustError for a file that must not be trusted, with the component that is wrong.
"""

import errno
import os
import stat
from contextlib import suppress

from resilience.adapters.linux.trust import check_status

_MOST_DIRECTORIES = 1 << 16
"""Levels of directories that are removed: far beyond what a path can name."""
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


def remove_tree(path: str) -> str:
    """Remove a directory (or whatever lies there) and all in it; empty when gone, else what is in the way.

    Works on descriptors of directories: a link that a user plants while we work is removed, not followed. Root takes
    each directory away from its user before it looks inside, so that nobody goes on filling it. However deep the tree
    is, two descriptors do: what lies deeper than one level is moved up.
    """
    try:
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            os.unlink(path)
            return ""
        top = _take(path)
        try:
            _empty(top, path)
        finally:
            os.close(top)
        os.rmdir(path)
    except FileNotFoundError:
        return "" if not os.path.lexists(path) else f"{path}: changes while it is removed"
    except OSError as error:
        return f"{error.filename or path}: {error.strerror}"
    return ""


def _take(path: str, inside: int | None = None) -> int:
    """A descriptor of a directory that is root's alone from now on."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=inside)
    if os.geteuid() == 0:
        os.fchown(fd, 0, 0)
        os.fchmod(fd, 0o700)
    return fd


def _empty(top: int, path: str) -> None:
    """Remove all that a directory holds. Raises OSError."""
    moved = 0
    for _ in range(_MOST_DIRECTORIES):
        directories = _without_files(top)
        if not directories:
            return
        for name in directories:
            inner = _take(name, top)
            try:
                for deeper in _without_files(inner):
                    moved += 1
                    while (place := f".moved-{moved}") in directories:
                        moved += 1
                    os.rename(deeper, place, src_dir_fd=inner, dst_dir_fd=top)
            finally:
                os.close(inner)
            os.rmdir(name, dir_fd=top)
    raise OSError(errno.ENOTEMPTY, "has no end of directories in it", path)


def _without_files(fd: int) -> list[str]:
    """Remove everything but directories; their names."""
    directories: list[str] = []
    with os.scandir(fd) as entries:
        for entry in list(entries):
            if entry.is_dir(follow_symlinks=False):
                directories.append(entry.name)
            else:
                os.unlink(entry.name, dir_fd=fd)
    return directories
