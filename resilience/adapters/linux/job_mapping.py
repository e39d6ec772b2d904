"""The files that tell dcgm-exporter which jobs run on which GPU (paths.job_mapping; its --hpc-job-mapping-dir).

One file for each GPU, named by NVML's index, a job's number a line; the exporter then gives each of the GPU's metrics once for each job,
with the label hpc_job (dcgm-exporter, internal/pkg/transformation/hpc.go). Lines of others (a site's own prolog, jobs without MPS)
stay. A lock makes changes of several prologs and epilogs follow each other; a file is replaced whole, and goes with its last line.
Raises OSError, and TrustError where others than root could change the directory.
"""

import errno
import fcntl
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from resilience.adapters.linux.guarded_files import read_regular, write_whole
from resilience.adapters.linux.trust import check_trusted
from resilience.model.ids import JobId

_WAIT = 2.0
"""Seconds that a prolog waits for others; a change takes less than a millisecond."""
_PAUSE = 0.003


class JobMapping:
    def __init__(self, directory: str) -> None:
        self._directory = directory

    def add(self, job: JobId, gpus: Iterable[int]) -> None:
        """The job runs on these GPUs, by NVML's index."""
        with self._locked():
            for gpu in gpus:
                self._write(str(gpu), [*(line for line in self._lines(str(gpu)) if line != str(job)), str(job)])

    def remove(self, job: JobId) -> None:
        """The job runs on no GPU here any more."""
        with self._locked():
            for name in os.listdir(self._directory):
                if name.isascii() and name.isdigit() and str(job) in (lines := self._lines(name)):
                    self._write(name, [line for line in lines if line != str(job)])

    def _lines(self, name: str) -> list[str]:
        try:
            return read_regular(f"{self._directory}/{name}").splitlines()
        except FileNotFoundError:
            return []

    def _write(self, name: str, lines: list[str]) -> None:
        if lines:
            write_whole(f"{self._directory}/{name}", "".join(f"{line}\n" for line in lines))
        else:
            os.unlink(f"{self._directory}/{name}")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        check_trusted(self._directory)
        lock = os.open(f"{self._directory}/.lock", os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            until = time.monotonic() + _WAIT
            while not _taken(lock):
                if time.monotonic() > until:
                    raise OSError(errno.ETIMEDOUT, "is locked by another", self._directory)
                time.sleep(_PAUSE)
            yield
        finally:
            os.close(lock)


def _taken(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
