"""The last look before a drill's fault, in a step of its job: is everybody on the job's GPUs the caller's own?

Slurm gives the GPU to the job alone; what computes there without Slurm's knowledge would be hit by the fault as well. Exit
status `failed` with one line for each stranger, and when the driver cannot be asked: then no fault is made.
"""

import os
import sys
from collections.abc import Iterable
from pathlib import Path

from resilience.adapters.gpu.nvml import NvmlGpus
from resilience.contract import env, exit_code
from resilience.model.errors import ResilienceError
from resilience.model.ids import GpuUuid
from resilience.parse import lease
from resilience.ports import Gpus


def strangers(gpus: Gpus, uuids: Iterable[GpuUuid], uid: int, proc: Path = Path("/proc")) -> list[str]:
    """Processes on these GPUs that are not this user's, in words. One that has just ended is nobody."""
    found = []
    for uuid in uuids:
        for pid in sorted({*gpus.mps_processes(uuid), *gpus.plain_processes(uuid)}):
            try:
                owner = (proc / str(pid)).stat().st_uid
            except FileNotFoundError:
                continue
            if owner != uid:
                found.append(f"process {pid} of uid {owner} is on {uuid}: no fault is made")
    return found


def main() -> int:
    try:
        held = lease.parse(Path(os.environ[env("lease")]).read_text(encoding="ascii"))
        found = strangers(NvmlGpus(), [uuid for _, uuid in held.gpus], os.getuid())
    except (OSError, KeyError, ResilienceError) as error:
        print(f"drill: who is on the GPU cannot be told, so no fault is made: {error}", file=sys.stderr)
        return exit_code("failed")
    for line in found:
        print(f"drill: {line}", file=sys.stderr)
    return exit_code("failed" if found else "ok")


if __name__ == "__main__":
    sys.exit(main())
