"""The disk copy of a session's commits: whose it is at which time, what was found there, when it goes.

The file belongs to the active process. A promoted standby takes it over with its first commit, not before: until then
the process before it may still be writing.
"""

import sys
import time
from collections.abc import Callable, Mapping

from resilience.model.settings import Kept as Defaults
from resilience.state import leftover, names, spillfile
from resilience.state.layout import ArraySpec
from resilience.state.record import Commit
from resilience.state.spillfile import ForeignDirectory, Spilled
from resilience.state.spillthread import SpillThread

_NO_SPILLS = "nothing is spilled, and a requeued job starts afresh; work in a directory that nobody else may write"
_Content = Callable[[], list[tuple[ArraySpec, bytearray]]]


class Spills:
    """`seconds`: the program's own choice of the shortest time between two; None: the site's."""

    def __init__(self, environ: Mapping[str, str], seconds: float | None) -> None:
        self._where = spillfile.place(environ)
        self._environ = environ
        self._seconds = _sites(environ) if seconds is None else seconds
        self._thread: SpillThread | None = None
        self._promoted = False

    def begin(self) -> None:
        """This process is the active one. The place is noted for the job's epilog."""
        if self._where:
            leftover.note(self._environ, str(self._where.directory))
            self._thread = SpillThread(self._where, self._seconds)

    def promoted(self) -> None:
        """This process is the active one from its first commit on."""
        self._promoted = True

    def found(self) -> Spilled | None:
        """What an earlier start of the job has left, if anything that may be gone on from. Raises StateError.

        A directory of another's in that place costs the spills and a line, not the job.
        """
        try:
            return spillfile.usable(self._where) if self._where else None
        except ForeignDirectory as error:
            told = ForeignDirectory(error.subject, error.wrong, error.observed, hint=_NO_SPILLS)
            print(told.lines(), file=sys.stderr, flush=True)
            self._where = self._thread = None
            return None

    def committed(self, commit: Commit, content: _Content, *, asked: Callable[[], bool]) -> None:
        """A commit has been made: copy it to disk too, if it is time or the supervisor asks for it."""
        self._take_over()
        if self._thread and self._thread.due(now=time.monotonic(), asked=asked()):
            self._thread.start(
                time.monotonic(),
                sequence=commit.sequence,
                step=commit.step,
                values=commit.values,
                content=content(),
            )

    def finish(self) -> None:
        """The program ends: what is being written is finished."""
        self._take_over()
        if self._thread:
            self._thread.join()

    def remove(self) -> None:
        """The program ended well."""
        if self._thread:
            spillfile.remove(self._thread.where)

    def _take_over(self) -> None:
        if self._promoted:
            self._promoted = False
            self.begin()


def _sites(environ: Mapping[str, str]) -> float:
    """The site's choice, as the supervisor has it from the agent; without one the default."""
    text = environ.get(names.SPILL_MS, "")
    return int(text) / 1000 if text.isascii() and text.isdigit() else Defaults().spill_seconds
