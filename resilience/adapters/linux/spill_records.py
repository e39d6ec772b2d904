"""Which jobs' spilled state this node has left in place, because Slurm was to start them again: one file a job.

They lie in `{state}/{node}/spills`, root's alone, and outlive a reboot, as the spilled state does: a job that is cancelled
while it is pending has no epilog any more, and somebody has to remember it. A file's time is when Slurm was last asked
about the job. What cannot be read is left out; what cannot be written raises OSError.
"""

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass

from resilience import contract
from resilience.adapters.linux.guarded_files import make_dir, make_dirs, read_regular, write_whole
from resilience.model.errors import WireError
from resilience.model.ids import JobId, NodeName

_LIMIT = 1 << 19
"""Bytes: 64 directories with long names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpillRecord:
    job: JobId
    uid: int
    gid: int
    restart: int
    """Of the run that left it."""
    directories: tuple[str, ...]


class SpillRecords:
    def __init__(self, state: str, node: NodeName) -> None:
        self._directory = contract.path("spills", state=state, node=node)

    def keep(self, record: SpillRecord) -> None:
        make_dirs(os.path.dirname(self._directory))
        make_dir(self._directory, mode=0o700)
        write_whole(self._path(record.job), json.dumps(asdict(record)) + "\n", mode=0o600)

    def forget(self, job: JobId) -> None:
        with suppress(OSError):
            os.unlink(self._path(job))

    def asked(self, job: JobId) -> None:
        """Slurm was asked about it just now, and it is to stay."""
        with suppress(OSError):
            os.utime(self._path(job), follow_symlinks=False)

    def all(self) -> tuple[tuple[float, SpillRecord], ...]:
        """Time of the last question and record, the longest ago first."""
        found: list[tuple[float, SpillRecord]] = []
        with suppress(OSError):
            for entry in os.scandir(self._directory):
                if (record := _read(entry.path)) is not None and entry.name == str(record.job):
                    found.append((entry.stat(follow_symlinks=False).st_mtime, record))
        return tuple(sorted(found, key=lambda item: item[0]))

    def _path(self, job: JobId) -> str:
        return f"{self._directory}/{job}"


def _read(path: str) -> SpillRecord | None:
    try:
        words = json.loads(read_regular(path, limit=_LIMIT, owner=os.geteuid()))
        return SpillRecord(
            job=JobId(int(words["job"])),
            uid=int(words["uid"]),
            gid=int(words["gid"]),
            restart=int(words["restart"]),
            directories=tuple(map(str, words["directories"])),
        )
    except (OSError, WireError, ValueError, OverflowError, TypeError, KeyError, RecursionError):
        return None
