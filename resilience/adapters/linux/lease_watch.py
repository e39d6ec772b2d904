"""That leases have come or gone: the directory of a node's leases is watched, and nothing is polled.

What has changed is for the reader to see (ports.Leases): a lease is put in place by a rename, and several changes may come
as one. Raises ResilienceError when the directory cannot be had.
"""

import os

from resilience import contract
from resilience.adapters.linux.guarded_files import make_dirs
from resilience.adapters.linux.inotify import NAMES, Inotify
from resilience.model.errors import ResilienceError
from resilience.model.ids import JobId, NodeName


class LeaseWatch:
    """ports.Openings."""

    def __init__(self, run: str, node: NodeName) -> None:
        directory = os.path.dirname(contract.path("lease", run=run, node=node, job=JobId(0)))
        make_dirs(directory)
        self._inotify = Inotify()
        if self._inotify.add(directory, NAMES) is None:
            self._inotify.close()
            raise ResilienceError(directory, "cannot be watched")

    def fileno(self) -> int:
        return self._inotify.fd

    def read(self) -> None:
        self._inotify.read()

    def close(self) -> None:
        self._inotify.close()
