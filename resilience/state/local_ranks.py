"""Sessions of processes that a launcher inside a task has started: torchrun, mpirun in a step, Python's spawn.

Such a launcher closes the supervisor's socket, which is for one process, as keeper and standby are. So these sessions have no
supervisor: their arrays are their own, and what they commit is kept on disk alone, each under its local rank. One without a
rank keeps nothing, since nothing would tell its state from another's.
"""

import os
import socket
import stat
import sys
from collections.abc import Mapping

from resilience.state import names
from resilience.state.standing import cannot

_RANKS = ("LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "MV2_COMM_WORLD_LOCAL_RANK")
"""torchrun, Open MPI, MPICH and Intel MPI, MVAPICH."""
_SUPERVISED = (names.FD, names.KEEPER, names.ROLE, names.STDIO)


def reaches_supervisor(environ: Mapping[str, str]) -> bool:
    """Whether MPSR_FD is still the supervisor's socket here."""
    fd = int(environ[names.FD])
    try:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            return False
        with socket.socket(fileno=os.dup(fd)) as there:
            return (there.family, there.type) == (socket.AF_UNIX, socket.SOCK_SEQPACKET)
    except OSError:
        return False


def alone(environ: Mapping[str, str], name: str) -> tuple[dict[str, str], str]:
    """Environment and name of a session whose process a launcher has started; says what it does without."""
    if environ.get(names.ROLE) == "standby":
        cannot("a program that a launcher starts has no standby")
    rank = next((environ[one] for one in _RANKS if environ.get(one, "").isdigit()), "")
    mine = {key: value for key, value in environ.items() if key not in _SUPERVISED}
    if rank:
        what = f"local rank {rank} of a launcher: its state is kept on disk, not on the GPU"
        mine[names.PROGRAM] = f"{mine.get(names.PROGRAM, '')}.{rank}"
        name = f"{name}.{rank}" if name else ""
    else:
        what = "a launcher's process without a local rank: its state is not kept"
        mine.pop(names.SPILL, None)
    print(f"mpsr: session: {what}", file=sys.stderr, flush=True)
    return mine, name
