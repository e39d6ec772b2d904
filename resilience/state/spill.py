"""The spiller: `python -E -m resilience.state.spill` writes a task's committed state to disk before its job is
requeued.

The supervisor starts it with the task's environment (MPSR_KEEPER, MPSR_TOKEN, MPSR_SPILL, SLURM_*) and the
CUDA_MPS_PIPE_DIRECTORY of a server that works, or none. It makes a context of its own, takes the memory from the
keeper as a reader and changes nothing of it. It prints `seq=<n>`: the commit that is on disk now (-1: none), and ends
with status 0 when that is the newest commit there is. Otherwise it says why on stderr, and what an earlier spill left
is still printed: status 1.
"""

import os
import sys
from collections.abc import Mapping
from dataclasses import replace

from resilience.model.errors import GpuError, ResilienceError, StateError
from resilience.state import generations, identity, layout, leftover, names, spillfile, table
from resilience.state.driver import CudaGpu
from resilience.state.link import Deposit, KeeperLink
from resilience.state.record import HELD, PREPARED, Commit, CommitRecord
from resilience.state.spillfile import SpillPlace
from resilience.state.stores import KeptStore

_KEEPER_TIMEOUT = 1.0
_SERVER_TIMEOUT = 10.0
_TRIES = 20
"""Copies until the record stands still; the writer is normally stopped, and one is enough."""


def on_disk(where: SpillPlace) -> int:
    """The commit in the file, if a restarted task would go on from it; -1 otherwise."""
    head = spillfile.read(where, content=False)
    alone = head.sequence if head and spillfile.ours(where, head) else -1
    return max((one.sequence for one in generations.heads(where) if one.committed), default=alone)


def spill(where: SpillPlace, held: Deposit) -> int:
    """Write the committed state; its sequence. What a rank of a group has prepared is written too. Raises StateError or
    GpuError."""
    _, fds = held
    record = CommitRecord(fds[1])
    before = _standing(record)
    if not before:
        return -1
    if before[0].group is None and before[0].sequence <= on_disk(where):
        return before[0].sequence
    there = layout.parse(table.read(fds[0]))
    gpu = CudaGpu(wait_for_server=_SERVER_TIMEOUT) if any(a.where != layout.HOST for a in there.areas) else None
    store = KeptStore(gpu, cupy=False)
    store.take_in(there, fds[2:])
    for _ in range(_TRIES):
        read = []
        for commit in before:
            filled = dict(zip((spec.name for spec in there.appended), commit.filled, strict=True))
            read.append((commit, filled, store.read(filled, work=commit.phase != HELD)))
        after = _standing(record)
        if after == before:
            for commit, filled, content in read:
                spillfile.write(where, commit, filled=filled, content=content, committed=commit.phase != PREPARED)
            return max(commit.sequence for commit in before if commit.phase != PREPARED)
        before = after
    raise StateError("spill", "the state was committed again while it was copied", f"{_TRIES} times")


def _standing(record: CommitRecord) -> list[Commit]:
    """The commit that counts, and the one before it where that is only prepared."""
    entries = record.entries()
    return entries[: 2 if entries and entries[0].phase == PREPARED else 1]


def main(environ: Mapping[str, str]) -> int:
    """The program."""
    claim = identity.claimed(environ)
    where = spillfile.place(environ, claim.name if claim else "", claim.runs if claim else frozenset())
    if where is None or not environ.get(names.KEEPER):
        missing = StateError("spill", "needs a task's environment", f"{names.SPILL}, {names.KEEPER}, SLURM_JOB_ID")
        print(missing.lines(), file=sys.stderr)
        return names.EXIT_USAGE
    leftover.note(environ, str(where.directory))
    status = names.EXIT_OK
    sequence = -1
    try:
        link = KeeperLink(environ[names.KEEPER], environ.get(names.TOKEN, ""), "reader", timeout=_KEEPER_TIMEOUT)
        if link.first and claim is None:  # the file of claims could not be written
            where = replace(where, owner=str(link.first[0].get("name", "")))
        sequence = spill(where, link.first) if link.first else on_disk(where)
    except (StateError, GpuError) as error:
        print(error.lines(), file=sys.stderr)
        status = names.EXIT_FAILED
        try:
            sequence = on_disk(where)
        except ResilienceError as damaged:
            print(damaged.lines(), file=sys.stderr)
    print(f"seq={sequence}", flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main(os.environ))
