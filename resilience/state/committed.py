"""What is committed: a program's last commit, and the record of it from which another process goes on.

The record says which region of the arrays is whole (docs/reference/protocols.md §8). There is none without a keeper: the
last commit is this process's own then.
"""

from typing import Any

from resilience.model.errors import StateError
from resilience.state import wiping
from resilience.state.layout import ArraySpec, Layout
from resilience.state.record import COPYING, HELD, Commit, Record
from resilience.state.spillfile import Spilled
from resilience.state.stores import KeptStore, Store


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
        self._record: Record | None = None
        self._appended: list[ArraySpec] = []
        """In the order in which a record has their lengths."""

    def create(self, store: KeptStore, layout: Layout) -> int:
        """A new record, which has what is committed so far as its first entry; its descriptor."""
        self._appended = layout.appended
        self._record = Record.create()
        self.write(store, max(self.sequence, 0), self.step, self.values)
        return self._record.fd

    def take_in(self, fd: int, layout: Layout) -> None:
        """The record that another process made. Raises StateError."""
        self._appended = layout.appended
        self._record = Record(fd)

    def wipe(self) -> None:
        """Nobody is to go on from here: the values go from the record."""
        if self._record is not None:
            wiping.overwrite([self._record.fd])

    def go_on(self, store: KeptStore) -> None:
        """Make `work` the committed state, whichever region that is in. Raises StateError."""
        assert self._record is not None
        commit = self._record.latest()
        if commit is None:
            raise StateError("kept state", "there is no whole commit in the record")
        if len(commit.filled) != len(self._appended):
            raise StateError("kept state", "its record is not that of its arrays", f"{len(commit.filled)} lengths")
        self.filled = {spec.name: length for spec, length in zip(self._appended, commit.filled, strict=True)}
        if self.verify and commit.sums and store.sums(self.filled, work=commit.phase == COPYING) != commit.sums:
            raise StateError("kept state", "its content is not that of its commit", f"commit {commit.sequence}")
        if commit.phase == HELD:
            store.load()
        else:
            store.save()
            self._record.write(commit._replace(phase=HELD))
        store.clear_after(self.filled)
        self.sequence, self.step, self.values = commit.sequence, commit.step, commit.values

    def go_on_from_disk(self, found: Spilled) -> None:
        self.sequence, self.step, self.values, self.filled = found.sequence, found.step, found.values, found.filled

    def write(self, store: Store, sequence: int, step: int, values: dict[str, Any]) -> None:
        """The commit proper. `work` is whole before, and free again after."""
        if self._record and isinstance(store, KeptStore):
            filled = tuple(self.filled[spec.name] for spec in self._appended)
            sums = store.sums(self.filled, work=True) if self.verify else ()
            self._record.write(Commit(sequence, COPYING, step, values, filled, sums))
            store.save()
            self._record.write(Commit(sequence, HELD, step, values, filled, sums))
        self.sequence, self.step, self.values = sequence, step, values
