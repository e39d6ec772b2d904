"""The disk copy of a session's commits: whose it is at which time, what was found there, when it goes.

The file belongs to the active process. A promoted standby takes it over with its first commit, not before: until then
the process before it may still be writing.
"""

import contextlib
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from resilience.model.errors import StateError
from resilience.model.settings import KeptState as Defaults
from resilience.state import generations, identity, leftover, names, spillfile
from resilience.state.agreement import Offer
from resilience.state.group import Disk
from resilience.state.record import Commit
from resilience.state.spillfile import ForeignDirectory, SpilledState, SpillPlace
from resilience.state.spillthread import SpillThread
from resilience.state.stores import Content

_NO_SPILLS = "nothing is spilled, and a requeued job starts afresh; work in a directory that nobody else may write"
_NOT_TAKEN = "this program starts afresh; session(name=…) keeps a program's state its own whatever its command is"
_TWIN = "after a requeue nothing tells whose state is whose, so both start afresh; give each a name: session(name=…)"
_Content = Callable[[], Content]


class Spills:
    """`seconds`: the program's own choice of the shortest time between two; None: the site's."""

    def __init__(self, environ: Mapping[str, str], seconds: float | None, name: str = "") -> None:
        self._environ = environ
        self._name = name
        self._seconds = _sites(environ) if seconds is None else seconds
        self._where: SpillPlace | None = None
        self._thread: SpillThread | None = None
        self._promoted = self._located = False
        self._whole: int | None = None
        """The commit that all ranks of a group are known to have on disk."""
        self._together = self._asked = False

    def begin(self) -> None:
        """This process is the active one. The place is noted for the job's epilog.

        Raises StateError when another program of the job is open under the name.
        """
        self._locate()
        if self._where:
            self._thread = SpillThread(self._where, self._seconds)

    def promoted(self, environ: Mapping[str, str]) -> None:
        """This process is the active one, from its first commit on; `environ` has its supervisor's own token."""
        self._environ = environ
        self._promoted = True

    def found(self) -> SpilledState | None:
        """What an earlier start of the job has left, if anything that may be gone on from. Raises StateError.

        A directory of another's in that place costs the spills and a line, not the job.
        """
        self._locate()
        if self._where is None:
            return None
        try:
            found = spillfile.usable(self._where)
        except ForeignDirectory as error:
            self._without(error)
            return None
        for other in [] if found else spillfile.others(self._where):
            _say(StateError("spill", "not gone on from", other, hint=_NOT_TAKEN))
        return found

    def _without(self, error: ForeignDirectory) -> None:
        _say(ForeignDirectory(error.subject, error.wrong, error.observed, hint=_NO_SPILLS))
        self._where = self._thread = None

    # ------------------------------------------------------------ of ranks that commit together
    def offers(self) -> list[Offer]:
        """What this rank has on disk. Raises StateError."""
        self._locate()
        try:
            return generations.offers(self._where) if self._where else []
        except ForeignDirectory as error:
            self._without(error)
            return []

    def load(self, sequence: int) -> SpilledState | None:
        """The commit of that number, or None when its file is damaged, which is told."""
        assert self._where is not None
        try:
            return spillfile.read(replace(self._where, sequence=sequence))
        except StateError as error:
            _say(error)
            return None

    def settled(self, on_disk: int) -> None:
        """All ranks have that commit on disk; -1: they have none in common."""
        if self._thread:
            self._thread.written = on_disk

    def stands(self, *, asked: bool) -> Disk:
        """For the other ranks, before a commit. `asked`: the supervisor wants one on disk."""
        if self._thread is None:
            return Disk(False, True, -1)
        self._asked = self._asked or asked  # until it is written: others may still be writing
        due = self._thread.due(now=time.monotonic(), asked=self._asked)
        return Disk(due, self._thread.idle, self._thread.written)

    def agreed(self, ranks: list[Disk]) -> None:
        """What all have said: write the commit that is being made when one wants it and all have written what was before."""
        written = {one.written for one in ranks if one.idle}
        idle = all(one.idle for one in ranks)
        if idle and len(written) == 1:
            self._whole = written.pop()
        self._together = idle and any(one.wanted for one in ranks)

    def committed_together(self, commit: Commit, filled: Mapping[str, int], content: _Content) -> None:
        """A commit of the group has been made: copy it to disk too, where that was agreed."""
        if self._thread and self._together:
            self._asked = False
            self._thread.start(time.monotonic(), commit, filled=filled, content=content(), beside=self._whole)

    def _locate(self) -> None:
        """Whose file it is; none when its owner cannot be told."""
        if self._located:
            return
        self._located = True
        claim = identity.claim(self._environ, self._name)
        self._where = spillfile.place(self._environ, claim.name, claim.runs)
        if self._where is None:
            return
        leftover.note(self._environ, str(self._where.directory))
        if claim.twin:
            with contextlib.suppress(OSError, StateError):
                spillfile.mark(self._where)
            _say(StateError("session", "another one of the same command runs in this job", claim.name, hint=_TWIN))
            self._where = None

    def committed(
        self, commit: Commit, filled: Mapping[str, int], content: _Content, *, asked: Callable[[], bool]
    ) -> None:
        """A commit has been made: copy it to disk too, if it is time or the supervisor asks for it."""
        self._take_over()
        if self._thread and self._thread.due(now=time.monotonic(), asked=asked()):
            self._thread.start(time.monotonic(), commit, filled=filled, content=content())

    def finish(self) -> None:
        """The program ends: what is being written is finished."""
        self._take_over()
        if self._thread:
            self._thread.join()

    def remove(self) -> None:
        """The program ended well."""
        identity.end(self._environ, self._name)
        if self._thread:
            generations.keep(self._thread.where, ())
            spillfile.remove(self._thread.where)

    def _take_over(self) -> None:
        if self._promoted:
            self._promoted = False
            self.begin()


def _sites(environ: Mapping[str, str]) -> float:
    """The site's choice, as the supervisor has it from the agent; without one the default."""
    text = environ.get(names.SPILL_MS, "")
    return int(text) / 1000 if text.isascii() and text.isdigit() else Defaults().spill_seconds


def _say(error: StateError) -> None:
    print(error.lines(), file=sys.stderr, flush=True)
