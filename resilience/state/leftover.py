"""What a job's spills leave on disk, seen from its end: where they may lie, what is there, and taking it away.

A session notes the directory of its spills in the job's own directory on the node (`jobs/<job>/spills`, one JSON text a
line), since a job's steps may run in different directories. The epilog reads that *as the job's user* and removes the
job's files as that user, so that neither what is noted there nor what lies in the directories gives anybody more than
they can do themselves.

Guarantees: only files with the names of this job's spills are touched, never through a link, and a directory goes only
when it is empty. What cannot be removed is returned in words.
"""

import contextlib
import json
import os
import re
import stat
from collections.abc import Mapping

from resilience.model.errors import StateError
from resilience.state.names import KEEPER
from resilience.state.spillfile import own_directory

NOTES = "spills"
_MAX_NOTES = 1 << 18
"""Bytes of notes that are read: hundreds of directories, and some whose paths are as long as may be."""
_MAX_PATH = 4095
_MAX_DIRECTORIES = 64
"""A job has one, or one for each --chdir of its steps."""


def note(environ: Mapping[str, str], directory: str) -> None:
    """Note a directory, unless it is; a job directory that is not there or full costs only the clean-up."""
    if not environ.get(KEEPER):
        return
    path = f"{os.path.dirname(environ[KEEPER])}/{NOTES}"
    line = json.dumps(directory).encode() + b"\n"
    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            if line not in os.pread(fd, _MAX_NOTES, 0).splitlines(keepends=True):
                os.write(fd, line)
        finally:
            os.close(fd)


def noted(path: str) -> list[str]:
    """The directories noted at `path`. What is no note is passed over."""
    directories: list[str] = []
    for line in _lines(path):
        with contextlib.suppress(ValueError, RecursionError):
            where = _path(json.loads(line))
            if where and where not in directories and len(directories) < _MAX_DIRECTORIES:
                directories.append(where)
    return directories


def _lines(path: str) -> list[bytes]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        return os.pread(fd, _MAX_NOTES, 0).splitlines() if stat.S_ISREG(os.fstat(fd).st_mode) else []
    except OSError:
        return []
    finally:
        os.close(fd)


def _path(value: object) -> str:
    """An absolute path, else nothing."""
    good = isinstance(value, str) and value.startswith("/") and "\0" not in value and len(value) <= _MAX_PATH
    return str(value) if good else ""


def _name(job: int) -> re.Pattern[str]:
    """Of a spill of the job, whole or half-written, or of the mark of two of one name."""
    whose = rf"{job}\.[A-Za-z0-9@+._-]+\.\d+"
    return re.compile(rf"(?:{whose}\.(?:state(?:\.\d+)?|twins)|\.{whose}\.state(?:\.\d+)+)\Z", re.ASCII)


def count(directory: str, job: int) -> int:
    """The job's files in a directory of this user; 0 when there is no such directory."""
    with contextlib.suppress(OSError, StateError), own_directory(directory) as fd:
        return sum(bool(_name(job).match(name)) for name in os.listdir(fd))
    return 0


def clear(directory: str, job: int) -> list[str]:
    """Remove the job's files there, and the directory when it is empty then; what is in the way, in words."""
    left: list[str] = []
    try:
        with own_directory(directory) as fd:
            for name in os.listdir(fd):
                if _name(job).match(name):
                    try:
                        os.unlink(name, dir_fd=fd)
                    except FileNotFoundError:
                        continue
                    except OSError as error:
                        left.append(f"{directory}/{name}: {error.strerror}")
        with contextlib.suppress(OSError):  # somebody keeps other files there
            os.rmdir(directory)
    except (FileNotFoundError, NotADirectoryError, StateError):
        return left
    except OSError as error:
        left.append(f"{directory}: {error.strerror}")
    return left
