"""May root act on what a path names? Only where nobody but root, or the given owner, could have put it there.

The one rule, for leases, mpsr.yaml and the directories that root writes to; `parents_trusted` in
spank_plugin/shared/lease.c is its twin. Every component from / on must belong to root or the owner, and nobody else may
write it, except sticky directories such as /tmp, in which others cannot rename what is not theirs (the check that munge
makes of its key).
"""

import os
import stat
from collections.abc import Iterator

from resilience.model.errors import TrustError


def check_trusted(path: str, *, owner: int = 0) -> None:
    """Raise TrustError naming the first component of `path` that is not to be trusted; OSError for one that is missing."""
    for component in _from_root(os.path.abspath(path)):
        info = os.lstat(component)
        if stat.S_ISLNK(info.st_mode):
            raise TrustError(component, "is a symbolic link", os.readlink(component))
        check_status(component, info, owner=owner)


def check_status(component: str, info: os.stat_result, *, owner: int = 0) -> None:
    """Raise TrustError when others than root and `owner` could change what has this status."""
    if info.st_uid not in (0, owner):
        raise TrustError(component, "is not owned by root", f"uid {info.st_uid}", hint=f"chown root {component}")
    sticky_directory = stat.S_ISDIR(info.st_mode) and info.st_mode & stat.S_ISVTX
    if info.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not sticky_directory:
        mode = f"mode {stat.S_IMODE(info.st_mode):04o}"
        raise TrustError(component, "can be written by others", mode, hint=f"chmod go-w {component}")


def _from_root(path: str) -> Iterator[str]:
    """An absolute path's directories from / on, then itself."""
    if path != "/":
        yield from _from_root(os.path.dirname(path))
    yield path
