"""Kept state on disk: one file per task, from which a requeued job goes on.

`magic · length and CRC-32 of the head · head as JSON · each array's bytes in the head's order · CRC-32 of all before`,
little-endian. Written beside, fsynced, renamed, so that the name always holds a whole file; read back only with the CRC
right. The file belongs to the user, mode 0600, and is never opened through a link; the directory must be the user's alone,
since whoever may write it can put an older state in place of the newest.

Which file may be gone on from: the head names cluster, job, the state's name (resilience/state/identity.py), task, the
restart that wrote it and the *run* (a digest of the supervisor's token). The same run, or an earlier restart of the same
job, is taken; anything else with this name is a leftover of another job with the same number and is removed.

A program that finds a file of its name written by another in this start of the job, or a later one, leaves it alone and
puts a mark beside it (`.twins`): from then on nobody goes on from a state of that name, since nothing tells whose it is.
Files of earlier versions of mpsr, which were named by the step's number, are told of and left to the job's end.
"""

import contextlib
import json
import os
import re
import stat
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from resilience.model.errors import StateError
from resilience.state import identity, layout, numbers
from resilience.state.layout import ArraySpec
from resilience.state.names import SPILL
from resilience.state.record import Commit, Member, member

_MAGIC = b"mpsr-spill-3\n"
_ANY_MAGIC = b"mpsr-spill-"
_HEAD = struct.Struct("<II")
_CRC = struct.Struct("<I")
_MAX_HEAD = 1 << 24
_CHUNK = 1 << 24
"""Bytes written and summed at a time."""


class _OtherVersion(ValueError):
    """Written by another version of mpsr."""


class ForeignDirectory(StateError):
    """What lies at the spills' place is not a directory of this user alone: others got there first, or may write it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpillPlace:
    """Whose state it is and where it lies."""

    directory: Path
    cluster: str
    job: str
    owner: str
    """The state's name."""
    task: str
    restart: int
    run: str
    runs: frozenset[str]
    """Those of this start of the job whose state may be taken; `run` is one of them."""
    sequence: int | None = None
    """The commit in the file, of a rank of a group: it has a file for each (resilience/state/generations.py)."""

    @property
    def name(self) -> str:
        name = f"{self.job}.{self.owner}.{self.task}.state"
        return name if self.sequence is None else f"{name}.{self.sequence}"

    @property
    def path(self) -> Path:
        return self.directory / self.name

    @property
    def mark(self) -> str:
        return f"{self.job}.{self.owner.partition('+')[0]}.{self.task}.twins"


@dataclass(frozen=True, slots=True, kw_only=True)
class SpilledState:
    """The content of a file. `content` is empty when only the head was read."""

    sequence: int
    step: int
    values: dict[str, Any]
    filled: dict[str, int]
    arrays: list[ArraySpec]
    cluster: str
    restart: int
    run: str
    content: dict[str, bytearray]
    group: Member | None = None
    committed: bool = True
    """False: it was only PREPARED when its rank was stopped."""


def place(environ: Mapping[str, str], owner: str, runs: frozenset[str] = frozenset()) -> SpillPlace | None:
    """From a task's environment; None when nothing is to be spilled or this is no Slurm task."""
    if not environ.get(SPILL) or not environ.get("SLURM_JOB_ID"):
        return None
    run = identity.run_of(environ)
    return SpillPlace(
        directory=Path(environ[SPILL]),
        cluster=environ.get("SLURM_CLUSTER_NAME", ""),
        job=environ["SLURM_JOB_ID"],
        owner=owner,
        task=identity.task_of(environ),
        restart=identity.restart_of(environ),
        run=run,
        runs=runs | {run},
    )


def write(
    where: SpillPlace,
    commit: Commit,
    *,
    filled: Mapping[str, int],
    content: Iterable[tuple[ArraySpec, bytes | bytearray | memoryview]],
    committed: bool = True,
) -> None:
    """Put a commit on disk, whole or not at all; each commit of a group has a file of its own. Raises StateError naming the
    file (full disk, no permission, another's)."""
    if commit.group:
        where = replace(where, sequence=commit.sequence)
    _keep_apart(where)
    arrays = list(content)
    head = {
        "cluster": where.cluster,
        "job": where.job,
        "name": where.owner,
        "task": where.task,
        "restart": where.restart,
        "run": where.run,
        "sequence": commit.sequence,
        "step": commit.step,
        "values": numbers.standard(commit.values),
        "filled": dict(filled),
        **({"group": list(commit.group), "committed": committed} if commit.group else {}),
        "arrays": [[spec.name, list(spec.shape), spec.dtype, spec.where, spec.kind] for spec, _ in arrays],
    }
    text = json.dumps(head, separators=(",", ":")).encode("ascii")
    beside = f".{where.name}.{os.getpid()}"
    try:
        where.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with own_directory(where.directory) as directory:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(beside, flags, 0o600, dir_fd=directory)
            try:
                with open(fd, "wb", buffering=0) as file:
                    total = _put(file, _MAGIC + _HEAD.pack(len(text), zlib.crc32(text)) + text, 0)
                    for _, data in arrays:
                        total = _put(file, data, total)
                    _put(file, _CRC.pack(total), 0)
                    os.fsync(fd)
                os.rename(beside, where.name, src_dir_fd=directory, dst_dir_fd=directory)
            except OSError:
                with contextlib.suppress(OSError):
                    os.unlink(beside, dir_fd=directory)
                raise
            os.fsync(directory)
    except OSError as error:
        hint = f"the last whole one stays; see {SPILL} and the free space there"
        raise StateError("spill", f"cannot write {where.path}", error.strerror, hint=hint) from error


@contextlib.contextmanager
def own_directory(path: Path | str) -> Iterator[int]:
    """A descriptor of a directory that is this user's alone. Raises OSError, or ForeignDirectory when others may write it."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except NotADirectoryError:
        if os.path.islink(path):
            raise ForeignDirectory(
                "spill", f"{path} is not a directory of this user alone", "a symbolic link"
            ) from None
        raise
    except PermissionError as error:
        raise ForeignDirectory("spill", f"{path} is not a directory of this user alone", error.strerror) from None
    try:
        info = os.fstat(fd)
        if info.st_uid != os.geteuid() or info.st_mode & 0o022:
            observed = f"uid {info.st_uid} mode {stat.S_IMODE(info.st_mode):04o}"
            raise ForeignDirectory("spill", f"{path} is not a directory of this user alone", observed)
        yield fd
    finally:
        os.close(fd)


def _put(file: IO[bytes], data: bytes | bytearray | memoryview, crc: int) -> int:
    """Write all of it; the CRC so far."""
    view = memoryview(data)
    while view:
        written = file.write(view[:_CHUNK])
        crc = zlib.crc32(view[:written], crc)
        view = view[written:]
    return crc


def read(where: SpillPlace, *, content: bool = True) -> SpilledState | None:
    """What lies there, with its arrays (CRC checked) or only the head; None without a file. Raises StateError."""
    try:
        with own_directory(where.directory) as directory:
            fd = os.open(where.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StateError("spill", f"cannot read {where.path}", error.strerror) from error
    with open(fd, "rb") as file:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            raise StateError("spill", f"{where.path} is not a file of this user", f"uid {found.st_uid}")
        try:
            return _parse(file, where, content=content)
        except _OtherVersion as error:
            hint = "remove it to start afresh, or use the version of mpsr that wrote it"
            raise StateError("spill", f"{where.path} is of another version of mpsr", error, hint=hint) from None
        except (ValueError, OverflowError, TypeError, KeyError, RecursionError, StateError) as error:
            raise StateError("spill", f"{where.path} is damaged", error, hint="remove it to start afresh") from None


def _parse(file: IO[bytes], where: SpillPlace, *, content: bool) -> SpilledState:
    start = _exactly(file, len(_MAGIC) + _HEAD.size)
    if not start.startswith(_MAGIC):
        raise _OtherVersion(_version(start)) if start.startswith(_ANY_MAGIC) else ValueError("no spilled state")
    length, checksum = _HEAD.unpack_from(start, len(_MAGIC))
    if length > _MAX_HEAD:
        raise ValueError(f"head of {length} bytes")
    text = _exactly(file, length)
    if zlib.crc32(text) != checksum:
        raise ValueError("checksum of the head does not fit")
    head = json.loads(text)
    if [head["job"], head["name"], head["task"]] != [where.job, where.owner, where.task]:
        raise ValueError(f"state of {head['job']}.{head['name']}.{head['task']}")
    specs = [layout.read_spec(row[:3], *row[3:]) for row in head["arrays"]]
    filled = {spec.name: head["filled"][spec.name] for spec in specs if spec.kind == layout.APPEND}
    for spec in specs:
        if spec.name in filled and not (type(filled[spec.name]) is int and 0 <= filled[spec.name] <= spec.shape[0]):
            raise ValueError(f"array {spec.name} is {filled[spec.name]!r} long")
    arrays: dict[str, bytearray] = {}
    if content:
        crc = zlib.crc32(text, zlib.crc32(start))
        for spec in specs:
            data = _exactly(file, spec.stored(filled.get(spec.name, 0)))
            crc = zlib.crc32(data, crc)
            arrays[spec.name] = data
        if _exactly(file, _CRC.size) != _CRC.pack(crc) or file.read(1):
            raise ValueError("checksum does not fit")
    values = numbers.restored(head["values"])
    if not isinstance(values, dict):
        raise ValueError("values are no dictionary")
    return SpilledState(
        sequence=int(head["sequence"]),
        step=int(head["step"]),
        values=values,
        filled=filled,
        arrays=specs,
        cluster=str(head["cluster"]),
        restart=int(head["restart"]),
        run=str(head["run"]),
        content=arrays,
        group=member(head.get("group")),
        committed=bool(head.get("committed", True)),
    )


def _exactly(file: IO[bytes], size: int) -> bytearray:
    if size > os.fstat(file.fileno()).st_size:
        raise ValueError("file is too short")
    data = bytearray(size)
    view = memoryview(data)
    while view:
        got = file.readinto(view)  # type: ignore[attr-defined]
        if not got:
            raise ValueError("file is too short")
        view = view[got:]
    return data


def usable(where: SpillPlace) -> SpilledState | None:
    """The state to go on from, or None; a leftover of another job with this number is removed. Raises StateError."""
    head = read(where, content=False)
    if head is None or marked(where):
        return None
    if ours(where, head):
        return read(where)
    remove(where)
    return None


def ours(where: SpillPlace, head: SpilledState) -> bool:
    """Whether a task may go on from it: written in this run, or by an earlier start of its job."""
    return head.cluster == where.cluster and (head.run in where.runs or head.restart < where.restart)


def marked(where: SpillPlace) -> bool:
    """Two programs of this name have lived at once in this job."""
    with contextlib.suppress(OSError, StateError), own_directory(where.directory) as directory:
        os.stat(where.mark, dir_fd=directory, follow_symlinks=False)
        return True
    return False


def mark(where: SpillPlace) -> None:
    """From now on nobody goes on from a state of this name. Raises OSError or StateError."""
    where.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with own_directory(where.directory) as directory:
        os.close(os.open(where.mark, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory))


def _keep_apart(where: SpillPlace) -> None:
    """Raises StateError when the file of this name is another living program's."""
    if not marked(where):
        try:
            head = read(where, content=False)
        except StateError:
            return  # damaged: it is written anew
        if head is None or head.cluster != where.cluster or head.run in where.runs or head.restart < where.restart:
            return
        with contextlib.suppress(OSError):
            mark(where)
    hint = "give each session a name of its own: session(name=…); a requeued job starts both afresh"
    raise StateError(
        "spill", "another program of this job has the same name, nothing is written", where.owner, hint=hint
    )


def others(where: SpillPlace) -> list[str]:
    """What else this task's job has left there, each in words: files of earlier versions, state of other programs."""
    found = []
    named = re.compile(rf"{re.escape(where.job)}\.(.+)\.{re.escape(where.task)}\.state\Z", re.ASCII)
    with contextlib.suppress(OSError, StateError), own_directory(where.directory) as directory:
        for name in sorted(os.listdir(directory)):
            match = named.match(name)
            if name.startswith(f"{where.name}."):
                found.append(f"{where.directory / name} is of a session that was opened with group=")
            if match is None or name == where.name:
                continue
            start = _start(directory, name)
            if not start.startswith(_MAGIC) and start.startswith(_ANY_MAGIC):
                found.append(f"{where.directory / name} is of another version of mpsr: {_version(start)}")
            elif match[1].startswith("@") and where.restart and start.startswith(_MAGIC):
                found.append(f"{where.directory / name} is of another command of this job: {match[1]}")
    return found


def _start(directory: int, name: str) -> bytes:
    """The first bytes of a file; none of what is no plain file of this user."""
    with contextlib.suppress(OSError):
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
        try:
            info = os.fstat(fd)
            return os.read(fd, len(_MAGIC)) if stat.S_ISREG(info.st_mode) and info.st_uid == os.geteuid() else b""
        finally:
            os.close(fd)
    return b""


def _version(start: bytes | bytearray) -> str:
    return bytes(start[: len(_MAGIC)]).split(b"\n")[0].decode("ascii", "replace")


def sweep(where: SpillPlace) -> None:
    """Take away what writers that were killed have left half written."""
    with contextlib.suppress(OSError, StateError), own_directory(where.directory) as directory:
        for name in os.listdir(directory):
            if name.startswith(f".{where.name}."):
                os.unlink(name, dir_fd=directory)


def remove(where: SpillPlace) -> None:
    """Take the file away, and the directory when it was the last."""
    sweep(where)
    with contextlib.suppress(OSError, StateError):
        with own_directory(where.directory) as directory, contextlib.suppress(FileNotFoundError):
            os.unlink(where.name, dir_fd=directory)
        where.directory.rmdir()
