"""What is committed: a program's last commit, and the record of it from which another process goes on.

The record says which region of the arrays is whole (docs/reference/protocols.md §8). There is none without a keeper: the
last commit is this process's own then.
"""

from collections.abc import Callable
from typing import Any

from resilience.model.errors import StateError
from resilience.state import wiping
from resilience.state.layout import ArraySpec, Layout
from resilience.state.record import COPYING, HELD, PREPARED, Commit, CommitRecord, Member
from resilience.state.spillfile import SpilledState
from resilience.state.stores import KeptStore, Store

_GROUP = "open the session with group=, or give it another name to start afresh"


class Committed:
    """`verify`: the content is summed at each commit, and compared before a process goes on from it."""

    def __init__(self, *, verify: bool) -> None:
        self.verify = verify
        self.sequence = -1
        """Number of the last commit, over all processes of the task; -1 before the first."""
        self.step = -1
        self.values: dict[str, Any] = {}
        self.filled: dict[str, int] = {}
        """The committed length of each array that is appended to, in rows."""
        self.group: Member | None = None
        """Who made the last commit, when ranks made it together."""
        self._record: CommitRecord | None = None
        self._appended: list[ArraySpec] = []
        """In the order in which a record has their lengths."""

    def create(self, store: KeptStore, layout: Layout) -> int:
        """A new record, which has what is committed so far as its first entry; its descriptor."""
        self._appended = layout.appended
        self._record = CommitRecord.create()
        self.write(store, max(self.sequence, 0), self.step, self.values, group=self.group)
        return self._record.fd

    def take_in(self, fd: int, layout: Layout) -> None:
        """The record that another process made. Raises StateError."""
        self._appended = layout.appended
        self._record = CommitRecord(fd)

    def wipe(self) -> None:
        """Nobody is to go on from here: the values go from the record."""
        if self._record is not None:
            wiping.overwrite([self._record.fd])

    def go_on(self, store: KeptStore, decided: tuple[int, int, int] | None = None) -> None:
        """Make `work` the committed state, whichever region that is in. Raises StateError.

        decided: the commit of a group that all ranks go on from; None: the last one of this process alone.
        """
        assert self._record is not None
        commit = self._chosen(self._record, decided)
        if len(commit.filled) != len(self._appended):
            raise StateError("kept state", "its record is not that of its arrays", f"{len(commit.filled)} lengths")
        self.filled = {spec.name: length for spec, length in zip(self._appended, commit.filled, strict=True)}
        if self.verify and commit.sums and store.sums(self.filled, work=commit.phase != HELD) != commit.sums:
            raise StateError("kept state", "its content is not that of its commit", f"commit {commit.sequence}")
        if commit.phase == PREPARED:
            self._record.write(commit._replace(phase=COPYING))
        if commit.phase == HELD:
            self._record.withdraw()  # `work` is that of no later commit any more
            store.load()
        else:
            store.save()
            self._record.write(commit._replace(phase=HELD))
        store.clear_after(self.filled)
        self.sequence, self.step, self.values = commit.sequence, commit.step, commit.values
        self.group = commit.group

    def _chosen(self, record: CommitRecord, decided: tuple[int, int, int] | None) -> Commit:
        entries = record.entries()
        if not entries:
            raise StateError("kept state", "there is no whole commit in the record")
        if decided is None:
            if entries[0].group:
                raise StateError(
                    "kept state", f"is that of {entries[0].group.size} ranks that commit together", hint=_GROUP
                )
            return entries[0]
        mine = [one for one in entries if one.group and (one.sequence, one.step, one.group.start) == decided]
        if not mine:
            raise StateError("kept state", "is not at the step of the other ranks", f"step {decided[1]}")
        return mine[0]

    def go_on_from_disk(self, found: SpilledState) -> None:
        self.sequence, self.step, self.values, self.filled = found.sequence, found.step, found.values, found.filled
        self.group = found.group

    def write(
        self,
        store: Store,
        sequence: int,
        step: int,
        values: dict[str, Any],
        *,
        group: Member | None = None,
        meet: Callable[[], None] | None = None,
    ) -> None:
        """The commit proper. `work` is whole before, and free again after.

        meet: returns when all ranks of the group are at this commit; what it raises leaves the commit before.
        """
        if self._record and isinstance(store, KeptStore):
            filled = tuple(self.filled[spec.name] for spec in self._appended)
            sums = store.sums(self.filled, work=True) if self.verify else ()
            commit = Commit(sequence, COPYING, step, values, filled, sums, group)
            if meet:
                self._record.write(commit._replace(phase=PREPARED))
                meet()
            self._record.write(commit)
            store.save()
            self._record.write(commit._replace(phase=HELD))
        elif meet:
            meet()
        self.sequence, self.step, self.values, self.group = sequence, step, values, group
