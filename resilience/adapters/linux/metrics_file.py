"""The file that node_exporter's textfile collector reads, kept up to date from the node's journal by a thread of its own.

It follows the journal as any reader does, from the moment it begins: what the agent and the hooks append, into a new
file when the old one was moved away. Nothing here runs on the agent's loop, and the agent never waits for it: the
thread sleeps until something is written, then for a while longer, reads all that has come, and writes the file anew if
a figure has changed. So an idle node's file is never written, and the moments after a fault belong to the recovery
alone: both threads share one interpreter. A directory that cannot be written, or that others than root could change, is
told once until it is good again. The file goes when the agent ends: what is read there is the agent's that runs now.
"""

import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from threading import Thread

from resilience.adapters.linux.guarded_files import write_whole
from resilience.adapters.linux.inotify import Inotify, Tail
from resilience.adapters.linux.readable import readable
from resilience.adapters.linux.trust import check_trusted
from resilience.metrics import Fold
from resilience.model.errors import ResilienceError, WireError

PACE = 5.0
"""Seconds between a change and the file, and so between two writes at least. Prometheus looks every 15 to 60."""
_AGAIN = 60.0
"""Seconds until a file that could not be written is tried again, when nothing happens before."""
_MOST = 1 << 26
"""Bytes read at a time: 200,000 records, more than all writers together bring about in `PACE`."""
_PATIENCE = 2.0
"""Seconds that the agent's end waits for the thread, whose file system may hang."""


class MetricsFile:
    """`say` is told what is wrong. Raises ResilienceError when the journal's directory cannot be watched."""

    def __init__(self, journal: str, path: str, say: Callable[[str], None], *, pace: float = PACE) -> None:
        self._path = path
        self._say = say
        self._pace = pace
        self._fold = Fold()
        self._written = ""
        self._wrong = ""
        self._inotify = Inotify()
        directory = os.path.dirname(journal)
        if self._inotify.add(directory) is None:
            self._inotify.close()
            raise ResilienceError("metrics", "the journal's directory cannot be watched", directory)
        self._tail = Tail(journal, most=_MOST)
        self._tail.skip(0)
        self._stop = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._thread = Thread(target=self._run, name="mpsr-metrics", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self._guarded(self._write)
        while self._news():
            self._guarded(self._read)
            self._guarded(self._write)
        if self._written:
            with suppress(OSError):
                os.unlink(self._path)

    def _guarded(self, call: Callable[[], None]) -> None:
        """The thread's outer edge: a figure may be wrong after it, the next ones come."""
        try:
            call()
        except Exception:
            print("mpsr: agent: unexpected error in metrics, going on:", file=sys.stderr)
            traceback.print_exc(file=sys.stderr)

    def _news(self) -> bool:
        """Wait until something was written, and until it is time to look. False: it is time to end."""
        ready = readable(self._inotify.fd, self._stop, timeout=_AGAIN if self._wrong else None)
        if self._stop in ready or readable(self._stop, timeout=self._pace):
            return False
        self._inotify.read()
        return True

    def _read(self) -> None:
        for line in self._tail.read():
            self._fold.line(line)

    def _write(self) -> None:
        text = self._fold.text()
        if text == self._written:
            return
        try:
            check_trusted(os.path.dirname(self._path))
            write_whole(self._path, text)
        except (OSError, WireError) as error:
            wrong = f"metrics are not written: {error}; see: mpsr check"
            if wrong != self._wrong:
                self._say(wrong)
            self._wrong = wrong
            return
        self._written, self._wrong = text, ""

    def close(self) -> None:
        """Remove the file and end."""
        os.eventfd_write(self._stop, 1)
        self._thread.join(_PATIENCE)
        if self._thread.is_alive():
            return  # it hangs in the file system, and still has its descriptors
        self._tail.close()
        self._inotify.close()
        os.close(self._stop)
