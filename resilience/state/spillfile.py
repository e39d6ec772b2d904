"""Kept state on disk: one file per task, from which a requeued job goes on.

`magic · length and CRC-32 of the head · head as JSON · each array's bytes in the head's order · CRC-32 of all before`,
little-endian. Written beside, fsynced, renamed, so that the name always holds a whole file; read back only with the CRC
right. The file belongs to the user, mode 0600, and is never opened through a link; the directory must be the user's alone,
since whoever may write it can put an older state in place of the newest.

Which file may be gone on from: the head names cluster, job, step, task, the restart that wrote it and the *run* (a digest
of the supervisor's token). The same run, or an earlier restart of the same job, is taken; anything else with this name is a
leftover of another job with the same number and is removed.
"""

import contextlib
import hashlib
import json
import os
import stat
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from resilience.model.errors import StateError
from resilience.state import layout
from resilience.state.layout import ArraySpec
from resilience.state.names import SPILL, TOKEN

_MAGIC = b"mpsr-spill-1\n"
_HEAD = struct.Struct("<II")
_CRC = struct.Struct("<I")
_MAX_HEAD = 1 << 20
_CHUNK = 1 << 24
"""Bytes written and summed at a time."""


class ForeignDirectory(StateError):
    """What lies at the spills' place is not a directory of this user alone: others got there first, or may write it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Whose state it is and where it lies."""

    directory: Path
    cluster: str
    job: str
    step: str
    task: str
    restart: int
    run: str

    @property
    def name(self) -> str:
        return f"{self.job}.{self.step}.{self.task}.state"

    @property
    def path(self) -> Path:
        return self.directory / self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Spilled:
    """The content of a file. `content` is empty when only the head was read."""

    sequence: int
    step: int
    values: dict[str, Any]
    arrays: list[ArraySpec]
    cluster: str
    restart: int
    run: str
    content: dict[str, bytearray]


def place(environ: Mapping[str, str]) -> Place | None:
    """From a task's environment; None when nothing is to be spilled or this is no Slurm task."""
    if not environ.get(SPILL) or not environ.get("SLURM_JOB_ID"):
        return None
    restart = environ.get("SLURM_RESTART_COUNT", "")
    return Place(
        directory=Path(environ[SPILL]),
        cluster=environ.get("SLURM_CLUSTER_NAME", ""),
        job=environ["SLURM_JOB_ID"],
        step=environ.get("SLURM_STEP_ID", "0"),
        task=environ.get("SLURM_PROCID", "0"),
        restart=int(restart) if restart.isdigit() else 0,
        run=hashlib.sha256(environ.get(TOKEN, "").encode()).hexdigest()[:16],
    )


def write(
    where: Place,
    *,
    sequence: int,
    step: int,
    values: dict[str, Any],
    content: Iterable[tuple[ArraySpec, bytes | bytearray]],
) -> None:
    """Put a commit on disk, whole or not at all. Raises StateError naming the file (full disk, no permission)."""
    arrays = list(content)
    head = {
        "cluster": where.cluster,
        "job": where.job,
        "step_id": where.step,
        "task": where.task,
        "restart": where.restart,
        "run": where.run,
        "sequence": sequence,
        "step": step,
        "values": values,
        "arrays": [[spec.name, list(spec.shape), spec.dtype] for spec, _ in arrays],
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


def _put(file: IO[bytes], data: bytes | bytearray, crc: int) -> int:
    """Write all of it; the CRC so far."""
    view = memoryview(data)
    while view:
        written = file.write(view[:_CHUNK])
        crc = zlib.crc32(view[:written], crc)
        view = view[written:]
    return crc


def read(where: Place, *, content: bool = True) -> Spilled | None:
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
        except (ValueError, TypeError, KeyError, RecursionError, StateError) as error:
            raise StateError("spill", f"{where.path} is damaged", error, hint="remove it to start afresh") from None


def _parse(file: IO[bytes], where: Place, *, content: bool) -> Spilled:
    start = _exactly(file, len(_MAGIC) + _HEAD.size)
    if not start.startswith(_MAGIC):
        raise ValueError("no spilled state of this version")
    length, checksum = _HEAD.unpack_from(start, len(_MAGIC))
    if length > _MAX_HEAD:
        raise ValueError(f"head of {length} bytes")
    text = _exactly(file, length)
    if zlib.crc32(text) != checksum:
        raise ValueError("checksum of the head does not fit")
    head = json.loads(text)
    if [head["job"], head["step_id"], head["task"]] != [where.job, where.step, where.task]:
        raise ValueError(f"state of task {head['job']}.{head['step_id']}.{head['task']}")
    specs = [layout.spec(*row) for row in head["arrays"]]
    arrays: dict[str, bytearray] = {}
    if content:
        crc = zlib.crc32(text, zlib.crc32(start))
        for spec in specs:
            data = _exactly(file, spec.nbytes)
            crc = zlib.crc32(data, crc)
            arrays[spec.name] = data
        if _exactly(file, _CRC.size) != _CRC.pack(crc) or file.read(1):
            raise ValueError("checksum does not fit")
    if not isinstance(head["values"], dict):
        raise ValueError("values are no dictionary")
    return Spilled(
        sequence=int(head["sequence"]),
        step=int(head["step"]),
        values=head["values"],
        arrays=specs,
        cluster=str(head["cluster"]),
        restart=int(head["restart"]),
        run=str(head["run"]),
        content=arrays,
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


def usable(where: Place) -> Spilled | None:
    """The state to go on from, or None; a leftover of another job with this number is removed. Raises StateError."""
    head = read(where, content=False)
    if head is None:
        return None
    if ours(where, head):
        return read(where)
    remove(where)
    return None


def ours(where: Place, head: Spilled) -> bool:
    """Whether a task may go on from it: written in this run, or by an earlier start of its job."""
    return head.cluster == where.cluster and (head.run == where.run or head.restart < where.restart)


def sweep(where: Place) -> None:
    """Take away what writers that were killed have left half written."""
    with contextlib.suppress(OSError, StateError), own_directory(where.directory) as directory:
        for name in os.listdir(directory):
            if name.startswith(f".{where.name}."):
                os.unlink(name, dir_fd=directory)


def remove(where: Place) -> None:
    """Take the file away, and the directory when it was the last."""
    sweep(where)
    with contextlib.suppress(OSError, StateError):
        with own_directory(where.directory) as directory, contextlib.suppress(FileNotFoundError):
            os.unlink(where.name, dir_fd=directory)
        where.directory.rmdir()
