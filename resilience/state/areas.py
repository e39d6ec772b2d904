"""Areas: arrays of one kind side by side, in memory that outlives the process.

An area of kind `state` has two spans: `work`, which the program works on, and `kept`, the last commit. `kept` is made when
the declarations have ended, as large as it needs to be then. A commit is one copy an area, however many arrays lie in it.
Arrays of kind `constant` are whole with the first commit and are read-only then; what is below the committed length of one of kind
`append` is not written again. Both have one span, which a commit does not copy.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from resilience.state import layout
from resilience.state.layout import APPEND, CONSTANT, STATE


class MappedSpan(Protocol):
    """Addresses with memory behind them (resilience/state/memory.py)."""

    address: int
    parts: list[int]
    fds: list[int]

    @property
    def row(self) -> layout.Span: ...
    def reach(self, size: int, *, ahead: bool) -> None: ...
    def take_in(self, parts: Sequence[int], fds: Sequence[int]) -> None: ...
    def clear(self, size: int) -> None: ...
    def copy(self, source: Any, size: int) -> None: ...
    def sum(self, at: int, size: int) -> int: ...
    def protect(self) -> None: ...
    def zero(self, at: int, size: int) -> None: ...
    def wipe(self) -> None: ...
    def write(self, at: int, content: bytearray) -> None: ...
    def read(self, at: int, size: int) -> bytearray: ...


class Memory(Protocol):
    """Makes spans in one kind of memory."""

    def new(self) -> MappedSpan: ...
    def take_in(self, row: layout.Span, fds: Sequence[int]) -> MappedSpan: ...
    def stand_in(self, row: layout.Span, *, used: bool) -> MappedSpan: ...
    def give_way(self) -> None: ...
    def warm(self, spans: Sequence[Any], *, sums: bool) -> None: ...
    def wait(self) -> None: ...


class MappedArea:
    """`used` bytes of arrays; `spans` are work and, once the declarations have ended, kept."""

    def __init__(self, where: str, kind: str, memory: Memory, spans: list[MappedSpan], used: int = 0) -> None:
        self.where = where
        self.kind = kind
        self.used = used
        self.memory = memory
        self.spans = spans
        self._constant: int | None = None
        """The sum of what never changes."""

    @property
    def work(self) -> MappedSpan:
        return self.spans[0]

    @property
    def row(self) -> layout.Area:
        return layout.Area(
            where=self.where, kind=self.kind, used=self.used, spans=tuple(span.row for span in self.spans)
        )

    @property
    def fds(self) -> list[int]:
        return [fd for span in self.spans for fd in span.fds]

    def place(self, size: int) -> int:
        """Room for one more array of zeros; where in the area it begins. Raises GpuError."""
        at, parts = layout.aligned(self.used), len(self.work.parts)
        self.work.reach(at + max(size, 1), ahead=True)
        if len(self.work.parts) > parts:
            self.memory.wait()  # for the zeros: a program may write on a stream that nothing orders after ours
        self.used = at + size
        return at

    def close(self) -> None:
        """No more arrays come. Raises GpuError."""
        if self.kind == STATE:
            kept = self.memory.new()
            kept.reach(max(self.used, 1), ahead=False)
            self.spans.append(kept)

    def protect(self) -> None:
        """What is constant is read-only from now on."""
        if self.kind == CONSTANT:
            self.work.protect()

    def save(self) -> None:
        """work → kept; does not wait."""
        if self.kind == STATE:
            self.spans[1].copy(self.work, layout.aligned(self.used))

    def load(self) -> None:
        """kept → work; does not wait."""
        if self.kind == STATE:
            self.work.copy(self.spans[1], layout.aligned(self.used))

    def sum(self, lengths: list[tuple[int, int]], *, work: bool) -> int:
        """Of the last commit; `work`: while that is COPYING. `lengths`: where arrays that are appended to begin, and their bytes."""
        if self.kind == APPEND:
            sums = (self.work.sum(at, size) for at, size in lengths)
            return sum(number * one for number, one in enumerate(sums, 1)) % (1 << 64)
        if self.kind == CONSTANT and self._constant is not None:
            return self._constant
        found = (self.work if work else self.spans[-1]).sum(0, layout.aligned(self.used))
        if self.kind == CONSTANT:
            self._constant = found
        return found

    def committed(self, *, work: bool) -> bytearray:
        """The bytes of the last commit; `work`: while that is COPYING."""
        return (self.work if work else self.spans[-1]).read(0, self.used)


def taken_in(memory: Memory, row: layout.Area, fds: Iterator[int]) -> MappedArea:
    """An area that another process made; takes its descriptors off `fds`."""
    spans = [memory.take_in(span, [next(fds) for _ in span.parts]) for span in row.spans]
    return MappedArea(row.where, row.kind, memory, spans, row.used)


def stand_in(memory: Memory, row: layout.Area) -> MappedArea:
    """The same at the same addresses, with nothing that the other process uses."""
    spans = [memory.stand_in(span, used=not number) for number, span in enumerate(row.spans)]
    return MappedArea(row.where, row.kind, memory, spans, row.used)


def give_way(area: MappedArea, row: layout.Area, fds: Iterator[int]) -> None:
    """The memory itself in place of the stand-ins."""
    area.work.clear(row.spans[0].size)
    for span, there in zip(area.spans, row.spans, strict=True):
        span.take_in(there.parts, [next(fds) for _ in there.parts])
