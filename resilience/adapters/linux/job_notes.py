"""Lines that the agent puts into a job's files when no supervisor of the job is there to do it: ports.Notes.

Done as the job's user (as_user.py), as the supervisors do it (spank_plugin/launcher/say.c): appended whole, no link
followed, and only to a plain file that is the user's alone. Raises ResilienceError otherwise, and when it takes too long.
"""

import os
import stat

from resilience.adapters.linux.as_user import as_user

_SECONDS = 10.0
"""A file system that hangs holds up only the lines of other such jobs."""
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class JobNotes:
    def write(self, uid: int, gid: int, path: str, line: str, *, create: bool) -> None:
        as_user(uid, gid, lambda: _append(path, f"{line}\n".encode(), create=create), seconds=_SECONDS)


def _append(path: str, text: bytes, *, create: bool) -> None:
    fd = os.open(path, _FLAGS | (os.O_CREAT if create else 0), 0o600)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_nlink != 1:
            raise PermissionError(f"{path} is not a plain file of this user alone")
        os.write(fd, text)
    finally:
        os.close(fd)
