"""Any arrays, any commits, ended at any point of the last one: what comes back is exactly one committed state, twice over.

A program for the simulated GPU, with a task's environment and a keeper: `python -m tests.conformance.torn_commits`. Each example
opens a session, makes commits, and leaves it in the middle of one, as a process does that is killed: nothing is closed but
the connection. Then another session takes over, is compared with what was committed, commits on, and is left as well.
"""

import contextlib
import os
import random
import secrets
import socket
from collections.abc import Iterator
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from resilience.state import dtypes, layout
from resilience.state import session as module
from resilience.state.areas import Area
from resilience.state.record import Commit, Record
from resilience.state.session import Session

POINTS = ["before-0", "after-0", "between", "before-1", "after-1", ""]
SHAPES = st.lists(st.integers(0, 7), max_size=3).map(tuple) | st.sampled_from([(70_000,), (300_000, 2)])
ROWS = st.tuples(
    st.sampled_from([layout.DEVICE, layout.HOST]),
    st.sampled_from(sorted(layout.SPANS)),
    st.sampled_from(sorted(dtypes.TYPES)),
    SHAPES,
).filter(lambda row: row[3] or row[1] != layout.APPEND)


Committed = tuple[int, dict[str, bytes], dict[str, int]]
"""Step, content, lengths."""


class Killed(BaseException):
    """The process ends here."""


class Program:
    """A session with these arrays, and what they ought to hold."""

    def __init__(self, rows: list[Any], environ: dict[str, str]) -> None:
        module._opened = False
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.supervisor = ours
        self.session = Session(
            environ | {"MPSR_FD": str(theirs.detach())},
            name="torn", spill_seconds=None, arrays="device", device=0, overhead=1.0,
        ).__enter__()  # fmt: skip
        self.arrays = {
            f"a{n}": self.session.array(
                f"a{n}", shape, dtype, where=where, constant=kind == layout.CONSTANT, append=kind == layout.APPEND
            )
            for n, (where, kind, dtype, shape) in enumerate(rows)
        }
        self.kinds = {f"a{n}": row[1] for n, row in enumerate(rows)}

    def content(self) -> dict[str, bytes]:
        return {name: array.tobytes() for name, array in self.arrays.items()}

    def put(self, name: str, content: bytes) -> None:
        array = self.arrays[name]
        if isinstance(array, np.ndarray):
            array.reshape(-1).view("u1")[:] = np.frombuffer(content, "u1")
        else:
            array.copy_from(content)

    def change(self, lengths: dict[str, int]) -> dict[str, bytes]:
        """Work of a step; what is committed then."""
        now = self.content()
        for name, kind in self.kinds.items():
            random_bytes = random.Random(f"{name} {secrets.token_hex(4)}").randbytes(len(now[name]))
            if kind == layout.STATE or (kind == layout.CONSTANT and self.session.fresh and not self.session._sealed):
                now[name] = random_bytes
                self.put(name, random_bytes)
            elif kind == layout.APPEND:
                row = len(now[name]) // max(self.arrays[name].shape[0], 1)
                kept, end = self.session.filled[name] * row, lengths[name] * row
                now[name] = now[name][:kept] + random_bytes[kept:]
                self.put(name, now[name])
                now[name] = now[name][:end] + bytes(len(now[name]) - end)
        return now

    def leave(self) -> None:
        assert self.session._link is not None
        self.session._link.close()
        self.supervisor.close()


@contextlib.contextmanager
def killed(point: str, sequence: int) -> Iterator[None]:
    """The commit of that sequence is not survived."""
    write, save = Record.write, Area.save
    current: list[Commit] = []

    def writing(self: Record, commit: Commit) -> None:
        current[:] = [commit]
        if commit.sequence == sequence and point == f"before-{commit.phase}":
            raise Killed
        write(self, commit)
        if commit.sequence == sequence and point == f"after-{commit.phase}":
            raise Killed

    def saving(self: Area) -> None:
        if current and current[0].sequence == sequence and point == "between" and self.kind == layout.STATE:
            self.spans[1].copy(self.work, self.used // 2)
            self.memory.wait()
            raise Killed
        save(self)

    Record.write, Area.save = writing, saving  # type: ignore[method-assign]
    try:
        yield
    finally:
        Record.write, Area.save = write, save  # type: ignore[method-assign]


@settings(max_examples=int(os.environ.get("EXAMPLES", "25")), deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(ROWS, min_size=1, max_size=6), st.data())
def ends_anywhere(rows: list[Any], data: st.DataObject) -> None:
    program = Program(rows, dict(os.environ))
    try:
        committed = -1, program.change(dict.fromkeys(program.kinds, 0)), dict[str, int]()
        program.session.wait()
        for life in range(2):
            committed = one_life(program, committed, life, data)
            program.leave()
            program = Program(rows, dict(os.environ))
            assert program.session.step == committed[0]
            assert program.content() == committed[1], rows
            assert all(program.session.filled[name] == length for name, length in committed[2].items())
            program.session.wait()
        program.session.commit(99)
    finally:  # the next example begins with nothing kept
        assert program.session._link is not None
        program.session._link.drop()
        program.leave()


def one_life(program: Program, committed: Committed, life: int, data: st.DataObject) -> Committed:
    """Some commits, the last one perhaps not survived; what is committed then."""
    for last in [False] * data.draw(st.integers(0, 2)) + [True]:
        lengths = {
            name: data.draw(st.integers(0, program.arrays[name].shape[0]))
            for name, kind in program.kinds.items()
            if kind == layout.APPEND
        }
        point = data.draw(st.sampled_from(POINTS)) if last else ""
        step = committed[0] + 1
        after = step, program.change(lengths), lengths
        try:
            with killed(point, program.session._sequence + 1):
                program.session.commit(step, filled=lengths, life=life, nan=float("nan"))
        except Killed:
            if point == "before-0":
                continue
        committed = after
    return committed


if __name__ == "__main__":
    ends_anywhere()
    print("good")
