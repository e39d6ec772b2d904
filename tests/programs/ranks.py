"""Ranks of an MPI program whose state depends on all of them: `ranks.py DIRECTORY STEPS [POINT RANK SEQUENCE]`.

Run by mpiexec with a task's environment but for what differs between ranks; DIRECTORY has a keeper's socket `k<rank>` where
there are keepers. Rank 0 prints `from SOURCE STEP` of each rank, and a digest at the end. RANK kills itself at POINT of the commit
SEQUENCE; at `full` its disk takes no spill from that commit on, and three commits later it is killed.
"""

import hashlib
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from mpi4py import MPI

import resilience
from resilience.model.errors import StateError
from resilience.state import spillfile
from resilience.state.areas import MappedArea
from resilience.state.record import Commit, CommitRecord
from resilience.state.session import Session

PHASES = ("copying", "held", "prepared")
COUNT = 1000


def killed(point: str, at: int) -> None:
    """From now on this process does not get past that point."""
    write, copy, put, rename, commit = CommitRecord.write, MappedArea.save, spillfile.write, os.rename, Session.commit
    now: list[int] = [-1]

    def die(here: str, sequence: int) -> None:
        if here == point and sequence == at:
            os.kill(os.getpid(), signal.SIGKILL)

    def writing(self: CommitRecord, entry: Commit) -> None:
        now[0] = entry.sequence
        die(f"before-{PHASES[entry.phase]}", entry.sequence)
        write(self, entry)
        die(f"after-{PHASES[entry.phase]}", entry.sequence)

    def saving(self: MappedArea) -> None:
        if point == "between" and now[0] == at:
            self.spans[1].copy(self.work, self.used // 2)
            self.memory.wait()
            die("between", at)
        copy(self)

    def spilling(where: Any, commit: Commit, **more: Any) -> None:
        if point == "full" and commit.sequence >= at:
            raise StateError("spill", "cannot write", "No space left on device")
        die("before-spill", commit.sequence)
        os.rename = renaming(commit.sequence)
        put(where, commit, **more)
        die("after-spill", commit.sequence)

    def committing(self: Session, *words: Any, **more: Any) -> int:
        sequence = commit(self, *words, **more)
        if point == "full" and sequence == at + 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return sequence

    def renaming(sequence: int) -> Callable[..., None]:
        def one(*names: Any, **more: Any) -> None:
            die("half-spilled", sequence)
            rename(*names, **more)

        return one

    CommitRecord.write = writing  # type: ignore[assignment, method-assign]
    MappedArea.save, Session.commit, spillfile.write = saving, committing, spilling  # type: ignore[method-assign]


def main(directory: Path, steps: int, point: str = "", rank: str = "-1", sequence: str = "0") -> None:
    world = MPI.COMM_WORLD
    mine = world.Get_rank()
    os.environ |= {"SLURM_PROCID": str(mine), "MPSR_TOKEN": f"token{mine}{os.environ.get('SLURM_RESTART_COUNT', '')}"}
    if (directory / f"k{mine}").exists():
        _supervisor, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        os.environ |= {"MPSR_KEEPER": str(directory / f"k{mine}"), "MPSR_FD": str(ours.detach())}
    if int(rank) == mine:
        killed(point, int(sequence))
    with resilience.session(name="ranks", group=world, arrays="numpy") as s:
        u = s.array("u", COUNT)
        log = s.array("log", (steps, 1), append=True)
        if s.fresh:
            u[:] = np.arange(COUNT) * (mine + 1)
        came = world.gather((s.restored_from, s.step, s.values.get("total")))
        if came:
            print("from", *(f"{source or 'nothing'} {step}" for source, step, _ in came), flush=True)
            assert len({total for _, _, total in came}) == 1, came
        for step in s.steps(steps):
            total = world.allreduce(float(u.sum()))
            u[:] = u / 3 + total / COUNT + step
            log[step] = total
            s.commit(step, group=world, filled={"log": step + 1}, total=total)
        digests = world.gather(hashlib.sha256(u.tobytes() + log.tobytes()).hexdigest())
        if digests:
            print("digest", hashlib.sha256("".join(digests).encode()).hexdigest(), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
