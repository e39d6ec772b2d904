"""Any arrays, any commits, ended at any point of the last one: what comes back is exactly one committed state, twice over.

A program for the simulated GPU, with a task's environment and a keeper: `python -m tests.conformance.torn_commits`. In each
example a process opens a session, makes commits, and is killed in the middle of one. Then another one takes over, is
compared with what was committed, commits on, and is killed as well; a third one is compared and ends in order.
"""

import contextlib
import multiprocessing
import os
import random
import secrets
import signal
import socket
import traceback
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from resilience.state import dtypes, layout
from resilience.state.areas import MappedArea
from resilience.state.record import Commit, CommitRecord
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

Planned = tuple[dict[str, int], str]
"""The lengths of a commit, and the point at which it ends its process."""


class Program:
    """A session with these arrays, and what they ought to hold."""

    def __init__(self, rows: list[Any], environ: dict[str, str]) -> None:
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


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@contextlib.contextmanager
def killed(point: str, sequence: int) -> Iterator[None]:
    """The commit of that sequence is not survived."""
    write, save = CommitRecord.write, MappedArea.save
    current: list[Commit] = []

    def writing(self: CommitRecord, commit: Commit) -> None:
        current[:] = [commit]
        if commit.sequence == sequence and point == f"before-{commit.phase}":
            die()
        write(self, commit)
        if commit.sequence == sequence and point == f"after-{commit.phase}":
            die()

    def saving(self: MappedArea) -> None:
        if current and current[0].sequence == sequence and point == "between" and self.kind == layout.STATE:
            self.spans[1].copy(self.work, self.used // 2)
            self.memory.wait()
            die()
        save(self)

    CommitRecord.write, MappedArea.save = writing, saving  # type: ignore[method-assign]
    try:
        yield
    finally:
        CommitRecord.write, MappedArea.save = write, save  # type: ignore[method-assign]


def a_life(rows: list[Any], before: Committed | None, commits: list[Planned], end: Connection) -> None:
    """One process: what `end` is told last is a commit that it is about to make, or why it failed."""
    try:
        program = Program(rows, dict(os.environ))
        if before is None:
            before = -1, program.change(dict.fromkeys(program.kinds, 0)), {}
        else:
            assert program.session.step == before[0]
            assert program.content() == before[1]
            assert all(program.session.filled[name] == length for name, length in before[2].items())
        program.session.wait()
        end.send((before, ""))
        for lengths, point in commits:
            before = before[0] + 1, program.change(lengths), lengths
            end.send((before, point))
            with killed(point, program.session.sequence + 1):
                program.session.commit(before[0], filled=lengths, life=1, nan=float("nan"))
        if commits:
            die()
        program.session.commit(99)
        program.session.__exit__(None, None, None)
    except BaseException:
        end.send(traceback.format_exc())
    os._exit(0)


def lived(rows: list[Any], before: Committed | None, commits: list[Planned]) -> Committed:
    """What is committed after that life."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=a_life, args=(rows, before, commits, theirs))
    process.start()
    theirs.close()
    with contextlib.suppress(EOFError):
        while True:
            said = ours.recv()
            assert not isinstance(said, str), said
            committed, point = said
            if point != "before-0":
                before = committed
    process.join()
    assert before is not None
    return before


@st.composite
def plans(draw: st.DrawFn) -> tuple[list[Any], list[list[Planned]]]:
    """Arrays, and the commits of two lives; the last commit of each is perhaps not survived."""
    rows = draw(st.lists(ROWS, min_size=1, max_size=6))
    lengths = {f"a{n}": st.integers(0, row[3][0]) for n, row in enumerate(rows) if row[1] == layout.APPEND}
    survived = st.tuples(st.fixed_dictionaries(lengths), st.just(""))
    last = st.tuples(st.fixed_dictionaries(lengths), st.sampled_from(POINTS))
    return rows, [[*draw(st.lists(survived, max_size=2)), draw(last)] for _ in range(2)]


@settings(max_examples=int(os.environ.get("EXAMPLES", "25")), deadline=None, suppress_health_check=list(HealthCheck))
@given(plans())
def ends_anywhere(plan: tuple[list[Any], list[list[Planned]]]) -> None:
    rows, lives = plan
    committed = None
    for commits in [*lives, []]:
        committed = lived(rows, committed, commits)


if __name__ == "__main__":
    ends_anywhere()
    print("good")
