"""The wiper: `python -E -m resilience.state.wipe` overwrites a task's kept state when the task has ended badly.

The supervisor starts it, with the environment that the spiller gets, once the task's processes have gone and while the
keeper still holds their memory. It is the last that has it: if another process still is at the keeper after a moment,
nothing is touched. Host memory is overwritten through its descriptors, device memory by the GPU, on the server of
CUDA_MPS_PIPE_DIRECTORY; without one that works it stays as it is, and that is said on stderr: status 1.
"""

import os
import sys
import time
from collections.abc import Mapping

from resilience.adapters.linux.readable import readable
from resilience.model.errors import GpuError, StateError
from resilience.state import layout, names, table, wiping
from resilience.state.driver import CudaGpu
from resilience.state.link import Deposit, KeeperLink
from resilience.state.stores import KeptStore

_KEEPER_TIMEOUT = 1.0
_OTHERS_TIMEOUT = 1.0
"""Seconds for the connections of killed processes to be closed."""
_LOOK = 0.01
_SERVER_TIMEOUT = 1.0


def wipe(held: Deposit) -> None:
    """Overwrite all of it. Raises StateError or GpuError when the GPU's part cannot be; the host's has been then."""
    _, fds = held
    there = layout.parse(table.read(fds[0]))
    try:
        if any(area.where != layout.HOST for area in there.areas):
            store = KeptStore(CudaGpu(wait_for_server=_SERVER_TIMEOUT), cupy=False)
            store.take_in(there, fds[2:])
            store.wipe()
    finally:
        wiping.overwrite([fds[1], *(fd for fd in fds[2:] if wiping.of_host(fd))])


def _alone(link: KeeperLink) -> bool:
    """No other process is at the keeper."""
    until = time.monotonic() + _OTHERS_TIMEOUT
    while int(link.status()["peers"]) > 1:
        if time.monotonic() > until:
            return False
        readable(link.fileno(), timeout=_LOOK)
    return True


def main(environ: Mapping[str, str]) -> int:
    """The program."""
    try:
        link = KeeperLink(
            environ.get(names.KEEPER, ""), environ.get(names.TOKEN, ""), "reader", timeout=_KEEPER_TIMEOUT
        )
        if link.first:
            if not _alone(link):
                raise StateError("wipe", "another process still uses the kept state", "it is left as it is")
            wipe(link.first)
    except (StateError, GpuError, OSError) as error:
        print(f"mpsr: kept state was not wiped: {error}", file=sys.stderr)
        return names.EXIT_FAILED
    return names.EXIT_OK


if __name__ == "__main__":
    sys.exit(main(os.environ))
